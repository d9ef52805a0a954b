"""Writes docs/asyncapi/ from the services' own documents: `python -m lab.asyncapi_pages`.

One file for each service, the same that it serves at /asyncapi. A test fails while they differ.
"""

import importlib
import json

from lab.problem_pages import write_pages
from lab.system import discover_services

FOLDER = "docs/asyncapi"


def pages() -> dict[str, str]:
    """The documents by their path below docs/asyncapi."""
    return {
        f"{service.name}.json": json.dumps(
            importlib.import_module(f"{service.package}.asyncapi").document(), indent=2
        )
        + "\n"
        for service in discover_services()
    }


def main() -> int:
    """Write what differs, remove what is gone, and say so."""
    write_pages(FOLDER, pages())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
