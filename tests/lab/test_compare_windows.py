"""What a window of a comparison comes to: two clocks, its own ledger, and when it is not to be used."""

import asyncio
import csv
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from lab.bench.arrivals import Arrivals, OpenPlan
from lab.bench.orders import Origin
from lab.client import Patience
from lab.compare.arms import Arm, target_arm
from lab.compare.rig import Generator, Load, TargetBench
from lab.compare.rows import forget_rows, keep_rows
from lab.compare.windows import Costs, Row, completions, ledgers, summarise
from lab.ledger import OWED_BY_MEMBERS, Effect
from lab.targets import EffectsAt, Target
from tests.support.planted import BALANCED, OPENS_AT, effects, order, raw

LATER = OPENS_AT + 20  # when a second window opens on the same system


def row(order_id: str, intended: float, ack_ms: float = 5.0, *, member: bool = True) -> Row:
    return (order_id, intended, ack_ms, member)


def test_an_order_is_completed_by_its_latest_effect() -> None:
    books = effects(("o-1", OPENS_AT + 1.010))
    books["warehouse"] = effects(("o-1", OPENS_AT + 1.250))["warehouse"]
    assert completions([row("o-1", OPENS_AT + 1)], books, OWED_BY_MEMBERS) == {"o-1": OPENS_AT + 1.250}


def test_who_is_no_member_is_owed_no_points_and_completes_without_them() -> None:
    books = effects(("member", OPENS_AT + 2), ("guest", OPENS_AT + 2), services=("email", "warehouse"))
    told = [row("member", OPENS_AT + 1), row("guest", OPENS_AT + 1, member=False)]
    assert completions(told, books, OWED_BY_MEMBERS) == {"guest": OPENS_AT + 2}


def test_a_window_times_what_was_due_in_it_from_the_intended_time() -> None:
    rows = [
        row("warm-up", OPENS_AT - 0.5, 900.0),
        row("quick", OPENS_AT + 1, 10.0),
        row("slow", OPENS_AT + 9, 20.0),
        row("never", OPENS_AT + 5, 30.0),
    ]
    done = {"warm-up": OPENS_AT + 0.5, "quick": OPENS_AT + 1.05, "slow": OPENS_AT + 12}
    found = summarise(raw(rows, done=done, errors={"status-503": 3, "unanswered": 1}), BALANCED)
    assert found.ack_ms["max"] == pytest.approx(30, rel=0.01)
    assert found.completion_ms["p50"] == pytest.approx(50, rel=0.01)
    assert found.completion_ms["max"] == pytest.approx(3000, rel=0.01)
    assert (found.due, found.accepted, found.completed, found.unfinished) == (8, 4, 3, 1)
    assert (found.turned_away, found.errors) == (3, {"unanswered": 1})
    assert found.completed_rate == pytest.approx(0.2)  # within it: one of the warm-up, and the quick one
    assert found.cpu_ms == pytest.approx({"checkout": 200, "broker": 100, "generator": 50})
    assert found.system_cpu_ms == pytest.approx(300)
    assert found.others_cpu_share == pytest.approx(0.05)


def test_orders_that_were_never_completed_are_not_left_out() -> None:
    found = summarise(raw([row("never", OPENS_AT + 5)]), BALANCED)
    assert (found.completion_ms, found.system_cpu_ms) == ({}, None)
    assert found.trouble == "1 of its orders were not completed"


def test_a_window_in_which_orders_were_refused_speaks_of_the_others_only() -> None:
    told = raw(
        [row("o-1", OPENS_AT + 1)], done={"o-1": OPENS_AT + 1.01}, errors={"status-503": 3, "unanswered": 1}
    )
    found = summarise(told, BALANCED)
    assert found.trouble == "4 of 5 orders were not accepted: its latencies are of the others only"


def test_a_window_without_trouble_says_so() -> None:
    found = summarise(raw([row("o-1", OPENS_AT + 1)], done={"o-1": OPENS_AT + 1.01}), BALANCED)
    assert found.trouble is None


def test_a_lost_order_is_in_the_ledger_of_its_own_window_only() -> None:
    windows = [raw([row("kept", OPENS_AT + 1)]), raw([row("gone", LATER + 1)], opens_at=LATER)]
    orders = {"kept": order("kept", OPENS_AT + 1, OPENS_AT + 1.1)}
    first, second = ledgers(windows, orders, effects(("kept", OPENS_AT + 1.05)))
    assert (first.balances, list(first.lost)) == (True, [])
    assert (second.balances, list(second.lost)) == (False, ["gone"])


def test_a_duplicate_and_a_late_effect_are_each_in_the_ledger_of_their_window() -> None:
    windows = [
        raw([row("fine", OPENS_AT + 1), row("late", OPENS_AT + 2)]),
        raw([row("twice", LATER + 1)], opens_at=LATER),
    ]
    orders = {
        "fine": order("fine", OPENS_AT + 1, OPENS_AT + 1.1),
        "late": order("late", OPENS_AT + 2, OPENS_AT + 2.1),
        "twice": order("twice", LATER + 1, LATER + 1.1),
    }
    books = effects(("fine", OPENS_AT + 1.05), ("late", OPENS_AT + 2.05), ("twice", LATER + 1.05))
    books["email"] = effects(
        ("fine", OPENS_AT + 1.05), ("late", OPENS_AT + 2.4), ("twice", LATER + 1.05), ("twice", LATER + 9)
    )["email"]
    first, second = ledgers(windows, orders, books)
    assert first.troubles["email"] == {"late": ["late"]}
    assert second.troubles["email"] == {"duplicate": ["twice"]}
    assert not first.balances
    assert not second.balances


def test_where_orders_are_called_completed_before_their_effects_none_is_late_but_a_loss_is_a_loss() -> None:
    told = raw([row("late", OPENS_AT + 1), row("gone", OPENS_AT + 2)])
    orders = {name: order(name, OPENS_AT + 1, OPENS_AT + 1.1) for name in ("late", "gone")}
    books = effects(("late", OPENS_AT + 3))
    [as_usual], [early] = (ledgers([each], orders, books) for each in (told, replace(told, early=True)))
    assert as_usual.troubles["email"] == {"late": ["late"], "missing": ["gone"]}
    assert early.troubles["email"] == {"missing": ["gone"]}


def test_what_nobody_was_told_of_is_in_the_ledger_of_the_window_in_which_it_appeared() -> None:
    windows = [raw([row("told", OPENS_AT + 1)]), raw([row("other", LATER + 1)], opens_at=LATER)]
    orders = {
        "told": order("told", OPENS_AT + 1, OPENS_AT + 1.1),
        "other": order("other", LATER + 1, LATER + 1.1),
        "reply lost": order("reply lost", OPENS_AT + 3, None),
    }
    books = effects(("told", OPENS_AT + 1.05), ("other", LATER + 1.05))
    books["rewards"] += effects(("nobody's", LATER + 4))["rewards"]
    first, second = ledgers(windows, orders, books)
    assert list(first.unfinished) == ["reply lost"]
    assert second.troubles["rewards"] == {"unexpected": ["nobody's"]}


def test_a_window_whose_ledger_does_not_balance_says_what_is_wrong() -> None:
    ledger = {"balances": False, "lost": 0, "missing": 2, "duplicate": 1}
    found = summarise(raw([row("o-1", OPENS_AT + 1)], done={"o-1": OPENS_AT + 2}), ledger)
    assert found.trouble == "its ledger does not balance (2 missing, 1 duplicate)"


@pytest.mark.parametrize(
    ("lag_ms", "ack_ms", "usable"),
    [(4.9, 3.0, True), (5.1, 3.0, False), (5.1, 60.0, True), (6.5, 60.0, False)],
    ids=["below 5 ms", "above 5 ms", "a tenth of the figure", "more than a tenth of the figure"],
)
def test_a_generator_that_was_late_itself_spoils_its_window(
    lag_ms: float, ack_ms: float, usable: bool
) -> None:
    told = raw([row("o-1", OPENS_AT + 1, ack_ms)], done={"o-1": OPENS_AT + 2}, lag_p99_ms=lag_ms)
    trouble = summarise(told, BALANCED).trouble
    assert (trouble is None) is usable
    if trouble is not None:
        assert trouble.startswith(f"its generator was {lag_ms:.1f} ms late at p99")


def test_a_window_is_told_with_its_costs_side_by_side() -> None:
    costs = Costs({"checkout": 80.0, "broker": 20.0}, calls=2.8, messages=0.0, deliveries=0.0)
    told = summarise(raw([row("o-1", OPENS_AT + 1)], costs=costs), BALANCED).as_document()
    assert told["memory_mb"] == {"checkout": 80.0, "broker": 20.0}
    assert (told["calls_per_order"], told["messages_per_order"], told["deliveries_per_order"]) == (2.8, 0, 0)
    assert "costs" not in told


def test_rows_are_kept_for_every_accepted_order_with_a_gap_where_none_was_completed(tmp_path: Path) -> None:
    rows = [row("o-1", OPENS_AT + 1, 5.25), row("o-2", OPENS_AT + 2)]
    told = replace(raw(rows, "orchestration again", 3), done={"o-1": OPENS_AT + 1.5})
    keep_rows(tmp_path, "without retries (orchestration)", told)
    [file] = (tmp_path / "rows").iterdir()
    assert set(file.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
    with file.open() as source:
        read = list(csv.DictReader(source))
    assert [each["completion_ms"] for each in read] == ["500.000", ""]
    assert read[0]["ack_ms"] == "5.250"
    assert read[0]["order_id"] == "o-1"


async def test_a_target_that_never_finishes_is_waited_for_only_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.compare.rig.TARGET_QUIET_S", 0.2)
    monkeypatch.setattr("lab.compare.rig.TARGET_POLL_S", 0.01)
    takes_s = 60.0

    async def never(self: Target, client: object, patience: Patience) -> dict[str, list[Effect]]:
        await asyncio.sleep(takes_s)
        return {"email": []}

    async def drive(self: Generator, arm: Arm, *_: object) -> tuple[OpenPlan, Arrivals, list[Row]]:
        told = raw([row("o-1", OPENS_AT + 1)], arm.name)
        return told.plan, told.arrivals, list(told.rows)

    monkeypatch.setattr(Target, "read_effects", never)
    monkeypatch.setattr(Generator, "drive", drive)
    target = Target("ours", Origin("127.0.0.1", 1), "", "", {"email": EffectsAt("http://x/", "", False)})
    bench = TargetBench(target, Generator(None, tmp_path), httpx.AsyncClient())  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        await bench.measure(target_arm(target), Load(10.0, 1.0, 1.0), 1, 20)
    takes_s = 0.0
    [(_, window)] = await bench.reckon()
    assert window.unfinished == 1


def test_rows_say_which_orders_were_measured_and_another_run_s_do_not_stay(tmp_path: Path) -> None:
    keep_rows(tmp_path, "bare", raw([row("o-0", OPENS_AT - 0.5), row("o-1", OPENS_AT + 1)], "a", 8))
    with (tmp_path / "rows" / "bare-8-a.csv").open() as source:
        assert [each["measured"] for each in csv.DictReader(source)] == ["0", "1"]
    forget_rows(tmp_path)
    keep_rows(tmp_path, "bare", raw([row("o-2", OPENS_AT + 1)], "a", 1))
    assert [file.name for file in (tmp_path / "rows").iterdir()] == ["bare-1-a.csv"]
