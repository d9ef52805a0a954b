"""SIGKILL, to one process after the other, each once it is ready: or nothing would ever come up."""

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.support.system import PROCESSES, LiveSystem


@dataclass
class Done:
    """How often each process was killed, and how often the broker was wiped besides."""

    kills: Counter[str] = field(default_factory=Counter)
    wipes: int = 0


def kill_in_turn(
    system: LiveSystem,
    kills: int,
    *,
    every_s: float = 1.0,
    jitter: random.Random | None = None,
    names: Sequence[str] = PROCESSES,
    wipe_after: int | None = None,
) -> Done:
    """Kill so many times. With `jitter` the moments vary by half a pause.

    After each `wipe_after` kills the broker is killed too, and loses all that it had stored.
    """
    done = Done()
    last: dict[str, int] = {}
    intended = time.monotonic()
    for number in range(1, kills + 1):
        intended = max(intended, time.monotonic() - every_s) + every_s
        moment = intended + (jitter.uniform(-0.5, 0.5) * every_s if jitter else 0.0)
        time.sleep(max(0.0, moment - time.monotonic()))
        name = names[(number - 1) % len(names)]
        last[name] = system.kill(name, but=last.get(name))
        done.kills[name] += 1
        if wipe_after and number % wipe_after == 0:
            system.wait_ready("broker", but=last.get("broker"))
            system.wipe()
            done.wipes += 1
    return done
