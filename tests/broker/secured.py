"""A real broker with the real rights, or with others, and clients of its users: proper ones and attackers."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from checkout.broker import DEAD_LETTERS, ORDERS, OUTCOMES, TIMELINE
from lab.broker_config import DOMAIN, BrokerRights, BrokerTls, broker_users, nats_config, read_rights
from servicekit.bus import Bus, BusUnavailableError, Stream
from servicekit.settings import ServiceSettings
from tests.servicekit.kettle import until
from tests.support.broker import Broker, running_broker

ROOT = Path(__file__).parent.parent.parent
RIGHTS = read_rights(ROOT)
PARTICIPANTS = sorted(name for name, right in RIGHTS.items() if right.participant)
STREAMS = (ORDERS, OUTCOMES, DEAD_LETTERS)
PATIENCE_S = 5.0
SETTLED_S = 0.1  # how long nothing may happen after an attack; a successful one takes a few milliseconds
CREATED = "orders.created"


def password(user: str) -> str:
    """The user's, in these tests."""
    return f"password-of-{user}"


@contextmanager
def secured_broker(
    folder: Path, rights: Mapping[str, BrokerRights] = RIGHTS, tls: BrokerTls | None = None
) -> Iterator[Broker]:
    """A broker with everything of the real configuration but where it listens and stores."""
    passwords = {name: password(name) for name in (*rights, "operator")}
    config: dict[str, Any] = json.loads(
        nats_config(
            broker_users(rights, passwords), host="127.0.0.1", port=1, monitor_port=1, store="", tls=tls
        )
    )
    for key in ("listen", "http", "jetstream"):
        del config[key]
    extra = "\n".join(f"{key}: {json.dumps(value)}" for key, value in config.items())
    with running_broker(folder, extra=extra) as broker:
        yield broker


def domain_of(user: str) -> str | None:
    """By which the user's account reaches the streams."""
    return DOMAIN if user in PARTICIPANTS else None


def settings_of(user: str, url: str, **given: Any) -> ServiceSettings:
    """How a service reaches the broker as this user."""
    needed: dict[str, Any] = {
        "port": 8009,
        "database_url": "sqlite:///x.db",
        "operator_token": "operator-token-0123",
        "nats_url": url,
        "nats_user": user,
        "nats_password": password(user),
        "nats_domain": domain_of(user),
    }
    return ServiceSettings(**{**needed, **given})


@asynccontextmanager
async def bus_of(user: str, broker: Broker, **given: Any) -> AsyncIterator[Bus]:
    """The service's own way to the broker, connected."""
    async with Bus(settings_of(user, broker.url, **given)) as bus:
        connected = asyncio.Event()
        bus.on_connected.append(connected.set)
        async with asyncio.timeout(PATIENCE_S):
            await connected.wait()
        yield bus


async def prepare(broker: Broker, one_account: bool = False) -> None:
    """Streams as checkout makes them, and in them events, participants, their outcomes and dead letters."""
    given: dict[str, Any] = {"nats_domain": None} if one_account else {}
    async with bus_of("checkout", broker) as checkout:
        for stream in STREAMS:
            await _made(checkout, stream)
        await checkout.ensure_durable(OUTCOMES.name, TIMELINE, OUTCOMES.subjects[0], ack_wait_s=10)
        for number in range(3):
            await checkout.publish(CREATED, b'{"order": %d}' % number)
    for name in PARTICIPANTS:
        async with bus_of(name, broker, **given) as bus:
            await bus.ensure_durable(ORDERS.name, name, CREATED, ack_wait_s=10)
            await bus.publish(f"outcomes.{name}", b"{}")
            await bus.publish(f"dead_letters.{name}.k", b"{}")


async def _made(checkout: Bus, stream: Stream) -> None:
    """Make a stream, also where one of its name was deleted a moment ago.

    nats-server may still be removing that one's files, and refuses meanwhile (seen once in some 50 times on a
    busy machine; checkout looks again by itself).
    """
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await checkout.ensure_stream(stream)
                return
            except BusUnavailableError:
                await asyncio.sleep(0.05)


async def clear(broker: Broker) -> None:
    """No streams."""
    async with client_of("operator", broker) as client:
        jetstream = client.jetstream()
        for stream in await jetstream.streams_info():
            assert stream.config.name is not None
            await jetstream.delete_stream(stream.config.name)


class Denials(list[str]):
    """What the broker told a client that it may not do."""

    async def note(self, error: Exception) -> None:
        """nats-py's callback for errors."""
        self.append(str(error).lower())


async def settled(true: Callable[[], bool], within_s: float = SETTLED_S) -> None:
    """Wait until something is so, or long enough to see that it is not going to be."""
    with suppress(TimeoutError):
        await until(true, within_s)


@asynccontextmanager
async def client_of(user: str, broker: Broker, denials: Denials | None = None) -> AsyncIterator[Client]:
    """A plain client that logs in as this user and minds no rules."""
    noted = Denials() if denials is None else denials
    client = await nats.connect(
        broker.url,
        user=user,
        password=password(user),
        inbox_prefix=f"_INBOX_{user}",
        allow_reconnect=False,
        error_cb=noted.note,
    )
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def ears(client: Client, subject: str) -> AsyncIterator[list[Msg]]:
    """What comes on a subject while the block runs."""
    heard: list[Msg] = []

    async def hear(message: Msg) -> None:
        heard.append(message)

    subscription = await client.subscribe(subject, cb=hear)
    await client.flush()
    yield heard
    await subscription.unsubscribe()


async def snapshot(broker: Broker) -> dict[str, Any]:
    """Everything that an attack could change: streams, their settings and contents, and their consumers."""
    async with client_of("operator", broker) as client:
        jetstream = client.jetstream()
        found: dict[str, Any] = {}
        for stream in await jetstream.streams_info():
            name = stream.config.name or ""
            found[name] = (
                stream.config,
                stream.state.first_seq,
                stream.state.last_seq,
                stream.state.messages,
            )
            for consumer in await jetstream.consumers_info(name):
                told = (consumer.config, consumer.delivered, consumer.ack_floor, consumer.num_ack_pending)
                found[f"{name}/{consumer.name}"] = told
        return found


async def becomes_another(broker: Broker, before: Mapping[str, Any]) -> bool:
    """Whether the broker comes to hold something else than before, in a bounded number of looks."""
    for _ in range(100):
        if await snapshot(broker) != before:
            return True
        await asyncio.sleep(0.01)
    return False
