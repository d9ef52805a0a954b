"""One suite for both styles: the same orders and the same faults end in the same ledger.

Stock is ample, and each run is over when no order is in progress any more. A client is to tell the styles
apart by nothing but their name, so in calm runs the answers' codes are compared too.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from lab.control import call
from tests.conformance.ledger import Books
from tests.conformance.script import REFUSED, Placement, write_script
from tests.support.faults import HEAR_SOON, in_progress, make_whole, until
from tests.support.system import RESUME_SOON, LiveSystem, eventually, live_system

SEEDS = range(4)
STYLES = ("orchestration", "choreography")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSystem]:
    """One system for all runs: each counts what it adds."""
    quick = RESUME_SOON | HEAR_SOON | {"CHECKOUT_CALL_TIMEOUT_S": "0.5"}
    with live_system(tmp_path_factory.mktemp("conformance"), quick) as system:
        yield system


@pytest.mark.parametrize("seed", SEEDS)
def test_both_styles_end_in_the_same_ledger(system: LiveSystem, seed: int) -> None:
    told, heard = (_run(system, style, seed) for style in STYLES)
    assert [order["status"] for order in told["orders"]].count("completed") == len(told["orders"]) - 1
    assert told == heard
    system.audit()


def _run(system: LiveSystem, style: str, seed: int) -> dict[str, Any]:
    """Play the script in one style; what it has come to."""
    system.wait_ready()
    script = write_script(seed)
    books = Books(system)
    try:
        before = books.stock()
        with system.client("checkout") as checkout:
            order_ids: list[str] = []
            codes: list[list[int]] = []
            for number, placement in enumerate(script.placements):
                if number in script.faults:
                    _commit(system, *script.faults[number])
                answers = _place(system, f"{style}-{seed}-{number}", style, placement)
                order_ids.append(answers[0].json()["order_id"])
                if not script.faults and (len(answers) == 1 or placement.waits):
                    codes.append([answer.status_code for answer in answers])
                assert {answer.json()["order_id"] for answer in answers} == {order_ids[-1]}
            make_whole(system)
            system.wait_ready()
            eventually(lambda: not in_progress(checkout), 30, "no order is in progress")
            assert checkout.post(f"/checkouts/{order_ids[REFUSED]}/retry").is_success
            until(checkout, order_ids[REFUSED], "needs_attention")
        eventually(lambda: books.mailed(order_ids), 30, "all mail has arrived")
        return {
            "codes": codes,
            "orders": books.ledger(order_ids, calm=not script.faults),
            "allocated": +(books.stock() - before),
        }
    finally:
        books.close()
        make_whole(system)


def _commit(system: LiveSystem, verb: str, name: str) -> None:
    if verb in ("kill", "wipe"):
        system.wait_ready(name)
    call(system.lab, verb, name)


def _place(system: LiveSystem, key: str, style: str, placement: Placement) -> list[httpx.Response]:
    """Send the order, as often as the script says, at the same time; every answer is a 2xx at last."""
    body = dict(placement.body)
    headers = {"Idempotency-Key": f'"{key}"', "Prefer": placement.prefer}

    def send(_: int) -> httpx.Response:
        with system.client("checkout") as checkout:
            answer: httpx.Response = eventually(lambda: sent(checkout), 30, f"{key} is accepted")
            return answer

    def sent(checkout: httpx.Client) -> httpx.Response | None:
        answer = checkout.post("/checkouts", params={"style": style}, json=body, headers=headers)
        return answer if answer.is_success else None

    with ThreadPoolExecutor(placement.times) as clients:
        return list(clients.map(send, range(placement.times)))
