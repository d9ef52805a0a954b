"""Each service can do its part at the broker, and nothing besides: a real nats-server, the real rights.

Every attack is tried twice: with the rights of `service.toml`, where nothing may happen, and on a broker that
grants everything, where it must succeed; so an attack that is no attack would be noticed.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from checkout.broker import ORDERS, OUTCOMES, TIMELINE
from lab.broker_config import IMPORTED_API
from tests.broker.attacks import API, ATTACKS, TRICKS, Attack
from tests.broker.secured import (
    CREATED,
    PARTICIPANTS,
    PATIENCE_S,
    RIGHTS,
    SETTLED_S,
    STREAMS,
    Denials,
    becomes_another,
    bus_of,
    clear,
    client_of,
    ears,
    prepare,
    secured_broker,
    settled,
    snapshot,
)
from tests.servicekit.kettle import until
from tests.support.broker import Broker


async def answers_to(
    attack: Attack, client: Client, denials: Denials, prefix: str = API, within_s: float = SETTLED_S
) -> int:
    """Carry it out; how many answers come back that are no error, until one or a denial comes."""
    inbox, denied = client.new_inbox(), len(denials)
    async with ears(client, inbox) as heard:
        await client.publish(attack.subject.replace(API, prefix), attack.payload, attack.reply or inbox)
        await client.flush()
        await settled(lambda: bool(heard) or len(denials) > denied, within_s)
        return sum(b'"error"' not in message.data and not _is_status(message) for message in heard)


def _is_status(message: Msg) -> bool:
    return "Status" in (message.headers or {})


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
async def test_an_attack_is_refused_and_nothing_happens(attack: Attack, broker: Broker) -> None:
    before, denials = await snapshot(broker), Denials()
    prefixes = (API, IMPORTED_API) if attack.subject.startswith(API) else (API,)
    async with client_of(attack.user, broker, denials) as client:
        for number, prefix in enumerate(prefixes, start=1):
            assert await answers_to(attack, client, denials, prefix, PATIENCE_S) == 0
            assert len(denials) == number
    assert all("permissions violation for publish" in denial for denial in denials)
    assert await snapshot(broker) == before


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
async def test_the_attack_would_do_harm_if_it_were_allowed(attack: Attack, permissive_broker: Broker) -> None:
    await clear(permissive_broker)
    await prepare(permissive_broker, one_account=True)
    before = await snapshot(permissive_broker)
    async with client_of("checkout", permissive_broker) as client:
        answers = await answers_to(attack, client, Denials(), within_s=PATIENCE_S)
    assert answers or await becomes_another(permissive_broker, before)


@pytest.mark.parametrize("trick", TRICKS, ids=str)
async def test_no_answer_is_sent_where_the_asker_has_no_right(trick: Attack, broker: Broker) -> None:
    """The server checks no reply subject; the participant's own account is where such an answer ends."""
    await pull_all("email", broker)
    before = await snapshot(broker)
    async with client_of("email", broker) as client:
        assert await answers_to(trick, client, Denials(), IMPORTED_API) == 0
    assert await snapshot(broker) == before


@pytest.mark.parametrize("trick", TRICKS, ids=str)
async def test_the_trick_would_work_in_a_common_account(trick: Attack, flat_broker: Broker) -> None:
    await clear(flat_broker)
    await prepare(flat_broker, one_account=True)
    await pull_all("email", flat_broker, nats_domain=None)
    before = await snapshot(flat_broker)
    async with client_of("email", flat_broker) as client:
        await answers_to(trick, client, Denials())
    assert await becomes_another(flat_broker, before)


async def test_a_participant_can_do_its_part(tmp_path: Path) -> None:
    with secured_broker(tmp_path) as broker:
        await prepare(broker)
        for name in PARTICIPANTS:
            async with bus_of(name, broker) as bus:
                assert (await bus.stream_state(ORDERS.name)).last_sequence == 3
                messages = await bus.pull(ORDERS.name, name).fetch(10, 1)
                assert [message.sequence for message in messages] == [1, 2, 3]
                first, second, third = messages
                await first.working()
                await first.ack()
                await second.drop()
                await third.retry(0)
                [again] = await bus.pull(ORDERS.name, name).fetch(10, 10)
                assert (again.sequence, again.tries) == (3, 2)
                await again.ack()
                assert (await bus.publish(f"outcomes.{name}", b"{}")).stream == OUTCOMES.name
                assert (await bus.publish(f"dead_letters.{name}.k", b"{}")).stream == "DEAD_LETTERS"
        async with bus_of("checkout", broker) as bus:
            assert {each.name: each.ack_floor for each in await bus.durables(ORDERS.name)} == dict.fromkeys(
                PARTICIPANTS, 3
            )


async def test_checkout_can_do_its_part_again_and_again(tmp_path: Path) -> None:
    with secured_broker(tmp_path) as broker:
        for _ in range(2):
            await prepare(broker)
        async with bus_of("checkout", broker) as bus:
            for stream in STREAMS:
                await bus.ensure_stream(replace(stream, max_age_s=stream.max_age_s + 1))
            outcomes = await bus.pull(OUTCOMES.name, TIMELINE).fetch(100, 1)
            assert len(outcomes) == 2 * len(PARTICIPANTS)
            for outcome in outcomes:
                await outcome.ack()


async def test_the_operator_can_look_after_streams_consumers_and_letters(tmp_path: Path) -> None:
    with secured_broker(tmp_path) as broker:
        await prepare(broker)
        async with client_of("operator", broker) as client:
            jetstream = client.jetstream()
            assert (await jetstream.get_msg(ORDERS.name, seq=1)).data == b'{"order": 0}'
            assert await jetstream.delete_msg("DEAD_LETTERS", 1)
            assert await jetstream.delete_consumer(ORDERS.name, "email")
            await clear(broker)
        assert await snapshot(broker) == {}


@pytest.mark.parametrize("user", ["email", "checkout", "operator"])
@pytest.mark.parametrize(
    "subject", [CREATED, ">", "outcomes.*", "dead_letters.>", "_INBOX_rewards.>", "$JS.>", "$SYS.>"]
)
async def test_nobody_listens_to_what_is_not_theirs(user: str, subject: str, broker: Broker) -> None:
    denials = Denials()
    async with client_of(user, broker, denials) as client, client_of("operator", broker) as operator:
        async with ears(client, subject) as heard:
            await say_something(broker, operator)
            await client.flush()
            await settled(lambda: bool(heard or denials), PATIENCE_S)
        assert heard == []
    assert "permissions violation for subscription" in denials[0]


async def test_whoever_may_listen_would_hear_it(permissive_broker: Broker) -> None:
    await clear(permissive_broker)
    await prepare(permissive_broker, one_account=True)
    async with (
        client_of("checkout", permissive_broker) as client,
        client_of("operator", permissive_broker) as operator,
        ears(client, ">") as heard,
    ):
        await say_something(permissive_broker, operator)
        wanted = (CREATED, "outcomes.rewards", "_INBOX_operator.")
        await until(lambda: all(any(each.subject.startswith(start) for each in heard) for start in wanted))


@pytest.mark.parametrize("login", [{}, {"user": "email", "password": "wrong"}, {"user": "email"}])
async def test_nobody_comes_in_without_a_password(login: dict[str, str], broker: Broker) -> None:
    with pytest.raises(nats.errors.Error, match=r"Authorization Violation|no servers|Authentication"):
        await nats.connect(broker.url, allow_reconnect=False, max_reconnect_attempts=1, **login)


@pytest.mark.parametrize("name", PARTICIPANTS)
def test_participants_have_the_same_rights_each_under_its_own_name(name: str) -> None:
    first, own = RIGHTS[PARTICIPANTS[0]], RIGHTS[name]
    assert own.publish == tuple(subject.replace(PARTICIPANTS[0], name) for subject in first.publish)
    assert own.subscribe == (f"_INBOX_{name}.>",)


async def pull_all(name: str, broker: Broker, **given: Any) -> None:
    """Leave a participant nothing to pull."""
    async with bus_of(name, broker, **given) as bus:
        for message in await bus.pull(ORDERS.name, name).fetch(100, 0.1):
            await message.ack()


async def say_something(broker: Broker, operator: Client) -> None:
    """An event, an outcome, a dead letter, and an answer of the API."""
    async with bus_of("checkout", broker) as checkout:
        await checkout.publish(CREATED, b"{}")
    async with client_of("rewards", broker) as rewards:
        await rewards.publish("outcomes.rewards", b"{}")
        await rewards.publish("dead_letters.rewards.k", b"{}")
        await rewards.flush()
    await operator.jetstream().stream_info(ORDERS.name)
