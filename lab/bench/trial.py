"""One style on a whole system of real services for a while, and its books afterwards.

Each trial has a system of its own, so that none pays for another's backlog. What is done to the system
meanwhile is the caller's. It refuses a trial in which a process died, or whose orders never end.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import httpx
import orjson

from lab.bench.children import BenchError, Child, running
from lab.bench.course import Offered, offered
from lab.bench.generator import CONNECT_TIMEOUT_S, DRAIN_TIMEOUT_S
from lab.bench.phased import Answers, Phase, PhasedPlan, Row
from lab.bench.setting import Setting, describe
from lab.bench.whole import Whole, whole_system
from lab.client import Patience, open_client
from lab.ledger import Report, reconcile
from lab.reading import read_books, wait_until_quiet
from lab.system import CONDUCTOR

LEAD_S = 2.0  # until the first order: for the connections
SLACK_S = 30.0  # on top of a plan's own bounds, before the generator counts as dead
READ_S = 60.0
STRUCK = "warehouse"  # where one service stands for all


@dataclass(frozen=True, slots=True)
class Books:
    """What the books say in the end: every order that was offered, by when it was due, and the ledger."""

    orders: list[Offered]
    ledger: Report


class Trial:
    """A running system, ready for orders of one style."""

    def __init__(
        self, style: str, whole: Whole, generator: Child, client: httpx.AsyncClient, rows: Path
    ) -> None:
        self.style = style
        self.whole = whole
        self.client = client
        self._generator = generator
        self._file = rows
        self._rows: list[Row] = []

    async def offer(self, phases: Sequence[Phase], starts_at: float, seed: int) -> Answers:
        """Offer orders in phases, once for each trial; returns when all are answered. Raises BenchError."""
        port = self.whole.system.port(CONDUCTOR)
        plan = PhasedPlan(port, self.style, tuple(phases), starts_at, seed, str(self._file))
        bound_s = starts_at - time.time() + plan.length_s + CONNECT_TIMEOUT_S + DRAIN_TIMEOUT_S + SLACK_S
        answers = Answers(**await self._generator.ask(orjson.dumps(asdict(plan)), bound_s))
        told = orjson.loads(await asyncio.to_thread(self._file.read_bytes))
        self._rows = [(at, took_ms, slug, order_id) for at, took_ms, slug, order_id in told]
        return answers

    async def settle(self, patience_s: float) -> None:
        """Wait until no order is in progress, or patience is out: the ledger tells."""
        await wait_until_quiet(self.client, self.whole.system, Patience(patience_s))

    async def reckon(self) -> Books:
        """Read the books. Raises LabError, also where a process has died or no order was accepted."""
        await self.whole.check_alive()
        promised = {order_id for *_, order_id in self._rows if order_id is not None}
        if not promised:
            raise BenchError(f"checkout accepted no order of {self.style}")
        orders, effects = await read_books(self.client, self.whole.system, promised, Patience(READ_S))
        completed = {
            order_id: None if order.completed_at is None else order.completed_at.timestamp()
            for order_id, order in orders.items()
        }
        return Books(offered(self._rows, completed), reconcile(promised, orders.values(), effects))


@asynccontextmanager
async def trial_of(style: str, folder: Path, settings: Mapping[str, str]) -> AsyncIterator[Trial]:
    """A trial on a system with its data in `folder`, which is made; ended on the way out.

    Raises LabError.
    """
    await asyncio.to_thread(folder.mkdir)
    async with AsyncExitStack() as stack:
        generator = await stack.enter_async_context(
            running("load generator", "lab.bench.phased", env={}, log=folder / "generator.log", talks=True)
        )
        whole = await stack.enter_async_context(whole_system(folder, "null", settings))
        client = await stack.enter_async_context(open_client())
        yield Trial(style, whole, generator, client, folder / "rows.json")


class _Shape(Protocol):
    @property
    def styles(self) -> Sequence[str]: ...


class _Found(Protocol):
    @property
    def passed(self) -> bool: ...


S = TypeVar("S", bound=_Shape)
F = TypeVar("F", bound=_Found)


@dataclass(frozen=True)
class StyleByStyle(Generic[S, F]):
    """All that a run of trials found, one style after the other."""

    setting: Setting
    shape: S
    found: list[F]

    @property
    def passed(self) -> bool:
        """Whether each style did what was asked of it."""
        return all(each.passed for each in self.found)


async def style_by_style(
    shape: S,
    folder: Path,
    advance: Callable[[str], None],
    measure: Callable[[str, S, Path, Callable[[str], None]], Awaitable[F]],
) -> StyleByStyle[S, F]:
    """Measure each style of the shape by `measure`, in `folder`. Raises what that raises."""
    advance("starting")
    setting = await asyncio.to_thread(describe, folder)
    return StyleByStyle(
        setting, shape, [await measure(style, shape, folder, advance) for style in shape.styles]
    )


def next_start() -> float:
    """When a plan that is made now may start, in seconds since 1970."""
    return time.time() + LEAD_S
