"""The effect: one shipment for each order, and its SQL.

A shipment is prepared once; the first body for an order wins. If its stock cannot be allocated as a whole
it is backordered, which is a success all the same. Refuses skipped and backward states.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from sqlalchemy import Column, Connection, Row, func, select
from uuid_utils import uuid7

from servicekit.crashpoints import reach
from servicekit.db import insert_for
from warehouse_svc.errors import ShipmentNotFoundError, ShipmentStateError, SkuRefusedError
from warehouse_svc.stock import StockRules, allocate, lock_levels, save_levels, take_out
from warehouse_svc.tables import backorders, shipments

BACKORDERED, PREPARING, PACKED, SHIPPED, DELIVERED = STATES = (
    "backordered",
    "preparing",
    "packed",
    "shipped",
    "delivered",
)
# A backordered shipment leaves that state by stock alone, never by being advanced.
BEFORE = {PACKED: PREPARING, SHIPPED: PACKED, DELIVERED: SHIPPED}


@dataclass(frozen=True)
class PrepareShipment:
    """One command: the order, its lines ({"sku", "quantity"} each), and the address as fields."""

    order_id: str
    lines: Sequence[Mapping[str, Any]]
    ship_to: Mapping[str, str | None]


@dataclass(frozen=True)
class Prepared:
    """What is stored for an order; `repeated` says that it was there before this command."""

    order_id: str
    shipment_id: str
    state: str
    repeated: bool


def needs_of(lines: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Units needed by SKU; an order may name the same SKU in several lines."""
    needs: Counter[str] = Counter()
    for line in lines:
        needs[line["sku"]] += line["quantity"]
    return dict(needs)


def prepare_shipments(
    connection: Connection, commands: Sequence[PrepareShipment], rules: StockRules
) -> list[Prepared | SkuRefusedError]:
    """Prepare each order's shipment once; a repeated order gets its stored outcome, in the given order.

    A refusal is a result, not raised: so it costs its neighbours nothing, and the next try starts afresh.
    """
    known = _stored(connection, {command.order_id for command in commands})
    fresh: dict[str, PrepareShipment] = {}
    for command in commands:
        if command.order_id not in known and not _refused_skus(command, rules):
            fresh.setdefault(command.order_id, command)
    made = _make(connection, sorted(fresh.values(), key=lambda c: c.order_id), rules) if fresh else {}
    # What is fresh and not made was made by another process between our reading and our writing.
    known |= _stored(connection, fresh.keys() - made.keys())
    results: list[Prepared | SkuRefusedError] = []
    for command in commands:
        stored = known.get(command.order_id)
        if stored is None and command is fresh.get(command.order_id):
            stored = known[command.order_id] = made[command.order_id]
            results.append(Prepared(*stored, repeated=False))
        elif stored is None:
            refused = ", ".join(_refused_skus(command, rules))
            results.append(SkuRefusedError(f"The warehouse does not handle {refused}."))
        else:
            results.append(Prepared(*stored, repeated=True))
    reach("warehouse.before-commit")
    return results


def _refused_skus(command: PrepareShipment, rules: StockRules) -> list[str]:
    return sorted({line["sku"] for line in command.lines if rules.refuses(line["sku"])})


def _stored(connection: Connection, order_ids: Collection[str]) -> dict[str, tuple[str, str, str]]:
    if not order_ids:
        return {}
    columns = (shipments.c.order_id, shipments.c.shipment_id, shipments.c.state)
    rows = connection.execute(select(*columns).where(shipments.c.order_id.in_(order_ids)))
    return {row.order_id: (row.order_id, row.shipment_id, row.state) for row in rows}


def _make(
    connection: Connection, commands: Sequence[PrepareShipment], rules: StockRules
) -> dict[str, tuple[str, str, str]]:
    # The commands come sorted by order id: two processes that were sent the same orders take them in turn.
    needs = {command.order_id: needs_of(command.lines) for command in commands}
    levels = lock_levels(connection, set(chain.from_iterable(needs.values())), rules)
    now = datetime.now(UTC)
    rows = [
        {
            "order_id": command.order_id,
            "shipment_id": str(uuid7()),
            "state": PREPARING,
            "lines": list(command.lines),
            "ship_to": dict(command.ship_to),
            "prepared_at": now,
            "changed_at": now,
        }
        for command in commands
    ]
    insert = insert_for(connection, shipments).on_conflict_do_nothing(index_elements=["order_id"])
    columns = (shipments.c.order_id, shipments.c.shipment_id, shipments.c.seq)
    inserted = {row.order_id: row for row in connection.execute(insert.returning(*columns), rows)}
    made, waiting = {}, []
    for command in commands:
        if (row := inserted.get(command.order_id)) is None:
            continue
        state = PREPARING if allocate(levels, needs[row.order_id]) else BACKORDERED
        made[row.order_id] = (row.order_id, row.shipment_id, state)
        if state == BACKORDERED:
            waiting.append(row)
    if waiting:
        _note_backorders(connection, waiting, needs)
    save_levels(connection, levels)
    return made


def _note_backorders(
    connection: Connection, rows: Sequence[Row[Any]], needs: Mapping[str, Mapping[str, int]]
) -> None:
    seqs = [row.seq for row in rows]
    connection.execute(shipments.update().where(shipments.c.seq.in_(seqs)).values(state=BACKORDERED))
    wanted = [
        {"sku": sku, "seq": row.seq, "quantity": quantity}
        for row in rows
        for sku, quantity in needs[row.order_id].items()
    ]
    connection.execute(backorders.insert(), wanted)


def advance_shipment(connection: Connection, order_id: str, to: str, rules: StockRules) -> Row[Any]:
    """Bring a shipment to `to` and return it; being there already changes nothing.

    Raises ShipmentNotFoundError, or ShipmentStateError unless it stands right before `to`.
    """
    lines = read_shipment(connection, order_id).lines
    # Stock is locked before the shipment, as everywhere; the lines never change, so reading them is enough.
    levels = lock_levels(connection, needs_of(lines), rules) if to == SHIPPED else {}
    by_order = shipments.c.order_id == order_id
    row = connection.execute(select(shipments).where(by_order).with_for_update()).one()
    if row.state == to:
        return row
    if row.state != BEFORE[to]:
        raise ShipmentStateError(f"The shipment is {row.state}; {to} comes after {BEFORE[to]}.")
    if to == SHIPPED:
        take_out(levels, needs_of(lines))
        save_levels(connection, levels)
    change = shipments.update().where(by_order).values(state=to, changed_at=datetime.now(UTC))
    return connection.execute(change.returning(*shipments.c)).one()


def read_shipment(connection: Connection, order_id: str) -> Row[Any]:
    """An order's shipment. Raises ShipmentNotFoundError."""
    row = connection.execute(select(shipments).where(shipments.c.order_id == order_id)).first()
    if row is None:
        raise ShipmentNotFoundError("There is no shipment for this order.")
    return row


def shipments_after(connection: Connection, seq: int, limit: int) -> Sequence[Row[Any]]:
    """Up to `limit` shipments (seq, order_id, prepared_at) after a position, oldest first."""
    columns: list[Column[Any]] = [shipments.c.seq, shipments.c.order_id, shipments.c.prepared_at]
    query = select(*columns).where(shipments.c.seq > seq).order_by(shipments.c.seq).limit(limit)
    return connection.execute(query).all()


def count_by_state(connection: Connection) -> dict[str, int]:
    """How many shipments are in each state."""
    query = select(shipments.c.state, func.count().label("number")).group_by(shipments.c.state)
    counted = {row.state: row.number for row in connection.execute(query)}
    return dict.fromkeys(STATES, 0) | counted
