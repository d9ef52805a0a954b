"""The journal's one table, and how its rows read as orders and progress."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, MetaData, Row, Table, Text

from checkout.orders import Order, OrderStatus, Progress, Step, StepStatus
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
)

PROGRESS: tuple[Column[Any], ...] = (
    orders.c.order_id,
    orders.c.status,
    orders.c.steps,
    orders.c.version,
    orders.c.completed_at,
    orders.c.passes,
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
    return Progress(row.order_id, OrderStatus(row.status), steps, row.version, row.completed_at, row.passes)


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
