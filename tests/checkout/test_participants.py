"""Who takes part: learnt from the broker, kept through its absences, retired by an operator alone."""

import logging
from collections.abc import Mapping
from typing import Any

import pytest

from checkout.journal import Journal
from checkout.orders import StepStatus
from checkout.participants import MAX_PARTICIPANTS, Participants, UnknownParticipantError
from checkout.watching import Watchers
from servicekit.bus import Durable
from servicekit.db import Database
from servicekit.migrate import migrate
from tests.checkout.placements import placement
from tests.checkout.world import OPERATOR, PACKAGE, World, eventually

TAKES_PART = {"duet.outcome": "true"}


def durable(name: str, second: int = 1, metadata: Mapping[str, str] = TAKES_PART) -> Durable:
    return Durable(name, f"2026-11-22T09:00:{second:02d}.000000000Z", 0, 0, 0, metadata)


@pytest.fixture
def participants(database: Database, journal: Journal) -> Participants:
    return Participants(database, journal)


async def test_whoever_says_so_takes_part_and_an_audience_does_not(participants: Participants) -> None:
    audience = [durable("ears", metadata={}), durable("eyes", metadata={"duet.outcome": "false"})]
    for _ in range(2):
        await participants.observe([durable("warehouse"), *audience, durable("email")])
        assert participants.known() == ("email", "warehouse")
        assert participants.ever() == {"email", "warehouse"}
    [email, _] = participants.everybody()
    assert (email.name, email.retired_at) == ("email", None)


async def test_an_absence_changes_nothing(participants: Participants) -> None:
    await participants.observe([durable("email"), durable("warehouse")])
    await participants.observe([durable("warehouse")])
    await participants.observe([])
    assert participants.known() == ("email", "warehouse")


async def test_what_is_known_outlives_the_process(
    participants: Participants, database: Database, journal: Journal
) -> None:
    await participants.observe([durable("email"), durable("warehouse")])
    await participants.retire("warehouse")
    later = Participants(database, journal)
    assert (later.known(), later.ever()) == ((), frozenset())
    await later.load()
    assert (later.known(), later.retired()) == (("email",), {"warehouse"})
    assert later.everybody() == participants.everybody()


async def test_a_retired_name_joins_again_only_by_a_newer_durable(participants: Participants) -> None:
    await participants.observe([durable("email", 5)])
    first = await participants.retire("email")
    assert await participants.retire("email") == first
    for second in (5, 4):
        await participants.observe([durable("email", second)])
        assert participants.known() == ()
    await participants.observe([durable("email", 6)])
    assert participants.known() == ("email",)
    assert participants.retired() == frozenset()


async def test_newer_means_newer_than_the_last_durable_it_was_seen_with(participants: Participants) -> None:
    await participants.observe([durable("email", 1)])
    await participants.observe([durable("email", 7)])
    await participants.retire("email")
    await participants.observe([durable("email", 5)])
    assert participants.known() == ()


async def test_nobody_unknown_can_be_retired(participants: Participants) -> None:
    with pytest.raises(UnknownParticipantError):
        await participants.retire("nobody")


async def test_retiring_again_finishes_what_broke_off(participants: Participants, journal: Journal) -> None:
    await participants.observe([durable("email")])
    await participants.retire("email")
    placed = placement(style="choreography", names=["email"])
    await journal.accept(placed)
    await participants.retire("email")
    _, progress = await journal.get(placed.order.order_id)
    assert progress.steps["email"].status is StepStatus.SKIPPED


@pytest.mark.parametrize("name", ["", "a b", "a.b", "a\n", "\x00", "é", "x" * 65, "*", ">"])
async def test_a_name_that_is_no_token_never_takes_part_and_is_named_once(
    participants: Participants, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    with caplog.at_level(logging.WARNING, "checkout.participants"):
        for _ in range(3):
            await participants.observe([durable(name), durable("email")])
    assert participants.ever() == {"email"}
    assert len(caplog.records) == 1


async def test_there_are_only_so_many(participants: Participants, caplog: pytest.LogCaptureFixture) -> None:
    crowd = [durable(f"p{number:03d}") for number in range(MAX_PARTICIPANTS + 5)]
    with caplog.at_level(logging.WARNING, "checkout.participants"):
        for _ in range(3):
            await participants.observe(crowd)
    assert len(participants.known()) == MAX_PARTICIPANTS
    assert len(caplog.records) == 1


async def test_what_has_not_changed_is_not_written_again(
    participants: Participants, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await participants.observe([durable("email")])

    async def fail(work: Any) -> None:
        raise AssertionError("written")

    monkeypatch.setattr(database, "write", fail)
    await participants.observe([durable("email")])
    assert participants.known() == ("email",)


async def test_two_replicas_that_learn_the_same_at_once_agree_and_learn_of_each_other(
    postgres_url: str,
) -> None:
    migrate(PACKAGE, postgres_url)
    async with Database(postgres_url, timeout_s=5) as one, Database(postgres_url, timeout_s=5) as other:
        journals = [Journal(each, Watchers()) for each in (one, other)]
        replicas = [Participants(*each) for each in zip((one, other), journals, strict=True)]
        for replica in replicas:
            await replica.observe([durable("email")])
        await replicas[0].observe([durable("email"), durable("warehouse")])
        await replicas[0].retire("email")
        assert replicas[1].known() == ("email",)
        await replicas[1].observe([durable("email"), durable("warehouse"), durable("rewards")])
        assert replicas[1].known() == ("rewards", "warehouse")
        await replicas[0].load()
        assert replicas[0].everybody() == replicas[1].everybody()
        for journal in journals:
            await journal.aclose()


async def test_the_operator_sees_who_takes_part_and_retires_them(world: World) -> None:
    await eventually(lambda: len(world.participants.known()) == 3)
    listed = (await world.client.get("/participants", headers=OPERATOR)).json()["participants"]
    assert [(each["name"], each["retired_at"]) for each in listed] == [
        ("email", None),
        ("rewards", None),
        ("warehouse", None),
    ]
    first = await world.client.post("/participants/email/retire", headers=OPERATOR)
    again = await world.client.post("/participants/email/retire", headers=OPERATOR)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    assert first.json()["retired_at"].endswith("Z")
    assert (await world.client.get("/participants", headers=OPERATOR)).json()["participants"] == [
        first.json(),
        *listed[1:],
    ]


async def test_retiring_a_stranger_is_404_and_a_name_that_is_none_422(world: World) -> None:
    for name, status in (("nobody", 404), ("a%20b", 422), ("%00", 422), ("x" * 65, 422)):
        reply = await world.client.post(f"/participants/{name}/retire", headers=OPERATOR)
        assert reply.status_code == status
        assert reply.headers["content-type"] == "application/problem+json"
