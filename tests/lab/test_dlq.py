"""`duet dlq`: dead letters are seen with their cause, and leave the stream once replayed or dropped."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext

from lab import dlq
from lab.client import NoAnswerError
from tests.lab.at_broker import at_broker, event_of, lead_to_broker
from tests.lab.fake_system import FakeSystem, make_fake, run_command
from tests.support.broker import Broker

REFUSED = {"status": "failed", "attempts": 5, "reason": "sku-refused"}


@pytest.fixture
def fake(tmp_path: Path, broker: Broker) -> FakeSystem:
    """Two orders that the warehouse gave up, the second the rewards service too, and a poisonous event."""
    made = make_fake(tmp_path)
    lead_to_broker(made, broker)
    made.add(style="choreography", status="needs_attention", warehouse=dict(REFUSED))
    made.add(style="choreography", status="needs_attention", warehouse=dict(REFUSED), rewards=dict(REFUSED))

    async def fill(jetstream: JetStreamContext) -> None:
        await jetstream.add_stream(
            name="DEAD_LETTERS", subjects=["dead_letters.*.*"], max_msgs_per_subject=1, storage="file"
        )
        await bury(jetstream, "warehouse", "order-0001")
        await bury(jetstream, "warehouse", "order-0002")
        await bury(jetstream, "rewards", "order-0002", reason="no\x1b[2Jsuch currency")
        poison = {"readable": False, "event": '{"half', "reason": "not JSON"}
        await bury(jetstream, "email", "2026-11-22T09_00_00Z-7", **poison)

    at_broker(broker, fill)
    return made


async def bury(jetstream: JetStreamContext, participant: str, key: str, **changes: Any) -> None:
    data = {
        "participant": participant,
        "key": key,
        "readable": True,
        "reason": "sku-refused",
        "errors": 5,
        "sequence": 1,
        "event": json.dumps(event_of(key)),
        **changes,
    }
    letter = {"type": "duet.DeadLettered", "source": f"/{participant}", "subject": key, "data": data}
    await jetstream.publish(f"dead_letters.{participant}.{key}", json.dumps(letter).encode())


def keys(fake: FakeSystem, *options: str) -> list[tuple[str, str]]:
    told = json.loads(run_command(dlq, fake, "dlq", "list", "--json", *options).stdout)
    return [(letter["participant"], letter["key"]) for letter in told["dead_letters"]]


WAREHOUSE_1 = ("warehouse", "order-0001")
WAREHOUSE_2 = ("warehouse", "order-0002")
REWARDS_2 = ("rewards", "order-0002")
POISON = ("email", "2026-11-22T09_00_00Z-7")


def test_the_list_says_who_gave_up_which_order_why_and_after_how_many_errors(fake: FakeSystem) -> None:
    result = run_command(dlq, fake, "dlq", "list")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "order-0001",
        "  warehouse",
        "order-0002",
        "  warehouse",
        "  rewards",
        f"{POISON[1]}  unreadable",
        "  email",
    ]
    assert re.fullmatch(r"  warehouse: 20\S+Z, after 5 errors: sku-refused", lines[1])
    assert "\x1b" not in result.output


def test_the_list_tells_nothing_of_the_customer(fake: FakeSystem) -> None:
    for arguments in (["list"], ["list", "--json"]):
        assert "ada@example.com" not in run_command(dlq, fake, "dlq", *arguments).output


def test_a_list_that_is_cut_says_that_there_is_more(fake: FakeSystem) -> None:
    told = json.loads(run_command(dlq, fake, "dlq", "list", "--limit", "3", "--json").stdout)
    assert (len(told["dead_letters"]), told["more"]) == (3, True)
    assert "and more" in run_command(dlq, fake, "dlq", "list", "--limit", "3").output


def test_without_a_stream_of_dead_letters_there_are_none(fake: FakeSystem, broker: Broker) -> None:
    broker.wipe()
    assert "No dead letter is open." in run_command(dlq, fake, "dlq", "list").output
    assert "There are no dead letters." in run_command(dlq, fake, "dlq", "list", "--all").output


def test_one_key_is_shown_with_all_who_gave_it_up_and_the_event(fake: FakeSystem) -> None:
    result = run_command(dlq, fake, "dlq", "show", "order-0002")
    assert result.exit_code == 0, result.output
    assert "order-0002\n  warehouse: 20" in result.output
    assert "\n  rewards: 20" in result.output
    assert '"email": "ada@example.com"' in result.output
    assert "duet dlq replay order-0002" in result.output
    told = json.loads(run_command(dlq, fake, "dlq", "show", "order-0002", "--json").stdout)
    assert [json.loads(letter["event"])["id"] for letter in told] == ["order-0002"] * 2


def test_an_event_that_is_no_json_is_shown_as_it_came(fake: FakeSystem) -> None:
    result = run_command(dlq, fake, "dlq", "show", POISON[1])
    assert '  {"half' in result.output
    assert "replay" not in result.output
    assert f"duet dlq drop {POISON[1]}" in result.output


def test_an_unknown_key_is_one_line_and_exit_one(fake: FakeSystem) -> None:
    for verb in (["show"], ["replay"], ["drop", "--yes", "order-0001"]):
        result = run_command(dlq, fake, "dlq", *verb, "order-9999")
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert "order-9999" in result.stderr
    assert WAREHOUSE_1 in keys(fake)


def test_a_replay_retries_the_order_once_and_clears_all_its_entries(fake: FakeSystem) -> None:
    result = run_command(dlq, fake, "dlq", "replay", "order-0002")
    assert result.exit_code == 0, result.output
    assert fake.orders["order-0002"]["steps"]["warehouse"]["status"] == "pending"
    assert len(fake.posts("/checkouts/order-0002/retry")) == 1
    assert keys(fake) == [WAREHOUSE_1, POISON]


def test_replaying_again_finds_nothing_and_changes_nothing(fake: FakeSystem) -> None:
    run_command(dlq, fake, "dlq", "replay", "order-0002")
    assert run_command(dlq, fake, "dlq", "replay", "order-0002").exit_code == 1
    assert len(fake.posts("/checkouts/order-0002/retry")) == 1


def test_replaying_all_leaves_out_what_tells_of_no_order(fake: FakeSystem) -> None:
    result = run_command(dlq, fake, "dlq", "replay", "--all", "--yes", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"replayed": ["order-0001", "order-0002"], "kept": {}}
    assert keys(fake) == [POISON]


def test_an_event_that_cannot_be_read_cannot_be_replayed(fake: FakeSystem) -> None:
    result = run_command(dlq, fake, "dlq", "replay", POISON[1])
    assert result.exit_code == 1
    assert "nobody knows which order" in result.stderr
    assert POISON in keys(fake)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("in_progress", "the order is in progress"),
        ("completed", "no step of it failed (duet dlq drop clears the entry)"),
        (None, "no such order"),
    ],
)
def test_what_checkout_does_not_retry_keeps_its_entry_and_the_others_are_replayed(
    fake: FakeSystem, status: str | None, told: str
) -> None:
    if status is None:
        del fake.orders["order-0001"]
    else:
        step = {"status": "succeeded", "attempts": 6} if status == "completed" else REFUSED
        fake.orders["order-0001"] |= {"status": status, "steps": {"warehouse": dict(step)}}
    result = run_command(dlq, fake, "dlq", "replay", "order-0001", "order-0002")
    assert result.exit_code == 1
    assert "order-0001: kept" in result.stderr
    assert told in result.stderr
    assert "order-0002: replayed" in result.stdout
    assert keys(fake, "--all") == [WAREHOUSE_1, POISON]


OPEN = [
    ("needs_attention", REFUSED),
    ("in_progress", REFUSED),  # another step is pending still
    ("completed", {**REFUSED, "awaited": False}),
    ("completed", {"status": "pending", "attempts": 5, "awaited": False}),  # its event was lost
    ("needs_attention", None),  # the letter is there before the outcome
]
SETTLED = [
    ("completed", {"status": "succeeded", "attempts": 6}),
    ("completed", {"status": "skipped", "attempts": 5, "reason": "participant retired"}),
    ("in_progress", {"status": "pending", "attempts": 5}),
    ("needs_attention", {**REFUSED, "reason": "abandoned"}),
]


@pytest.mark.parametrize(
    ("status", "step", "is_open"), [(*each, True) for each in OPEN] + [(*each, False) for each in SETTLED]
)
def test_listed_are_the_letters_whose_step_has_come_to_nothing(
    fake: FakeSystem, status: str, step: dict[str, Any] | None, is_open: bool
) -> None:
    fake.orders["order-0001"] |= {"status": status, "steps": {"warehouse": dict(step)} if step else {}}
    assert (WAREHOUSE_1 in keys(fake)) == is_open
    assert keys(fake, "--all") == [WAREHOUSE_1, WAREHOUSE_2, REWARDS_2, POISON]


def test_what_was_retried_otherwise_is_listed_no_more(
    fake: FakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dlq, "LOOKED_UP", 2)
    fake.orders["order-0002"]["steps"]["warehouse"] = {"status": "succeeded", "attempts": 6}
    assert keys(fake) == [WAREHOUSE_1, REWARDS_2, POISON]
    told = json.loads(run_command(dlq, fake, "dlq", "list", "--limit", "2", "--json").stdout)
    assert ([letter["key"] for letter in told["dead_letters"]], told["more"]) == (
        ["order-0001", "order-0002"],
        True,
    )
    replayed = run_command(dlq, fake, "dlq", "replay", "--all", "--yes", "--json")
    assert json.loads(replayed.stdout)["replayed"] == ["order-0001", "order-0002"]


def test_a_later_joiners_letter_of_a_completed_order_can_be_replayed(
    fake: FakeSystem, broker: Broker
) -> None:
    order_id = fake.add(style="choreography", fraud={**REFUSED, "awaited": False})
    at_broker(broker, lambda jetstream: bury(jetstream, "fraud", order_id))
    assert ("fraud", order_id) in keys(fake)
    assert run_command(dlq, fake, "dlq", "replay", order_id).exit_code == 0
    assert fake.orders[order_id]["status"] == "completed"
    assert ("fraud", order_id) not in keys(fake, "--all")


def test_what_is_dropped_is_gone_and_its_order_is_left_alone(fake: FakeSystem) -> None:
    result = run_command(dlq, fake, "dlq", "drop", POISON[1], "order-0002", "--yes")
    assert (result.exit_code, result.stdout) == (0, f"{POISON[1]}: dropped\norder-0002: dropped\n")
    assert keys(fake, "--all") == [WAREHOUSE_1]
    assert fake.orders["order-0002"]["status"] == "needs_attention"


def test_dropping_wants_to_be_confirmed(fake: FakeSystem) -> None:
    assert run_command(dlq, fake, "dlq", "drop", POISON[1]).exit_code == 2
    assert POISON in keys(fake)


def test_an_entry_that_came_after_the_replay_stays(fake: FakeSystem, broker: Broker) -> None:
    """The retried event may fail again before the old entry is cleared."""
    again = False

    def fail_again(request: Any) -> None:
        nonlocal again
        if request.url.path.endswith("/retry") and not again:
            again = True
            spawn(broker, WAREHOUSE_1)

    fake.before = fail_again
    assert run_command(dlq, fake, "dlq", "replay", "order-0001").exit_code == 0
    assert again
    assert WAREHOUSE_1 in keys(fake, "--all")


def spawn(broker: Broker, letter: tuple[str, str]) -> None:
    """A letter that comes while a command runs, from a thread of its own."""
    from threading import Thread

    thread = Thread(target=at_broker, args=(broker, lambda jetstream: bury(jetstream, *letter)))
    thread.start()
    thread.join(10)


@pytest.mark.parametrize("arguments", [[], ["order-0001", "--all"], ["--all"]])
def test_replaying_all_wants_to_be_said_and_confirmed(fake: FakeSystem, arguments: list[str]) -> None:
    assert run_command(dlq, fake, "dlq", "replay", *arguments).exit_code == 2
    assert not [sent for sent in fake.requests if sent.method == "POST"]


def test_where_no_broker_answers_it_says_so_in_one_line(fake: FakeSystem, broker: Broker) -> None:
    broker.kill()
    result = run_command(dlq, fake, "dlq", "list")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "broker" in result.stderr


def test_where_checkout_does_not_answer_it_says_how_to_list_without_it(
    fake: FakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: object) -> None:
        raise NoAnswerError("checkout does not answer")

    monkeypatch.setattr("lab.reading.get_checkout", silent)
    result = run_command(dlq, fake, "dlq", "list")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "`duet dlq list --all`" in result.stderr
    assert run_command(dlq, fake, "dlq", "list", "--all").exit_code == 0


def test_where_no_dead_letter_is_open_replaying_all_says_so(fake: FakeSystem) -> None:
    for number in range(2):
        result = run_command(dlq, fake, "dlq", "replay", "--all", "--yes")
        assert ("No dead letter is open." in result.stdout) == bool(number)
