"""A participant's durable is pinned to its name, stream and subject, and can be turned against nobody."""

import asyncio
from contextlib import suppress

import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from checkout.broker import ORDERS
from lab.broker_config import IMPORTED_API
from tests.broker.attacks import API, consumer
from tests.broker.secured import (
    CREATED,
    PATIENCE_S,
    SETTLED_S,
    Denials,
    becomes_another,
    bus_of,
    clear,
    client_of,
    domain_of,
    ears,
    prepare,
    snapshot,
)
from tests.servicekit.kettle import until
from tests.support.broker import Broker


@pytest.mark.parametrize("allowed", [False, True])
async def test_no_participant_acknowledges_another_s_events(
    allowed: bool, broker: Broker, permissive_broker: Broker
) -> None:
    at, domain = (permissive_broker, None) if allowed else (broker, domain_of("warehouse"))
    if allowed:
        await clear(at)
        await prepare(at, one_account=True)
    denials = Denials()
    async with client_of("warehouse", at) as client, client_of("email", at, denials) as thief:
        pull = await client.jetstream(domain=domain).pull_subscribe_bind("warehouse", ORDERS.name)
        [message] = await pull.fetch(1, timeout=PATIENCE_S)
        before = await snapshot(at)
        await thief.publish(message.reply, b"+ACK")
        await thief.flush()
        if allowed:
            assert await becomes_another(at, before)
        else:
            await until(lambda: bool(denials))
            assert await snapshot(at) == before
        await message.ack()


@pytest.mark.parametrize(
    "request_",
    [
        consumer("ORDERS", "email", ">"),
        consumer("ORDERS", "email", "orders.*"),
        consumer("ORDERS", "warehouse", CREATED),
        consumer("OUTCOMES", "email", CREATED),
        consumer("ORDERS", "email", "", filter_subjects=[CREATED, "orders.>"]),
    ],
    ids=["every subject", "more subjects", "another's name", "another stream", "several filters"],
)
async def test_what_a_participant_declares_is_its_own_durable_of_orders(
    request_: bytes, broker: Broker
) -> None:
    before = await snapshot(broker)
    async with client_of("email", broker) as client:
        answer = await client.request(
            f"{IMPORTED_API}CONSUMER.CREATE.ORDERS.email.{CREATED}", request_, timeout=PATIENCE_S
        )
    assert b'"error"' in answer.data
    assert await snapshot(broker) == before


@pytest.mark.parametrize(
    "target",
    [
        "outcomes.warehouse",
        "dead_letters.warehouse.k2",
        "$JS.API.STREAM.DELETE.OUTCOMES",
        "$JS.API.STREAM.PURGE.DEAD_LETTERS",
        "$JS.ACK.ORDERS.warehouse.1.1.1.1700000000000000000.2",
        "_INBOX_warehouse.known",
        CREATED,
    ],
)
async def test_no_participant_has_events_delivered_elsewhere(target: str, broker: Broker) -> None:
    """It may make its own durable one that pushes; but nobody whom that could reach listens."""
    before = await snapshot(broker)
    async with (
        client_of("operator", broker) as operator,
        client_of("warehouse", broker) as warehouse,
        client_of("email", broker) as client,
        ears(warehouse, "_INBOX_warehouse.known") as heard,
    ):
        for empty in (False, True):
            await forget(operator, "email")
            pushing = consumer("ORDERS", "email", CREATED, deliver_subject=target, headers_only=empty)
            await client.request(
                f"{IMPORTED_API}CONSUMER.CREATE.ORDERS.email.{CREATED}", pushing, timeout=PATIENCE_S
            )
            await asyncio.sleep(SETTLED_S)
        await forget(operator, "email")
        async with bus_of("email", broker) as bus:
            await bus.ensure_durable(ORDERS.name, "email", CREATED, ack_wait_s=10)
        await warehouse.flush()
        assert heard == []
    after = await snapshot(broker)
    del before["ORDERS/email"], after["ORDERS/email"]
    assert after == before


async def test_in_a_common_account_whoever_listens_could_be_reached(flat_broker: Broker) -> None:
    await clear(flat_broker)
    await prepare(flat_broker, one_account=True)
    async with (
        client_of("operator", flat_broker) as operator,
        client_of("warehouse", flat_broker) as warehouse,
        client_of("email", flat_broker) as client,
        ears(warehouse, "_INBOX_warehouse.known") as heard,
    ):
        await forget(operator, "email")
        pushing = consumer("ORDERS", "email", CREATED, deliver_subject="_INBOX_warehouse.known")
        await client.request(f"{API}CONSUMER.CREATE.ORDERS.email.{CREATED}", pushing, timeout=PATIENCE_S)
        await until(lambda: bool(heard))


async def forget(operator: Client, name: str) -> None:
    """Delete a participant's durable, if the broker took it at all."""
    with suppress(NotFoundError):
        await operator.jetstream().delete_consumer(ORDERS.name, name)
