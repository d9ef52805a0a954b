"""What the proofs of changes share: how one is called, what it prints, and how it asks the running system.

A proof is a program beside the patches of its change, run with the changed tree's own code. It refuses to
take trouble for a traceback: a refusal, no answer or no end is told as not proved, in the words of the error;
anything else is a defect of the proof.
"""

import argparse
import asyncio
import json
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import httpx
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from lab.broker import connect
from lab.client import Answer, Call, Patience, bearer, ensure_running, expect, open_client, pages, send
from lab.errors import FAILED, LabError
from lab.ledger import IN_PROGRESS
from lab.look import OK, look
from lab.outcome import Outcome
from lab.placing import Plan, Silent, place_orders
from lab.synced import SyncedLines
from lab.system import CONDUCTOR, System

STREAM = "ORDERS"
PATIENCE = Patience(30.0, try_s=15.0)  # a try outlasts the ten seconds that checkout may be asked to wait
FINAL_S = 60.0
POLL_S = 0.25
ALL_S = 170.0  # `duet change` ends a program after 180 s, and then nobody learns what it has seen
A_PAGE = 1000

Document = Mapping[str, Any]


class NotProvedError(LabError):
    """What was seen instead of what the change promises, as a sentence."""


@dataclass(frozen=True)
class Shown:
    """Whether it is proved, and what was seen, as a sentence."""

    proved: bool
    what: str

    def as_document(self) -> dict[str, Any]:
        """What is printed."""
        return {"proved": self.proved, "what": self.what}


@dataclass(frozen=True)
class Asked:
    """What a proof is asked about: a running system, and orders of one style."""

    system: System
    style: str
    client: httpx.AsyncClient


def prove(
    check: Callable[[Asked], Awaitable[Shown]],
    kind: type[Shown] = Shown,
    transport: httpx.AsyncBaseTransport | None = None,
) -> NoReturn:
    """Check what `--port-base N --data DIR --style STYLE` ask for, print one line of JSON, and exit.

    Where `check` raises `LabError`, `TimeoutError` or an error of the broker's client, a `kind` that is not
    proved is printed. Raises `SystemExit`: 0 if it is proved, 1 if not, 2 if it is called wrongly.
    """
    parser = argparse.ArgumentParser(description=sys.modules[check.__module__].__doc__)
    parser.add_argument("--port-base", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--style", choices=("orchestration", "choreography"), required=True)
    told = parser.parse_args()

    async def show() -> Shown:
        system = System.locate(told.port_base, told.data)
        async with asyncio.timeout(ALL_S), open_client(transport) as client:
            await ensure_running(client, system)
            return await check(Asked(system, told.style, client))

    try:
        shown = asyncio.run(show())
    except (LabError, NatsError, TimeoutError) as error:
        words = str(error) or f"it did not come to an end within {ALL_S:.0f} s"
        shown = kind(False, " ".join(words.split()).removesuffix(".") + ".")
    print(json.dumps(shown.as_document()))
    raise SystemExit(0 if shown.proved else 1)


async def place(asked: Asked, orders: Sequence[Document], within_s: float = FINAL_S) -> Outcome:
    """Place orders, given as bodies, and follow them until they are final, or for so many seconds.

    Raises `LabError` where their ids cannot be noted for the audit; all other trouble is in the outcome.
    """
    plan = Plan(
        asked.system.url(CONDUCTOR),
        lambda number: json.dumps(orders[number]).encode(),
        len(orders),
        styles=(asked.style,),
        follow_s=within_s,
        patience=PATIENCE,
    )
    async with SyncedLines(asked.system.accepted_file) as accepted:
        return await place_orders(asked.client, plan, accepted, Silent())


async def place_and_read(asked: Asked, orders: Sequence[Document]) -> tuple[Outcome, list[tuple[str, Any]]]:
    """As `place`, with the subject and content of each event that the stream of orders has stored since.

    Raises the errors of the broker's client, too.
    """
    events: list[tuple[str, Any]] = []
    async with connect(asked.system) as jetstream:
        sequence = (await jetstream.stream_info(STREAM)).state.last_seq
        outcome = await place(asked, orders)
        while True:
            try:
                message = await jetstream.get_msg(STREAM, seq=sequence + 1, subject=">", next=True)
            except NotFoundError:
                return outcome, events
            sequence = message.seq or sequence + 1
            events.append((message.subject or "", json.loads(message.data or b"{}")))


async def submit(asked: Asked, order: Document, prefer: str = "respond-async") -> Answer:
    """Place one order with a preference (RFC 7240); the answer, once its id is noted. Raises `LabError`."""
    headers = {"Idempotency-Key": f'"{uuid.uuid4()}"', "Prefer": prefer}
    url, content = f"{asked.system.url(CONDUCTOR)}/checkouts", json.dumps(order).encode()
    call = Call("POST", url, lambda _: headers, {"style": asked.style}, content)
    async with SyncedLines(asked.system.accepted_file) as accepted:
        answer = await send(asked.client, call, PATIENCE)
        await accepted.add(expect(answer)["order_id"])
    return answer


async def until_final(asked: Asked, ids: Sequence[str], within_s: float = FINAL_S) -> list[dict[str, Any]]:
    """The orders as they are read anew once each is final; raise `NotProvedError` if one is not in time."""
    deadline = time.monotonic() + within_s
    found = []
    for order_id in ids:
        while (order := await fetch(asked, CONDUCTOR, f"/checkouts/{order_id}"))["status"] == IN_PROGRESS:
            if time.monotonic() > deadline:
                raise NotProvedError(f"order {order_id} is still in progress after {within_s:.0f} s.")
            await asyncio.sleep(POLL_S)
        found.append(order)
    return found


async def ask(asked: Asked, service: str, path: str, body: Document | None = None, token: str = "") -> Answer:
    """The answer, be it a refusal, to GET, or to POST of a body; with the operator's token unless told.

    Raises `NoAnswerError`.
    """
    headers = bearer(token or asked.system.tokens().operator)
    method, content = ("GET", None) if body is None else ("POST", json.dumps(body).encode())
    call = Call(method, f"{asked.system.url(service)}{path}", headers, content=content)
    return await send(asked.client, call, PATIENCE)


async def tell(asked: Asked, service: str, path: str, command: Document) -> Answer:
    """The answer, be it a refusal, to a command of the conductor's. Raises `NoAnswerError`."""
    return await ask(asked, service, path, command, asked.system.tokens().conductor(service))


async def fetch(asked: Asked, service: str, path: str) -> dict[str, Any]:
    """The document that a service shows the operator. Raises `RefusedError` and `NoAnswerError`."""
    return expect(await ask(asked, service, path))


async def fetch_all(asked: Asked, service: str, path: str, key: str) -> list[dict[str, Any]]:
    """The items called `key` of all pages that a service shows the operator. Raises `LabError`."""
    headers = bearer(asked.system.tokens().operator)
    call = Call("GET", f"{asked.system.url(service)}{path}", headers, {"limit": A_PAGE})
    return [item async for page in pages(asked.client, call, key, PATIENCE) for item in page]


async def samples(asked: Asked, service: str, name: str) -> list[Sample]:
    """The samples of one name among a service's metrics. Raises `LabError` where it shows none at all."""
    seen = await look(f"{asked.system.url(service)}/metrics", PATIENCE.try_s)
    if seen is None or seen.status != OK:
        raise LabError(f"the {service} service does not show its metrics", FAILED)
    families = text_string_to_metric_families(seen.body.decode())
    return [sample for family in families for sample in family.samples if sample.name == name]
