"""What no user of the broker may do, each as the one message that would do it."""

import json
from dataclasses import dataclass
from typing import Any

from tests.broker.secured import CREATED

API = "$JS.API."


@dataclass(frozen=True)
class Attack:
    """What a user sends, and where it wants the answer to go, if not to itself."""

    what: str
    user: str
    subject: str
    payload: bytes = b""
    reply: str = ""

    def __str__(self) -> str:
        return f"{self.user} {self.what}"


def consumer(stream: str, name: str, subject: str, **more: Any) -> bytes:
    """A request to create a consumer."""
    config = {"name": name, "durable_name": name, "filter_subject": subject, "ack_policy": "explicit", **more}
    return json.dumps({"stream_name": stream, "config": config}).encode()


PULL = b'{"batch": 10, "no_wait": true}'
OTHERS = f"{API}CONSUMER.MSG.NEXT.ORDERS.warehouse"
RESTREAM = json.dumps({"name": "ORDERS", "subjects": [CREATED], "max_msgs": 1}).encode()
NOSY = consumer("ORDERS", "nosy", CREATED)


def attacks_of(user: str) -> list[Attack]:
    """What no service may do, whoever it is."""
    told: list[tuple[str, str, bytes]] = [
        ("purges the stream", f"{API}STREAM.PURGE.ORDERS", b""),
        ("deletes the stream", f"{API}STREAM.DELETE.ORDERS", b""),
        ("deletes the outcomes", f"{API}STREAM.DELETE.OUTCOMES", b""),
        ("deletes the dead letters", f"{API}STREAM.DELETE.DEAD_LETTERS", b""),
        ("deletes an event", f"{API}STREAM.MSG.DELETE.ORDERS", b'{"seq": 1}'),
        ("reads an event", f"{API}STREAM.MSG.GET.ORDERS", b'{"seq": 1}'),
        ("makes a stream of its own", f"{API}STREAM.CREATE.MINE", b'{"name": "MINE", "subjects": ["mine"]}'),
        ("pulls another's consumer", OTHERS, PULL),
        ("deletes another's consumer", f"{API}CONSUMER.DELETE.ORDERS.warehouse", b""),
        (
            "pauses another's consumer",
            f"{API}CONSUMER.PAUSE.ORDERS.warehouse",
            b'{"pause_until": "2999-01-01T00:00:00Z"}',
        ),
        ("sets another's consumer back", f"{API}CONSUMER.RESET.ORDERS.warehouse", b'{"seq": 2}'),
        (
            "changes another's consumer",
            f"{API}CONSUMER.CREATE.ORDERS.warehouse.{CREATED}",
            consumer("ORDERS", "warehouse", CREATED, max_ack_pending=1),
        ),
        (
            "changes another's consumer in the old way",
            f"{API}CONSUMER.DURABLE.CREATE.ORDERS.warehouse",
            consumer("ORDERS", "warehouse", CREATED, max_ack_pending=1),
        ),
        ("makes a consumer by another name", f"{API}CONSUMER.CREATE.ORDERS.nosy.{CREATED}", NOSY),
        (
            "makes a nameless consumer",
            f"{API}CONSUMER.CREATE.ORDERS",
            b'{"stream_name": "ORDERS", "config": {"ack_policy": "explicit"}}',
        ),
        ("forges another's dead letter", "dead_letters.warehouse.k2", b"{}"),
        ("tells another's outcome", "outcomes.warehouse", b"{}"),
    ]
    return [Attack(what, user, subject, payload) for what, subject, payload in told]


ATTACKS = [
    *attacks_of("email"),
    *attacks_of("checkout"),
    Attack("forges an event", "email", CREATED, b"{}"),
    Attack("changes the stream", "email", f"{API}STREAM.UPDATE.ORDERS", RESTREAM),
    Attack("lists who takes part", "email", f"{API}CONSUMER.LIST.ORDERS"),
    Attack("reads outcomes", "email", f"{API}CONSUMER.MSG.NEXT.OUTCOMES.timeline", PULL),
    Attack(
        "makes a consumer of outcomes",
        "email",
        f"{API}CONSUMER.CREATE.OUTCOMES.email.outcomes.*",
        consumer("OUTCOMES", "email", "outcomes.*"),
    ),
    Attack(
        "makes a consumer of dead letters",
        "email",
        f"{API}CONSUMER.CREATE.DEAD_LETTERS.email.dead_letters.>",
        consumer("DEAD_LETTERS", "email", "dead_letters.>"),
    ),
    Attack("forges an event", "operator", CREATED, b"{}"),
    Attack("tells an outcome", "operator", "outcomes.warehouse", b"{}"),
]

# The server answers whomever the request names: each of these has the right to ask.
NEXT = f"{API}CONSUMER.MSG.NEXT.ORDERS.email"
SPENT = b'{"batch": 1, "no_wait": true}'
TRICKS = [
    Attack("has nothing to pull delete the stream", "email", NEXT, SPENT, f"{API}STREAM.DELETE.ORDERS"),
    Attack("has nothing to pull delete the outcomes", "email", NEXT, SPENT, f"{API}STREAM.DELETE.OUTCOMES"),
    Attack("has nothing to pull count as an event", "email", NEXT, SPENT, CREATED),
    Attack("has nothing to pull count as an outcome", "email", NEXT, SPENT, "outcomes.warehouse"),
    Attack("has information count as an event", "email", f"{API}STREAM.INFO.ORDERS", b"", CREATED),
]
