"""Who learns what: marks are found where they are and nowhere else, and on a running system."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lab.client import open_client
from lab.coupling import stores, wire
from lab.coupling.knowledge import ORCHESTRATION, knowledge
from lab.coupling.markers import (
    ADDRESS,
    ARTICLES,
    EMAIL,
    FACTS,
    MEMBERSHIP,
    NAME,
    PRICES,
    TOTAL,
    covered,
    marked_order,
)
from lab.coupling.observed import BY_BEING_TOLD, Observed, observe
from lab.coupling.stores import Held, held
from tests.support.system import live_system

ROOT = Path(__file__).resolve().parent.parent.parent
ORDER = marked_order(rewards_member=True)
OTHER = marked_order(rewards_member=False)
BODY = json.dumps(ORDER.body).encode()


def test_an_order_is_found_in_its_own_body_and_not_in_another() -> None:
    assert set(ORDER.facts_in(BODY)) == set(FACTS) - {TOTAL}
    assert set(OTHER.facts_in(BODY)) == set()


def test_a_mark_is_found_across_a_soft_break_and_an_amount_as_people_read_it() -> None:
    name = str(ORDER.body["customer"]["name"]).encode()
    assert set(ORDER.facts_in(name[:5] + b"=\r\n" + name[5:])) == {NAME}
    total = ORDER.numbers[TOTAL]
    assert set(ORDER.facts_in(f"{total // 100}.{total % 100:02} GBP".encode())) == {TOTAL}


def test_where_a_fact_stands_is_told_by_its_path_whatever_it_is_called() -> None:
    told = {
        "items": [{"sku": ORDER.body["lines"][0]["sku"]}],
        "amount": ORDER.numbers[TOTAL],
        "is_member": True,
    }
    assert ORDER.paths_in(told) == {ARTICLES: {"items.sku"}, TOTAL: {"amount"}, MEMBERSHIP: {"is_member"}}
    assert covered("items.sku", ["items"])
    assert covered("amount", ["total|amount"])
    assert not covered("items.sku", ["item", "items.sku.more"])


def test_a_database_is_searched_with_its_log_and_for_numbers(tmp_path: Path) -> None:
    file = tmp_path / "shop.db"
    with closing(sqlite3.connect(file)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE sold (email TEXT, total INTEGER, is_member INTEGER)")
        writer.execute(
            "INSERT INTO sold VALUES (?, ?, 1)", (ORDER.body["customer"]["email"], ORDER.numbers[TOTAL])
        )
        writer.commit()
        log = file.with_name("shop.db-wal")
        assert log.stat().st_size > 0
        found = held({"log": [log], "shop": [file]}, [OTHER, ORDER])
    assert found == [Held("log", EMAIL, 1), Held("shop", MEMBERSHIP, 1), Held("shop", TOTAL, 1)]


def test_a_mark_that_two_pieces_share_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "CHUNK_BYTES", 1000)
    file = tmp_path / "big"
    file.write_bytes(b"x" * 995 + str(ORDER.body["customer"]["email"]).encode() + b"x" * 3000)
    assert held({"big": [file]}, [ORDER]) == [Held("big", EMAIL, 1)]


def test_commands_of_the_real_tree_are_made_by_its_own_code() -> None:
    graph = knowledge(ROOT, ORCHESTRATION)
    seen = list(wire.commands(ROOT, graph, [ORDER]))
    assert {each.how for each in seen} == {wire.REBUILT}
    told = {name: {each.fact for each in seen if each.service == name} for name in ("warehouse", "rewards")}
    assert told == {"warehouse": {NAME, ADDRESS, ARTICLES}, "rewards": {NAME, EMAIL, TOTAL}}


def test_commands_that_cannot_be_made_are_told_by_their_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SCRIPT", "raise SystemExit(1)")
    graph = knowledge(ROOT, ORCHESTRATION)
    seen = list(wire.commands(ROOT, graph, [ORDER]))
    assert {each.how for each in seen} == {wire.BY_FIELDS}
    assert {each.fact for each in seen if each.service == "warehouse"} == {NAME, ADDRESS, ARTICLES}


def learnt(seen: Observed, service: str, *, read: bool = False) -> set[str]:
    return {each.fact for each in seen.learnt if each.service == service and (each.reads or not read)}


def kept(seen: Observed, store: str) -> set[str]:
    return {each.fact for each in seen.held if each.store == store}


@pytest.mark.e2e
async def test_on_a_running_system_the_conductor_tells_each_its_part_and_the_event_tells_all(
    tmp_path: Path,
) -> None:
    with live_system(tmp_path) as system:
        async with open_client() as client:
            called = await observe(system.lab, client, ROOT, "orchestration", orders=2)
            danced = await observe(system.lab, client, ROOT, "choreography", orders=2)
        system.audit()
    assert called.calls == {"email": 1.0, "rewards": 0.5, "warehouse": 1.0}
    assert called.as_document()["messages_per_order"] == 0
    assert learnt(called, "warehouse") == {NAME, ADDRESS, ARTICLES}
    assert MEMBERSHIP in learnt(called, "rewards")
    assert {each.how for each in called.learnt} == {wire.REBUILT, BY_BEING_TOLD}
    assert danced.calls == {}
    assert {each.stream: each.stored for each in danced.messages} == {"ORDERS": 1.0, "OUTCOMES": 3.0}
    assert danced.as_document()["deliveries_per_order"] == 6
    assert learnt(danced, "warehouse") == set(FACTS)
    assert learnt(danced, "warehouse", read=True) == {NAME, ADDRESS, ARTICLES}
    assert kept(danced, "broker") == set(FACTS)
    assert kept(called, "broker") == set()
    for seen in (called, danced):
        assert kept(seen, "warehouse database") & {EMAIL, PRICES, TOTAL} == set()
        assert kept(seen, "logs") == set()
        assert {EMAIL, TOTAL} <= kept(seen, "mailbox")
