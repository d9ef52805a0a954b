"""SIGKILL, to one process after the other, each once it is ready: or nothing would ever come up."""

import random
import time
from collections import Counter
from collections.abc import Sequence

from tests.support.system import PROCESSES, LiveSystem


def kill_in_turn(
    system: LiveSystem,
    kills: int,
    *,
    every_s: float = 1.0,
    jitter: random.Random | None = None,
    names: Sequence[str] = PROCESSES,
    wipe_after: int | None = None,
) -> Counter[str]:
    """Kill so many times; how often each name was hit. With `jitter` the moments vary by half a pause.

    After each `wipe_after` kills the broker is killed too, and loses all that it had stored.
    """
    hit: Counter[str] = Counter()
    last: dict[str, int] = {}
    intended = time.monotonic()
    for number in range(1, kills + 1):
        intended = max(intended, time.monotonic() - every_s) + every_s
        moment = intended + (jitter.uniform(-0.5, 0.5) * every_s if jitter else 0.0)
        time.sleep(max(0.0, moment - time.monotonic()))
        name = names[(number - 1) % len(names)]
        last[name] = system.kill(name, but=last.get(name))
        hit[name] += 1
        if wipe_after and number % wipe_after == 0:
            system.wait_ready("broker", but=last.get("broker"))
            system.wipe()
    return hit
