"""Reading what the system says of itself: checkout's orders, and every service's effects, page by page.

Only a read of a quiet system is complete. It refuses an order or an effect that it cannot read, rather than
to leave it out of the books.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx

from lab.client import Call, NoAnswerError, Patience, bearer, each, expect, pages, send
from lab.errors import FAILED, LabError
from lab.ledger import IN_PROGRESS, STATUSES, Effect, Order, Step
from lab.system import CONDUCTOR, System

ORDERS_A_PAGE = 100
EFFECTS_A_PAGE = 1000
MOST_READS = 3
LOOKERS = 16
POLL_S = 0.25
UNKNOWN_ID = frozenset({400, 404, 422})


async def wait_until_quiet(client: httpx.AsyncClient, system: System, patience: Patience) -> None:
    """Return when no order is in progress, or patience is out; a checkout that is down is waited for."""
    headers = bearer(system.tokens().operator)
    call = Call("GET", f"{system.url(CONDUCTOR)}/checkouts", headers, {"status": IN_PROGRESS, "limit": 1})
    started = patience.clock()
    while (left_s := patience.total_s - (patience.clock() - started)) > 0:
        try:
            page = expect(await send(client, call, replace(patience, total_s=left_s)))
        except NoAnswerError:
            return
        if not page.get("checkouts"):
            return
        await patience.sleep(min(POLL_S, left_s))


async def read_books(
    client: httpx.AsyncClient, system: System, promised: Set[str], patience: Patience
) -> tuple[dict[str, Order], dict[str, list[Effect]]]:
    """All orders by id, and all effects by service, of one moment; `promised` are ids given to clients.

    An order that came in while the pages were read would look wrong: then everything is read again, and
    after three reads `LabError` says that the system is not quiet.
    """
    for _ in range(MOST_READS):
        orders = await read_orders(client, system, patience)
        effects = await read_all_effects(client, system, patience)
        acted_on = {effect.order_id for found in effects.values() for effect in found}
        if not await _any_known(client, system, (promised | acted_on) - orders.keys(), patience):
            return orders, effects
    raise LabError("orders keep coming in while they are read: stop the load, and audit again", FAILED)


async def list_checkouts(
    client: httpx.AsyncClient,
    system: System,
    patience: Patience,
    *,
    status: str | None = None,
    older_than_s: int | None = None,
) -> AsyncIterator[dict[str, Any]]:
    """The representations of all orders, or of those with a status and an age, oldest first."""
    params: dict[str, str | int] = {"limit": ORDERS_A_PAGE}
    if status is not None:
        params["status"] = status
    if older_than_s is not None:
        params["older_than_s"] = older_than_s
    headers = bearer(system.tokens().operator)
    call = Call("GET", f"{system.url(CONDUCTOR)}/checkouts", headers, params)
    async for page in pages(client, call, "checkouts", patience):
        for order in page:
            yield order


async def get_checkout(
    client: httpx.AsyncClient, system: System, order_id: str, patience: Patience
) -> dict[str, Any] | None:
    """One order's representation; None where checkout knows no such order."""
    url = f"{system.url(CONDUCTOR)}/checkouts/{quote(order_id, safe='')}"
    answer = await send(client, Call("GET", url, bearer(system.tokens().operator)), patience)
    return None if answer.status in UNKNOWN_ID else expect(answer)


async def read_orders(client: httpx.AsyncClient, system: System, patience: Patience) -> dict[str, Order]:
    """All orders that checkout knows, by id."""
    orders = {}
    async for told in list_checkouts(client, system, patience):
        order = parse_order(told)
        orders[order.order_id] = order
    return orders


async def read_retired(client: httpx.AsyncClient, system: System, patience: Patience) -> dict[str, datetime]:
    """By name, since when participants take part in no choreographed order any more."""
    call = Call("GET", f"{system.url(CONDUCTOR)}/participants", bearer(system.tokens().operator))
    known = expect(await send(client, call, patience)).get("participants", [])
    try:
        return {each["name"]: _parse_time(each["retired_at"]) for each in known if each["retired_at"]}
    except (KeyError, TypeError, ValueError) as error:
        raise LabError(f"checkout shows a participant that cannot be read: {error!r}", FAILED) from error


async def read_effects(
    client: httpx.AsyncClient, system: System, service: str, patience: Patience
) -> list[Effect]:
    """All effects of one service, in the order in which it recorded them."""
    url = f"{system.url(service)}/effects"
    call = Call("GET", url, bearer(system.tokens().operator), {"limit": EFFECTS_A_PAGE})
    return await read_effects_by(client, service, call, patience)


async def read_effects_by(
    client: httpx.AsyncClient, service: str, call: Call, patience: Patience
) -> list[Effect]:
    """All effects that `call` pages through, as above; `service` is what errors call it."""
    return [
        _parse_effect(service, told)
        async for page in pages(client, call, "effects", patience)
        for told in page
    ]


async def read_all_effects(
    client: httpx.AsyncClient, system: System, patience: Patience
) -> dict[str, list[Effect]]:
    """The effects of every service but checkout, by its name; the first error ends the read."""
    names = effect_services(system)
    reads = (read_effects(client, system, name, patience) for name in names)
    return dict(zip(names, await asyncio.gather(*reads), strict=True))


def effect_services(system: System) -> Sequence[str]:
    """The names of the services that have effects: all but checkout."""
    return [service.name for service in system.services if service.name != CONDUCTOR]


async def _any_known(
    client: httpx.AsyncClient, system: System, order_ids: Set[str], patience: Patience
) -> bool:
    """Whether checkout knows one of these, which it did not list."""
    known: list[str] = []

    async def look(order_id: str) -> None:
        if not known and await get_checkout(client, system, order_id, patience) is not None:
            known.append(order_id)

    await each(sorted(order_ids), look, LOOKERS)
    return bool(known)


def parse_order(told: Mapping[str, Any]) -> Order:
    """What the ledger needs of a representation; raise `LabError` where that is not there."""
    try:
        if told["status"] not in STATUSES:
            raise ValueError(told["status"])
        completed_at = told.get("completed_at")
        return Order(
            order_id=str(told["order_id"]),
            style=str(told["style"]),
            status=told["status"],
            rewards_member=told["customer"]["rewards_member"] is True,
            completed_at=None if completed_at is None else _parse_time(completed_at),
            steps={
                name: Step(step["status"], step.get("reason"), step.get("awaited", True))
                for name, step in told["steps"].items()
            },
            accepted_at=_parse_time(told["accepted_at"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LabError(f"checkout shows an order that cannot be read: {error!r}", FAILED) from error


def _parse_effect(service: str, told: Mapping[str, Any]) -> Effect:
    try:
        return Effect(str(told["order_id"]), _parse_time(told["at"]))
    except (KeyError, TypeError, ValueError) as error:
        raise LabError(f"{service} shows an effect that cannot be read: {error!r}", FAILED) from error


def _parse_time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return time
