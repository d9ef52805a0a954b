"""The matrix of faults but for its systems: intentions judged, faults and arms chosen, cells shown."""

import asyncio
import contextlib
import json
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from lab import faults as faults_module
from lab.arms import ARMS
from lab.bench.setting import Setting
from lab.errors import LabError, OneLineErrors
from lab.faults import command, view
from lab.faults.books import attempts, make_key, make_order, read_durable, read_naive
from lab.faults.catalogue import Fault, Load, choose, make_faults
from lab.faults.cell import Cell, run_cell, why_refused
from lab.faults.judging import Figures, Intention, Span, judge
from lab.faults.rush import Rush
from lab.faults.scene import Scene
from lab.ledger import COMPLETED, IN_PROGRESS, NEEDS_ATTENTION, Effect, Order, Step
from lab.system import System
from lab.traffic import Sent
from tests.lab.fake_system import FakeSystem, make_fake

BEGAN, HEALED = 100.0, 106.0
SPAN = Span(BEGAN, HEALED)
DONE, PENDING, FAILED = Step("succeeded"), Step("pending"), Step("failed", "sku-refused")
ORCHESTRATION, CHOREOGRAPHY, NAIVE = ARMS[0], ARMS[1], ARMS[2]

SETTING = Setting(2, "a processor", "Linux", 0.1, "ext4", {"p50": 1.0}, "3.11", "3.40", {}, None, None)

Effects = dict[str, list[Effect]]


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def intend(name: str, *, intended: float = 101.0, member: bool = True, **told: Any) -> Intention:
    """An accepted intention with one order that is called as it is."""
    return Intention(name, intended, member, frozenset({name}), **{"told": name, **told})


def order(name: str, status: str = COMPLETED, **steps: Step) -> Order:
    done_at = at(500) if status == COMPLETED else None
    usual = {"email": DONE, "warehouse": DONE, "rewards": DONE}
    return Order(name, "orchestration", status, True, done_at, {**usual, **steps}, at(100))


def effects(*order_ids: str, seconds: float = 102.0) -> Effects:
    """One effect at each service for each of these, the last one half a second after the first."""
    return {
        name: [Effect(order_id, at(seconds + delay)) for order_id in order_ids]
        for name, delay in (("email", 0.0), ("warehouse", 0.5), ("rewards", 0.25))
    }


def books(*orders: Order) -> Mapping[str, Order]:
    return {each.order_id: each for each in orders}


@pytest.mark.parametrize("known", [None, books(order("a"), order("b"))])
def test_what_is_done_once_and_completed_is_sound(known: Mapping[str, Order] | None) -> None:
    told = judge([intend("a"), intend("b")], effects("a", "b"), known, SPAN)
    assert (told.intended, told.accepted, told.completed, told.refused) == (2, 2, 2, 0)
    assert (told.lost, told.duplicated, told.stuck, told.orphaned, told.needs_attention) == (0, 0, 0, 0, 0)
    assert told.sound


@pytest.mark.parametrize("known", [None, books(order("a"), order("b"))])
@pytest.mark.parametrize("service", ["email", "warehouse", "rewards"])
def test_a_planted_loss_is_seen(service: str, known: Mapping[str, Order] | None) -> None:
    found = effects("a", "b")
    del found[service][0]
    told = judge([intend("a"), intend("b")], found, known, SPAN)
    assert (told.lost, told.completed, told.recovery_s) == (1, 1, None)
    assert not told.sound


@pytest.mark.parametrize("known", [None, books(order("a"))])
@pytest.mark.parametrize("service", ["email", "warehouse", "rewards"])
def test_a_planted_duplicate_is_seen(service: str, known: Mapping[str, Order] | None) -> None:
    found = effects("a")
    found[service].append(Effect("a", at(104)))
    told = judge([intend("a")], found, known, SPAN)
    assert (told.duplicated, told.completed, told.lost) == (1, 1, 0)
    assert not told.sound


@pytest.mark.parametrize("known", [None, books(order("a"), order("again"))])
def test_two_orders_of_one_key_are_a_duplicate_and_the_untold_one_is_an_orphan(
    known: Mapping[str, Order] | None,
) -> None:
    twice = replace(intend("a", tries=2), order_ids=frozenset({"a", "again"}))
    told = judge([twice], effects("a", "again"), known, SPAN)
    assert (told.duplicated, told.orphaned, told.completed) == (1, 1, 1)
    assert not told.sound


def test_an_effect_for_who_is_no_member_is_too_much() -> None:
    told = judge([intend("a", member=False)], effects("a"), None, SPAN)
    assert (told.duplicated, told.completed) == (1, 1)


def test_a_refused_intention_owes_nothing_and_what_was_done_for_it_is_an_orphan() -> None:
    told = judge([intend("a"), intend("b", told=None, tries=5)], effects("a", "b"), None, SPAN)
    assert (told.accepted, told.refused, told.lost, told.orphaned) == (1, 1, 0, 1)
    assert told.sound
    assert (told.posts_per_order, told.attempts_per_order) == (3.0, None)


def test_an_order_that_is_in_progress_in_the_end_is_stuck_whether_its_client_was_told_or_not() -> None:
    found = effects("a", "b")
    found["email"].clear()
    known = books(order("a", IN_PROGRESS, email=PENDING), order("b", IN_PROGRESS, email=PENDING))
    told = judge([intend("a"), intend("b", told=None)], found, known, SPAN)
    assert (told.stuck, told.lost, told.recovery_s) == (2, 0, None)
    assert not told.sound


def test_an_accepted_order_that_nobody_knows_any_more_is_lost() -> None:
    told = judge([intend("a")], effects("a"), {}, SPAN)
    assert (told.lost, told.completed) == (1, 0)
    assert not told.sound


def test_a_poison_order_is_to_need_attention_and_is_not_lost() -> None:
    found = effects("a", "poison")
    found["warehouse"] = [effect for effect in found["warehouse"] if effect.order_id == "a"]
    meant = [intend("a"), intend("poison", poison=True)]
    known = books(order("a"), order("poison", NEEDS_ATTENTION, warehouse=FAILED))
    told = judge(meant, found, known, SPAN)
    assert (told.needs_attention, told.completed, told.lost) == (1, 1, 0)
    assert told.sound
    assert judge(meant, found, None, SPAN).lost == 1  # nobody says of it that it needs attention
    hidden = judge(meant, effects("a", "poison"), books(order("a"), order("poison")), SPAN)
    assert not hidden.sound
    innocent = judge([intend("a"), intend("poison")], found, known, SPAN)
    assert innocent.wrongs == ("1 sound orders need attention",)


def test_an_order_that_needs_attention_for_another_step_than_the_one_it_lacks_is_lost() -> None:
    found = effects("a")
    found["email"].clear()
    told = judge([intend("a")], found, books(order("a", NEEDS_ATTENTION, warehouse=FAILED)), SPAN)
    assert (told.lost, told.needs_attention) == (1, 0)


def test_an_effect_after_completion_was_told_unbalances_the_ledger_of_a_durable_arm() -> None:
    early = replace(order("a"), completed_at=at(102.1))
    told = judge([intend("a")], effects("a"), books(early), SPAN)
    assert told.wrongs == ("the ledger does not balance: 2 late",)


def test_latency_counts_from_the_intended_time_of_what_was_intended_during_the_fault() -> None:
    meant = [
        intend("before", intended=90.0),
        intend("during", intended=101.0),
        intend("after", intended=107.0),
    ]
    told = judge(meant, effects("before", "during", "after"), None, SPAN)
    assert told.p99_ms == pytest.approx(1500.0)
    assert judge([intend("before", intended=90.0)], effects("before"), None, SPAN).p99_ms is None


def test_recovery_is_from_healing_to_the_last_completion_of_what_was_intended_before() -> None:
    found = {name: [*effects("a")[name], *effects("b", seconds=110.0)[name]] for name in effects()}
    meant = [intend("a"), intend("b", intended=105.0), intend("c", intended=107.0, told=None)]
    assert judge(meant, found, None, SPAN).recovery_s == pytest.approx(4.5)
    assert judge([intend("a")], effects("a"), None, SPAN).recovery_s == 0.0


def test_a_cell_without_any_order_has_shown_nothing() -> None:
    assert judge([], effects(), {}, SPAN).wrongs == ("no order was intended",)


def test_the_tries_of_an_order_are_those_of_all_its_steps() -> None:
    steps = {
        "email": {"status": "succeeded", "attempts": 1},
        "warehouse": {"status": "pending", "attempts": 4},
        "rewards": {"status": "skipped", "attempts": 0},
    }
    once = {"email": {"status": "succeeded", "attempts": 1}}
    assert attempts([{"steps": steps}, {"steps": once}]) == 3.0
    assert attempts([]) is None


def test_faults_are_chosen_by_slug_with_commas_or_again_in_the_order_of_the_matrix() -> None:
    everything = [fault.slug for fault in make_faults()]
    assert len(set(everything)) == len(everything) == 25
    assert [fault.slug for fault in choose([])] == everything
    chosen = choose(["reply-lost, warehouse-down", "email-slow"])
    assert [fault.slug for fault in chosen] == ["email-slow", "warehouse-down", "reply-lost"]
    with pytest.raises(LabError, match="there is no fault warehous-down: duet faults --list"):
        choose(["warehous-down"])


def test_arms_are_chosen_by_style() -> None:
    names = {
        style: [arm.name for arm in command.choose_arms(style)] for style in ("choreography", "both", "all")
    }
    assert names["choreography"] == ["choreography"]
    assert names["both"] == ["orchestration", "choreography"]
    assert names["all"] == [arm.name for arm in ARMS]


def test_every_arm_gets_the_same_keys_and_orders() -> None:
    load = Load(poison_every=20)
    assert make_key(20, 7) == make_key(20, 7) != make_key(21, 7)
    assert make_key(20, 8) != make_key(20, 7)
    assert make_order(load, 7) == make_order(load, 7)
    poison = [number for number in range(60) if "REFUSE-ME" in json.dumps(make_order(load, number))]
    assert poison == [10, 30, 50]
    assert not Load().is_poison(10)


@pytest.fixture
def fake(tmp_path: Path) -> FakeSystem:
    return make_fake(tmp_path)


def marked(fake: FakeSystem, number: int) -> str:
    """An order of the fake system that came from this intention."""
    order_id = fake.add()
    fake.orders[order_id]["ship_to"] = make_order(Load(), number)["ship_to"]
    return order_id


async def test_a_key_that_made_two_orders_is_seen_whatever_the_arm_remembers_of_keys(
    fake: FakeSystem,
) -> None:
    first, second = marked(fake, 0), marked(fake, 0)
    sent = [Sent(0, "k0", 1.0, 2, second), Sent(1, "k1", 2.0, 3, None, "no answer")]
    waited: list[str] = []

    async def acknowledged() -> None:
        waited.append("for the broker")

    async with fake.client as client:
        told = await read_durable(client, fake.system, sent, Load(), 1.0, acknowledged)
    assert waited == ["for the broker"]
    assert told.intentions[0].order_ids == {first, second}
    assert (told.intentions[1].order_ids, told.intentions[1].told) == (frozenset(), None)
    assert told.orders is not None
    assert judge(told.intentions, told.effects, told.orders, SPAN).duplicated == 1


async def test_events_that_still_wait_when_patience_is_out_hide_no_figures(fake: FakeSystem) -> None:
    order_id = marked(fake, 0)

    async def never() -> None:
        raise LabError("2 messages still wait to be heard")

    async with fake.client as client:
        sent = [Sent(0, "k0", 1.0, 1, order_id)]
        told = await read_durable(client, fake.system, sent, Load(), 1.0, never)
    assert told.trouble == "2 messages still wait to be heard"
    assert told.intentions[0].order_ids == {order_id}


async def test_an_arm_without_books_is_read_by_the_lab_s_own_book(
    fake: FakeSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.faults.books.STILL_S", 0.05)
    monkeypatch.setattr("lab.faults.books.POLL_S", 0.01)
    first, second = fake.add(), fake.add()
    book = tmp_path / "book"
    book.write_text(f'{first} "k0"\n{second} "k0"\n')
    async with fake.client as client:
        told = await read_naive(client, fake.system, [Sent(0, "k0", 1.0, 2, second)], Load(), 1.0, book)
    assert told.orders is None
    assert told.intentions[0].order_ids == {first, second}


async def test_a_rush_sends_at_intended_times_and_hears_of_every_order_once() -> None:
    answers = {
        b"Intention 1": (202, b'{"order_id": "order-1"}'),
        b"Intention 2": (503, b"{}"),
    }
    answered = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                [length] = re.findall(rb"(?i)content-length: (\d+)", head)
                body = await reader.readexactly(int(length))
                status, reply = next(
                    (answer for mark, answer in answers.items() if mark + b'"' in body), (0, b"")
                )
                if status:
                    writer.write(b"HTTP/1.1 %d Told\r\nContent-Length: %d\r\n\r\n" % (status, len(reply)))
                    writer.write(reply)
                if status == 503:
                    answered.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        rush = Rush(port=port, try_s=0.2, style=None, rate=100.0, order=partial(make_order, Load()), key=str)
        rush.start()
        async with asyncio.timeout(10):
            await answered.wait()
        await rush.stop()
    sent = {each.number: each for each in rush.sent}
    assert len(sent) == len(rush.sent)
    assert (sent[1].order_id, sent[2].order_id, sent[2].trouble) == ("order-1", None, "HTTP 503")
    assert (sent[0].trouble, sent[0].key) == ("unanswered", "0")
    assert sent[2].intended - sent[1].intended == pytest.approx(0.01, abs=1e-5)  # of some 1e9 s


async def test_a_lock_on_a_database_is_held_as_long_as_the_fault_lasts(tmp_path: Path) -> None:
    system = System(tmp_path)
    with closing(sqlite3.connect(system.database_file("warehouse"), timeout=0)) as other:
        other.execute("CREATE TABLE t (n)")
        scene = Scene(system, ("checkout", "warehouse"), tmp_path, 20)
        async with scene.locked("warehouse"):
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("INSERT INTO t VALUES (1)")
        other.execute("INSERT INTO t VALUES (1)")


def test_a_team_deploys_every_process_but_broker_and_mailbox_checkout_last(tmp_path: Path) -> None:
    names = ("checkout", "email", "subscribers", "mailbox", "broker")
    assert Scene(System(tmp_path), names, tmp_path, 20).services == ["email", "subscribers", "checkout"]


async def _nothing(_: Scene) -> None:
    return


def figures(**changed: Any) -> Figures:
    usual = judge([intend("a")], effects("a"), books(order("a")), SPAN)
    return replace(usual, **changed)


def cell(arm: Any, slug: str = "warehouse-down", **told: Any) -> Cell:
    [fault] = choose([slug])
    return Cell(arm, fault, **told)


def broken_cells() -> list[Cell]:
    lost = figures(lost=12, recovery_s=None, wrongs=("12 lost",))
    return [
        cell(ORCHESTRATION, figures=figures()),
        cell(CHOREOGRAPHY, figures=figures()),
        cell(NAIVE, figures=lost),
    ]


def test_what_clients_heard_who_gave_up_is_counted() -> None:
    heard = ["POST http://127.0.0.1:1/checkouts: A call failed (HTTP 502) - why", "HTTP 503", "HTTP 503"]
    sent = [Sent(number, "k", 1.0, 1, None, trouble) for number, trouble in enumerate(heard)]
    refusals = why_refused([*sent, Sent(3, "k", 1.0, 1, "a")])
    assert refusals == {"HTTP 503": 2, "A call failed (HTTP 502)": 1}
    assert cell(NAIVE, figures=figures(), refusals=refusals).notes[0] == "refused 2: HTTP 503"


def test_only_the_durable_arms_are_judged() -> None:
    sound = broken_cells()
    assert command.passed(sound)
    assert not command.passed([replace(sound[0], figures=sound[2].figures), *sound[1:]])
    assert not command.passed([cell(ORCHESTRATION, trouble="it did not start")])
    assert command.passed([cell(ORCHESTRATION, "disk-full", skipped="it takes root")])


async def test_a_fault_that_cannot_be_done_here_is_skipped_with_its_reason(tmp_path: Path) -> None:
    fault = Fault("f", "F", "It is.", "load", _nothing, hindrance=lambda _: "it takes root")
    done = await run_cell(ORCHESTRATION, fault, 20, tmp_path / "cell")
    assert (done.skipped, done.figures, done.sound) == ("it takes root", None, True)


async def test_a_cell_that_cannot_be_run_says_why_and_is_not_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise LabError("no free port base")

    monkeypatch.setattr("lab.faults.cell.whole_system", broken)
    done = await run_cell(ORCHESTRATION, Fault("f", "F", "It is.", "load", _nothing), 20, tmp_path / "cell")
    assert (done.trouble, done.sound) == ("no free port base", False)
    assert done.as_document()["notes"] == ["no free port base"]


def test_the_document_has_every_cell_and_says_whether_both_styles_passed() -> None:
    cells = broken_cells()
    told = command.as_document(cells, ARMS[:3], choose(["warehouse-down"]), SETTING, 20)
    assert json.loads(json.dumps(told)) == told
    assert (told["kind"], told["version"], told["passed"]) == ("faults", 1, True)
    assert [each["arm"] for each in told["cells"]] == ["orchestration", "choreography", "naive-conductor"]
    interrupted = command.as_document(cells[:1], ARMS[:3], choose(["warehouse-down"]), SETTING, 20)
    assert interrupted["passed"] is False
    assert told["cells"][2] | {"lost": 12, "recovery_s": None, "sound": False} == told["cells"][2]


def test_the_tables_show_loss_recovery_and_how_the_naive_arms_did() -> None:
    console = Console(width=180, record=True)
    view.show(broken_cells(), ARMS[:3], choose(["warehouse-down"]), console)
    said = console.export_text()
    for words in ("lost 12", "never", "ok", "naive-conductor lost or doubled orders in 1 of 1 faults"):
        assert words in said
    assert "The durable arms lost nothing" in said


def test_the_tables_say_which_durable_cell_is_not_sound_and_why() -> None:
    console = Console(width=180, record=True)
    view.show(
        [cell(ORCHESTRATION, trouble="it did not start")], ARMS[:1], choose(["warehouse-down"]), console
    )
    said = console.export_text()
    assert "not sound: warehouse-down, orchestration: it did not start" in said
    assert "lost nothing" not in said


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [(["--list"], 0, "warehouse-down"), (["--only", "nonsense"], 2, "there is no fault nonsense")],
)
def test_the_command_lists_faults_and_refuses_what_is_none(
    arguments: list[str], exit_code: int, says: str
) -> None:
    app = typer.Typer(cls=OneLineErrors, pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    faults_module.register(app)
    done = CliRunner().invoke(app, ["faults", *arguments])
    assert done.exit_code == exit_code
    assert says in done.output
