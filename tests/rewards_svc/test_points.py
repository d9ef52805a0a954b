"""The ledger on both engines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards_svc.points import Credit, balance_of, credit_points, entries_after, normalise, points_for
from servicekit.db import Database


def credit(order_id: str, email: str = "ada@example.com", total_minor: int = 4348) -> Credit:
    return Credit(order_id, email, "GBP", total_minor)


async def test_an_order_is_credited_once_however_often_it_comes(database: Database) -> None:
    first = await database.batch(credit_points, [credit("o1")])
    again = await database.batch(credit_points, [credit("o1", total_minor=9900), credit("o1")])
    assert [outcome.repeated for outcome in first] == [False]
    assert [(o.repeated, o.points, o.balance) for o in again] == [(True, 43, 43)] * 2
    assert len(await database.read(lambda c: entries_after(c, 0, 10))) == 1


async def test_the_same_order_twice_in_one_batch_is_one_entry(database: Database) -> None:
    one, two = await database.batch(credit_points, [credit("o1"), credit("o1")])
    assert (one.repeated, two.repeated) == (False, True)
    assert one.balance == two.balance == 43


async def test_orders_of_one_member_share_a_balance_in_any_spelling(database: Database) -> None:
    outcomes = await database.batch(
        credit_points,
        [
            credit("o1", "Ada@EXÄMPLE.com"),
            credit("o2", "ada@xn--exmple-cua.com"),
            credit("o3", "b@example.com"),
        ],
    )
    assert [outcome.balance for outcome in outcomes] == [43, 86, 43]
    found = await database.read(lambda c: balance_of(c, "ADA@exämple.com"))
    assert found is not None
    assert found.points == 86


async def test_a_bad_item_fails_alone_and_its_neighbours_are_kept(database: Database) -> None:
    results = await database.batch(
        credit_points,
        [credit("good-1"), credit("too-much", total_minor=2**70), credit("good-2"), credit("nul\x00")],
    )
    kept = {row.order_id for row in await database.read(lambda c: entries_after(c, 0, 10))}
    assert {"good-1", "good-2"} <= kept
    assert "too-much" not in kept
    assert isinstance(results[1], Exception)
    assert [r.repeated for r in results if not isinstance(r, Exception)][:2] == [False, False]
    if database.dialect == "postgresql":  # SQLite stores a NUL; the edge refuses it for both
        assert isinstance(results[3], Exception)


async def test_a_balance_is_the_sum_of_its_entries(database: Database) -> None:
    totals = [0, 99, 100, 4348, 10**9]
    await database.batch(credit_points, [credit(f"o{n}", total_minor=t) for n, t in enumerate(totals)])
    entries = await database.read(lambda c: entries_after(c, 0, 10))
    found = await database.read(lambda c: balance_of(c, "ada@example.com"))
    assert found is not None
    assert found.points == sum(entry.points for entry in entries) == sum(t // 100 for t in totals)


@pytest.mark.parametrize(
    ("currency", "total_minor", "points"),
    [("GBP", 4348, 43), ("JPY", 500, 500), ("KWD", 1999, 1), ("GBP", 99, 0)],
)
def test_points_are_whole_major_units(currency: str, total_minor: int, points: int) -> None:
    assert points_for(total_minor, currency) == points


@given(st.integers(0, 10**14), st.sampled_from(["GBP", "JPY", "KWD", "XAU", "CLF"]))
def test_points_never_exceed_what_was_spent(total_minor: int, currency: str) -> None:
    assert 0 <= points_for(total_minor, currency) <= total_minor


def test_an_address_is_normalised_to_lower_case_and_ascii() -> None:
    assert normalise("Ada.L@EXÄMPLE.com") == "ada.l@xn--exmple-cua.com"
