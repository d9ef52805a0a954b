"""The faults, in the order of the matrix: what each does to a running system, and under which load.

Every arm gets the same of all of it, even where a fault cannot concern it: the figures show that. A fault
that this machine cannot do says why.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from lab.errors import LabError
from lab.faults.scene import Scene, own_disk, why_no_disk
from lab.system import BROKER, CONDUCTOR
from lab.wire.weather import Weather, flaky, slow

Group = Literal["services", "wire", "checkout", "broker", "storage", "load"]

DOWN_S = 5.0
LASTING_S = 6.0
LATE_S = 1.0
SOME = 0.3  # of the exchanges
FROZEN_S = 17.0  # longer than checkout's lease of an order, 15 s
BETWEEN_KILLS_S = 2.0
CAPACITY = 100  # orders a second
PARTICIPANTS = ("email", "warehouse", "rewards")
STRUCK = "warehouse"  # where one service stands for all

Inflict = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True)
class Load:
    """How orders come in while a fault is done: `rate` a second from `before_s` before to `after_s` after it.

    Then up to `patience_s` until all is quiet. A `rush` is of clients who ask once, at a high rate.
    `poison_every`: each so manieth order is one that the warehouse refuses; 0: none is.
    """

    rate: float = 20.0
    before_s: float = 2.0
    after_s: float = 1.0
    patience_s: float = 45.0
    rush: bool = False
    poison_every: int = 0

    def is_poison(self, number: int) -> bool:
        """Whether the order of this number, from 0, is one that the warehouse refuses."""
        return self.poison_every > 0 and number % self.poison_every == self.poison_every // 2


@dataclass(frozen=True)
class Fault:
    """One row of the matrix. `inflict` lasts as long as the fault, and has taken it back when it returns.

    `settings` are environment variables of the system. `prepare` is done around the whole life of the system
    in a folder, before it starts; `hindrance` says why it cannot be done here.
    """

    slug: str
    title: str
    what: str
    group: Group
    inflict: Inflict
    load: Load = field(default_factory=Load)
    settings: Mapping[str, str] = field(default_factory=dict)
    wires: bool = False
    prepare: Callable[[Path], AbstractContextManager[None]] = lambda _: nullcontext()
    hindrance: Callable[[Path], str | None] = lambda _: None


def make_faults() -> tuple[Fault, ...]:
    """All faults, in the order of the matrix."""
    each = [fault for name in PARTICIPANTS for fault in _on_service(name)]
    return (*each, *_on_wires(), *_on_checkout(), *_on_broker(), *_on_storage(), *_on_load())


def choose(wanted: Iterable[str]) -> Sequence[Fault]:
    """The faults of these slugs, a list with commas among them; all if there is none. Raises `LabError`."""
    faults = {fault.slug: fault for fault in make_faults()}
    slugs = [slug.strip() for part in wanted for slug in part.split(",") if slug.strip()]
    for slug in slugs:
        if slug not in faults:
            raise LabError(f"there is no fault {slug}: duet faults --list names them")
    return [fault for fault in faults.values() if not slugs or fault.slug in slugs]


def _on_service(name: str) -> list[Fault]:
    ten, fifty = 0.1, 0.5
    return [
        Fault(
            f"{name}-down",
            f"{name} down for {DOWN_S:g} s",
            f"The {name} service is stopped, and started again {DOWN_S:g} s later.",
            "services",
            partial(_hold, name=name, by="stop", until="start", seconds=DOWN_S),
        ),
        _in_weather(
            f"{name}-slow",
            f"{name} slow by {LATE_S:g} s",
            f"What comes back from {name}, and from the broker to it, comes {LATE_S:g} s late.",
            name,
            lambda _: slow(LATE_S),
        ),
        *(
            _in_weather(
                f"{name}-flaky-{share:.0%}".rstrip("%"),
                f"{name} flaky, {share:.0%}",
                f"{share:.0%} of the exchanges with {name} are reset, cut short, or lose their reply.",
                name,
                partial(_flaky, share),
            )
            for share in (ten, fifty)
        ),
    ]


def _on_wires() -> list[Fault]:
    told: Mapping[str, tuple[str, str, Literal["lose", "cut", "reset"]]] = {
        "reply-lost": ("replies lost after the commit", "lose their reply, whose work is done", "lose"),
        "reply-cut": ("replies cut", "have their reply cut at a random byte", "cut"),
        "connection-reset": ("connections reset", "end in a reset", "reset"),
    }
    return [
        _in_weather(
            slug,
            f"{STRUCK}: {title}, {SOME:.0%}",
            f"{SOME:.0%} of the exchanges with {STRUCK} {what}.",
            STRUCK,
            partial(_some, kind),
            "wire",
        )
        for slug, (title, what, kind) in told.items()
    ]


def _on_checkout() -> list[Fault]:
    return [
        Fault(
            "checkout-killed",
            "checkout killed twice",
            f"SIGKILL to the checkout service, and again once it is back, {BETWEEN_KILLS_S:g} s later.",
            "checkout",
            _kill_twice,
        ),
        Fault(
            "checkout-stopped",
            f"checkout frozen for {FROZEN_S:g} s",
            "SIGSTOP to the checkout service for longer than its lease of an order.",
            "checkout",
            partial(_hold, name=CONDUCTOR, by="pause", until="resume", seconds=FROZEN_S),
        ),
    ]


def _on_broker() -> list[Fault]:
    return [
        Fault(
            "broker-killed",
            "broker killed",
            "SIGKILL to the broker, once.",
            "broker",
            partial(_strike_broker, verb="kill"),
        ),
        Fault(
            "broker-stopped",
            f"broker down for {DOWN_S:g} s",
            f"The broker is stopped, and started again {DOWN_S:g} s later.",
            "broker",
            partial(_hold, name=BROKER, by="stop", until="start", seconds=DOWN_S),
        ),
        Fault(
            "broker-wiped",
            "broker wiped",
            "The broker is killed and all that it has stored is deleted.",
            "broker",
            partial(_strike_broker, verb="wipe"),
        ),
    ]


def _on_storage() -> list[Fault]:
    return [
        Fault(
            "database-locked",
            f"{STRUCK}'s database locked for {LASTING_S:g} s",
            f"Somebody else holds the write lock of the {STRUCK}'s database.",
            "storage",
            _lock_database,
        ),
        Fault(
            "disk-full",
            f"{STRUCK}'s disk full for {LASTING_S:g} s",
            f"The disk of the {STRUCK}'s database has no byte left.",
            "storage",
            _fill_disk,
            prepare=lambda folder: own_disk(folder, STRUCK),
            hindrance=why_no_disk,
        ),
    ]


def _on_load() -> list[Fault]:
    return [
        Fault(
            "poison-order",
            "a poison order each second",
            "Among the others are orders that the warehouse rightly refuses, whatever is tried.",
            "load",
            _let_pass,
            load=Load(poison_every=20),
        ),
        Fault(
            "overload",
            "ten times the capacity",
            f"The warehouse manages {CAPACITY} orders a second, and {10 * CAPACITY} are offered, "
            f"for {DOWN_S:g} s; clients do not ask again.",
            "load",
            partial(_let_pass, seconds=DOWN_S),
            load=Load(10 * CAPACITY, before_s=0.0, after_s=0.0, patience_s=120.0, rush=True),
            settings={f"{STRUCK.upper()}_SIMULATE_CAPACITY": str(CAPACITY)},
        ),
        Fault(
            "rolling-restart",
            "everything restarted in turn",
            "Each service, checkout last, is stopped and started, the next once it is ready.",
            "load",
            _restart_in_turn,
        ),
    ]


def _in_weather(
    slug: str, title: str, what: str, name: str, make: Callable[[int], Weather], group: Group = "services"
) -> Fault:
    """A fault on the wires of a service; its weather is made from the run's seed."""

    async def inflict(scene: Scene) -> None:
        async with scene.weather(name, make(scene.seed)):
            await asyncio.sleep(LASTING_S)

    return Fault(slug, title, what, group, inflict, wires=True)


def _flaky(share: float, seed: int) -> Weather:
    return flaky(share, seed)


def _some(kind: Literal["lose", "cut", "reset"], seed: int) -> Weather:
    return Weather((kind,), SOME, seed=seed)


async def _hold(scene: Scene, name: str, by: str, until: str, seconds: float) -> None:
    async with scene.held(name, by, until):
        await asyncio.sleep(seconds)


async def _kill_twice(scene: Scene) -> None:
    await scene.command("kill", CONDUCTOR)
    await asyncio.sleep(BETWEEN_KILLS_S)
    await scene.ready(CONDUCTOR)  # or it would never come up
    await scene.command("kill", CONDUCTOR)
    await scene.ready(CONDUCTOR)


async def _strike_broker(scene: Scene, verb: str) -> None:
    """It lasts until the supervisor has it up again."""
    await scene.command(verb, BROKER)
    await scene.ready(BROKER)


async def _lock_database(scene: Scene) -> None:
    async with scene.locked(STRUCK):
        await asyncio.sleep(LASTING_S)


async def _fill_disk(scene: Scene) -> None:
    async with scene.full():
        await asyncio.sleep(LASTING_S)


async def _let_pass(_: Scene, seconds: float = LASTING_S) -> None:
    await asyncio.sleep(seconds)


async def _restart_in_turn(scene: Scene) -> None:
    for name in scene.services:
        async with scene.held(name, "stop", "start"):
            pass
        await scene.ready(name)
