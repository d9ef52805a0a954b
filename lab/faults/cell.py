"""One cell of the matrix: a fresh system of one arm, orders that keep coming, one fault, and the books.

A cell that cannot be run says why; it is not sound then. It refuses to end with anything left running.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from lab.arms import BOOK, Arm, make_tree
from lab.bench.whole import SUPERVISOR, whole_system
from lab.client import Patience, open_client
from lab.errors import LabError
from lab.faults.books import Books, make_key, make_order, read_durable, read_naive, until_acknowledged
from lab.faults.catalogue import Fault, Load
from lab.faults.judging import Figures, Span, judge
from lab.faults.rush import Rush
from lab.faults.scene import Scene
from lab.system import CONDUCTOR, System
from lab.traffic import OpenLoop, Sent, Traffic

# A try outlasts the 5 s which the naive arms themselves give a call or a publish.
TRY_S = 6.0
CLIENT_S = 20.0
LATE_S = 0.5  # of the generator: beyond it, the cell says so


@dataclass(frozen=True)
class Cell:
    """What one arm did under one fault. `figures` is None if it was skipped, or could not be run.

    `refusals` counts what the clients heard last who gave up.
    """

    arm: Arm
    fault: Fault
    figures: Figures | None = None
    skipped: str | None = None
    trouble: str | None = None
    refusals: Mapping[str, int] = field(default_factory=dict)
    lag_s: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether nothing was lost, doubled, stuck or otherwise wrong; what was skipped has shown nothing."""
        return self.skipped is not None or (self.figures is not None and self.figures.sound)

    @property
    def notes(self) -> list[str]:
        """What is to be said of it besides its figures."""
        notes = [self.trouble] if self.trouble else []
        notes += self.figures.wrongs if self.figures else ()
        notes += [f"refused {count}: {why}" for why, count in self.refusals.items()]
        if self.lag_s > LATE_S:
            notes.append(f"the orders left up to {self.lag_s:.1f} s late")
        return notes

    def as_document(self) -> dict[str, Any]:
        """The cell as `faults.json` has it; counts of a cell without figures are 0."""
        none = Figures(0, 0, 0, 0, 0, 0, 0, 0, 0, None, None, None, None)
        figures = asdict(self.figures or none)
        del figures["wrongs"]
        told = {"arm": self.arm.name, "fault": self.fault.slug, "skipped": self.skipped}
        return {**told, **figures, "sound": self.sound, "notes": self.notes}


async def run_cell(arm: Arm, fault: Fault, seed: int, folder: Path) -> Cell:
    """Run one cell in `folder`, which is made."""
    try:
        await asyncio.to_thread(folder.mkdir, parents=True)
        if (why := await asyncio.to_thread(fault.hindrance, folder)) is not None:
            return Cell(arm, fault, skipped=why)
        with fault.prepare(folder):
            return await _run(arm, fault, seed, folder)
    except LabError as error:
        return Cell(arm, fault, trouble=str(error))
    except (OSError, ValueError, KeyError, httpx.HTTPError, ExceptionGroup) as error:
        return Cell(arm, fault, trouble=f"{type(error).__name__}: {error}")


async def _run(arm: Arm, fault: Fault, seed: int, folder: Path) -> Cell:
    load, book = fault.load, folder / "book"
    settings = {
        **fault.settings,
        "DUET_ROOT": str(make_tree(arm.name, folder / "tree")),
        BOOK: str(book),
    }
    options = ("--wires",) if fault.wires else ()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(open_client())
        whole = await stack.enter_async_context(whole_system(folder, "null", settings, options))
        names = tuple(name for name in whole.pids if name != SUPERVISOR)
        scene = Scene(whole.system, names, folder, seed)
        traffic = _traffic(arm, load, seed, whole.system, client)
        stack.push_async_callback(traffic.abort)
        traffic.start()
        await asyncio.sleep(load.before_s)
        began = time.time()
        await fault.inflict(scene)
        healed = time.time()
        await asyncio.sleep(load.after_s)
        await traffic.stop()
        left_s = max(1.0, healed + load.patience_s - time.time())
        told: Books
        if arm.durable:
            acknowledged = partial(until_acknowledged, client, whole.system)
            told = await read_durable(client, whole.system, traffic.sent, load, left_s, acknowledged)
        else:
            told = await read_naive(client, whole.system, traffic.sent, load, left_s, book)
    figures = judge(told.intentions, told.effects, told.orders, Span(began, healed), told.attempts_per_order)
    if told.trouble is not None:
        figures = replace(figures, wrongs=(*figures.wrongs, told.trouble))
    return Cell(arm, fault, figures, refusals=why_refused(traffic.sent), lag_s=traffic.lag_s)


def why_refused(sent: Iterable[Sent]) -> dict[str, int]:
    """What the clients that gave up heard last, in a line each, the most frequent first."""
    heard: Counter[str] = Counter()
    for each in sent:
        if each.order_id is None:
            line = each.trouble.partition("\n")[0]
            heard[(line.partition(": ")[2] if line.startswith("POST ") else line).partition(" - ")[0]] += 1
    return dict(heard.most_common())


def _traffic(arm: Arm, load: Load, seed: int, system: System, client: httpx.AsyncClient) -> OpenLoop:
    """The clients of a cell, the same for every arm; not started yet."""
    order, key = partial(make_order, load), partial(make_key, seed)
    if load.rush:
        return Rush(
            port=system.port(CONDUCTOR), try_s=TRY_S, style=arm.style, rate=load.rate, order=order, key=key
        )
    patience = Patience(CLIENT_S, TRY_S)
    url = system.url(CONDUCTOR)
    return Traffic(
        client=client, url=url, patience=patience, style=arm.style, rate=load.rate, order=order, key=key
    )
