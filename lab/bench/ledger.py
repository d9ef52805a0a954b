"""The ledger of a run: what clients were told, what the conductor stored, what the services were asked.

A run whose ledger does not balance has failed, whatever its speed: fast answers must be true ones.
It refuses to forgive: any reply that is not a completed order, in any arm, is a problem.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from lab.bench.arms import Arm
from lab.bench.children import BenchError, fetch
from lab.bench.generator import Measurement
from lab.bench.stub import SERVICES

ORDERS_METRIC = "orders"


@dataclass(slots=True)
class Account:
    """One arm's sums: orders that clients were told are completed, members' among them, calls by service."""

    orders: int = 0
    members: int = 0
    repeated_ids: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)

    def enter(self, measurement: Measurement, calls: Mapping[str, int]) -> None:
        """Adds one measurement, and the calls that the stub services counted during it."""
        self.orders += measurement.orders
        self.members += measurement.members
        self.repeated_ids += measurement.repeated_ids
        self.errors.update(measurement.errors)
        self.calls.update(calls)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The accounts by arm, the orders by status of each durable arm, and what does not add up."""

    accounts: Mapping[str, Account]
    stored: Mapping[str, Mapping[str, int]]
    problems: list[str]

    @property
    def balances(self) -> bool:
        """Whether every order that a client was told of is accounted for."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """The ledger as plain JSON values."""
        accounts = {
            arm: {
                "orders": account.orders,
                "members": account.members,
                "repeated_ids": account.repeated_ids,
                "errors": dict(account.errors),
                "calls": dict(account.calls),
            }
            for arm, account in self.accounts.items()
        }
        return {
            "balances": self.balances,
            "accounts": accounts,
            "stored": {arm: dict(counts) for arm, counts in self.stored.items()},
            "problems": self.problems,
        }


def reconcile(accounts: Mapping[str, Account], stored: Mapping[str, Mapping[str, int]]) -> Ledger:
    """The ledger of all arms; `stored` are the orders by status that each durable one took meanwhile."""
    problems = [f"{arm}: {problem}" for arm, account in accounts.items() for problem in _check(account)]
    for arm, counts in stored.items():
        problems += [f"{arm}: {problem}" for problem in _check_stored(accounts[arm].orders, counts)]
    return Ledger(accounts, stored, problems)


def _check_stored(told: int, counts: Mapping[str, int]) -> Iterable[str]:
    completed = counts.get("completed", 0)
    if completed != told:
        yield f"clients were told of {told} completed orders, its database holds {completed}"
    for status, count in counts.items():
        if status != "completed" and count:
            yield f"{count} orders are {status} in its database"


def _check(account: Account) -> Iterable[str]:
    for slug, count in account.errors.items():
        yield f"{count} orders ended as {slug}"
    if account.repeated_ids:
        yield f"{account.repeated_ids} orders had the id of an earlier one"
    if not account.orders:
        yield "no order was completed"
    for service in SERVICES:
        wanted = account.members if service == "rewards" else account.orders
        if account.calls[service] < wanted:
            yield f"{service} was called {account.calls[service]} times for {wanted} orders"


async def stored_orders(arm: Arm) -> dict[str, int]:
    """The conductor's orders by status, as its metrics read them from its database. Raises BenchError."""
    return orders_by_status((await fetch(arm.port, "/metrics")).body.decode())


def orders_by_status(exposition: str) -> dict[str, int]:
    """The orders by status in a Prometheus text exposition. Raises BenchError if it tells none."""
    for family in text_string_to_metric_families(exposition):
        if family.name == ORDERS_METRIC:
            return {sample.labels["status"]: int(sample.value) for sample in family.samples}
    raise BenchError(f"the conductor does not tell its orders by status: no {ORDERS_METRIC} in its /metrics")
