"""What the checkout service's application works with, and how its routes find an order for a caller."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Path

from checkout.journal import Journal, UnknownOrderError
from checkout.metrics import OrderMetrics
from checkout.orders import Order, Progress
from checkout.participants import Participants
from checkout.settings import Settings
from checkout.store import Accepted
from checkout.watching import Watchers
from servicekit.auth import Authenticator, Caller
from servicekit.fields import NO_CONTROL_CHARACTERS
from servicekit.metrics import Metrics
from servicekit.problems import Catalogue, ProblemError
from servicekit.web import Health

OrderId = Annotated[
    str, Path(max_length=64, pattern=NO_CONTROL_CHARACTERS, description="As `Location` names it.")
]


class Style(Protocol):
    """A style of collaboration: it accepts an order and sees to its performance."""

    async def place_order(self, order: Order, key: str | None, fingerprint: str | None) -> Accepted:
        """Make the order durable and start its performance."""


@dataclass(frozen=True)
class Deps:
    """Everything the application works with.

    `kick_resumer` says that an order has just fallen due; `emit` has one event stored by the broker, or
    raises BusUnavailableError.
    """

    journal: Journal
    watchers: Watchers
    styles: Mapping[str, Style]
    participants: Participants
    kick_resumer: Callable[[], None]
    emit: Callable[[bytes], Awaitable[object]]
    auth: Authenticator
    catalogue: Catalogue
    metrics: Metrics
    order_metrics: OrderMetrics
    health: Health
    settings: Settings


async def find_order(deps: Deps, order_id: str, caller: Caller) -> tuple[Order, Progress]:
    """An order that the caller may see: its own, or any for the operator; else ProblemError("not-found")."""
    try:
        order, progress = await deps.journal.get(order_id)
    except UnknownOrderError:
        raise _not_found() from None
    if caller.role != "operator" and order.caller != caller.name:
        raise _not_found()
    return order, progress


def _not_found() -> ProblemError:
    return ProblemError("not-found", "There is no such order, or it is not yours.")
