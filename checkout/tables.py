"""The journal's table and that of the participants, and how rows read as orders and progress."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, MetaData, Row, Table, Text

from checkout.orders import Emission, Order, OrderStatus, Progress, Step, StepStatus
from servicekit.db import Instant

metadata = MetaData()

orders = Table(
    "orders",
    metadata,
    Column("order_id", Text, primary_key=True),
    Column("style", Text, nullable=False),
    Column("caller", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("fingerprint", Text),
    Column("currency", Text, nullable=False),
    Column("total_minor", BigInteger, nullable=False),
    Column("details", Text, nullable=False),
    Column("accepted_at", Instant, nullable=False),
    Column("status", Text, nullable=False),
    Column("steps", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("completed_at", Instant),
    Column("resume_after", Float(53), nullable=False),
    Column("leased", Boolean, nullable=False),
    Column("passes", Integer, nullable=False),
    Column("event_stamp", Text),
    Column("event_sequence", BigInteger),
    Column("emitted_at", Instant),
    Column("retries", Integer, nullable=False, server_default="0"),
)

participants = Table(
    "participants",
    metadata,
    Column("name", Text, primary_key=True),
    Column("joined_at", Instant, nullable=False),
    Column("durable_created", Text, nullable=False),
    Column("retired_at", Instant),
)

PROGRESS: tuple[Column[Any], ...] = (
    orders.c.order_id,
    orders.c.status,
    orders.c.steps,
    orders.c.version,
    orders.c.completed_at,
    orders.c.passes,
    orders.c.event_stamp,
    orders.c.event_sequence,
    orders.c.emitted_at,
    orders.c.retries,
)


def order_in(row: Row[Any]) -> Order:
    """The facts of the order in a row."""
    return Order(
        order_id=row.order_id,
        style=row.style,
        caller=row.caller,
        currency=row.currency,
        total_minor=row.total_minor,
        accepted_at=row.accepted_at,
        **orjson.loads(row.details),
    )


def progress_in(row: Row[Any]) -> Progress:
    """The progress of the order in a row (of the columns `PROGRESS`, at least)."""
    steps = {step["name"]: _step(step) for step in orjson.loads(row.steps)}
    emission = (
        None if row.event_stamp is None else Emission(row.event_stamp, row.event_sequence, row.emitted_at)
    )
    return Progress(
        order_id=row.order_id,
        status=OrderStatus(row.status),
        steps=steps,
        version=row.version,
        completed_at=row.completed_at,
        passes=row.passes,
        emission=emission,
        retries=row.retries,
    )


def steps_json(progress: Progress) -> str:
    """All steps of an order, as the column `steps` holds them."""
    return orjson.dumps(list(progress.steps.values())).decode()


def _step(step: Mapping[str, Any]) -> Step:
    return Step(
        **{
            **step,
            "status": StepStatus(step["status"]),
            "since": _instant(step["since"]),
            "finished_at": _instant(step["finished_at"]),
        }
    )


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
