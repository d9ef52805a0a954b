"""What is told to whom: the commands of the conductor, rebuilt from the tree's own code, or by their fields.

Commands leave no copy behind, so a process of its own imports the conductor of the tree at `root` (which may
be patched) and has it make them of the marked orders: every entry of a module's mapping that has a `path` and
a `command`. Where a service's cannot be made so (one needs another's reply, say), the fields that the code
names are taken instead, if they are called as in an order, and the result says which of both. It refuses to
import the tree into its own process.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.coupling.graph import Knowledge
from lab.coupling.markers import Marked, paths_by_fields
from lab.coupling.source import template
from lab.system import CONDUCTOR

REBUILT, BY_FIELDS, STORED = "rebuilt", "by its fields", "stored"
TIMEOUT_S = 60.0
SCRIPT = """
import json, sys
from collections.abc import Mapping
from datetime import UTC, datetime
import orjson
from checkout import orchestration
from checkout.schemas import CheckoutRequest

def parts(entry):
    for each in entry if isinstance(entry, list | tuple) else [entry]:
        if isinstance(getattr(each, "path", None), str) and callable(getattr(each, "command", None)):
            yield each

found = []
for number, body in enumerate(json.load(sys.stdin)):
    request = CheckoutRequest.model_validate(body)
    order = request.to_order(f"marked-{number}", "orchestration", "lab", datetime.now(UTC))
    for mapping in [each for each in vars(orchestration).values() if isinstance(each, Mapping)]:
        for key, entry in mapping.items():
            for part in parts(entry):
                try:
                    told = orjson.loads(orjson.dumps(part.command(order)))
                except Exception:
                    told = None
                found.append([number, str(key), part.path, told])
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Sighting:
    """A fact of the order of that number that reaches a service: how it is known, and where in a message."""

    service: str
    number: int
    fact: str
    how: str
    paths: frozenset[str] = frozenset()


def commands(root: Path, graph: Knowledge, orders: Sequence[Marked]) -> Iterator[Sighting]:
    """What the commands for these orders tell; `graph` is the orchestration of the same tree.

    The graph says whose a path is, and stands in where need be.
    """
    owners = {link.what.split(" ", 1)[-1]: link.target for link in graph.links if link.kind == "call"}
    made = [(owners.get(template(path), key), n, told) for n, key, path, told in _rebuilt(root, orders)]
    unknown = {service for service, _, told in made if told is None}
    unknown |= set(owners.values()) - {service for service, _, _ in made}
    for service, number, told in made:
        if service not in unknown:
            for fact, paths in orders[number].paths_in(told).items():
                yield Sighting(service, number, fact, REBUILT, paths)
    for service in sorted(unknown):
        schemas = [
            each for each in graph.known_by(CONDUCTOR) if (each.known, each.what) == (service, "schema")
        ]
        fields = [name for each in schemas if not each.detail.startswith("reply") for name in each.fields]
        for fact, paths in paths_by_fields(fields).items():
            yield from (Sighting(service, number, fact, BY_FIELDS, paths) for number in range(len(orders)))


def _rebuilt(root: Path, orders: Sequence[Marked]) -> list[tuple[int, str, str, Any]]:
    """Number, key and path of each command, and what it tells, None if unknown; none where it cannot run."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            input=json.dumps([order.body for order in orders]),
            capture_output=True,
            text=True,
            cwd=root,
            env=environment,
            timeout=TIMEOUT_S,
            check=True,
        )
        return [(int(number), key, path, told) for number, key, path, told in json.loads(done.stdout)]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
