"""What the proofs of changes share: one line of JSON and an exit code, whatever the system does."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from nats.errors import NoRespondersError

from lab.change.proving import (
    Asked,
    NotProvedError,
    Shown,
    ask,
    fetch,
    fetch_all,
    place,
    prove,
    submit,
    tell,
    until_final,
)
from lab.client import RefusedError
from lab.errors import LabError
from lab.samples import mixed_order, sample_order
from lab.synced import read_lines
from tests.lab.fake_system import FakeSystem, lost_reply, make_fake

Check = Callable[[Asked], Awaitable[Shown]]
Prove = Callable[..., tuple[int, dict[str, Any]]]


@dataclass(frozen=True)
class Told(Shown):
    """Another shape of what is shown."""

    orders: int = 0

    def as_document(self) -> dict[str, Any]:
        return {"proved": self.proved, "how": self.what, "orders": self.orders}


@pytest.fixture
def fake(tmp_path: Path) -> FakeSystem:
    return make_fake(tmp_path)


@pytest.fixture
def asked(fake: FakeSystem) -> Asked:
    return Asked(fake.system, "choreography", fake.client)


@pytest.fixture
def proved(fake: FakeSystem, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Prove:
    """Runs a check as its program would be called: the exit code, and the one line that it prints."""

    def run(check: Check, kind: type[Shown] = Shown) -> tuple[int, dict[str, Any]]:
        told = ["--port-base", "8000", "--data", str(fake.system.data), "--style", "choreography"]
        monkeypatch.setattr("sys.argv", ["proof.py", *told])
        with pytest.raises(SystemExit) as ended:
            prove(check, kind, fake.transport)
        [line] = capsys.readouterr().out.splitlines()
        return int(str(ended.value.code)), json.loads(line)

    return run


def raising(error: Exception) -> Check:
    async def check(asked: Asked) -> Shown:
        raise error

    return check


def test_what_a_check_shows_is_printed_and_decides_the_exit_code(proved: Prove) -> None:
    async def check(asked: Asked) -> Shown:
        return Shown(asked.style == "choreography", f"port {asked.system.port_base}.")

    async def disproves(asked: Asked) -> Shown:
        return Shown(False, "nothing.")

    assert proved(check) == (0, {"proved": True, "what": "port 8000."})
    assert proved(disproves) == (1, {"proved": False, "what": "nothing."})


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (NotProvedError("it is not so."), "it is not so."),
        (LabError("no tokens\n  anywhere"), "no tokens anywhere."),
        (NoRespondersError(), "nats: no responders available for request."),
        (TimeoutError(), "it did not come to an end within 170 s."),
    ],
)
def test_trouble_is_told_in_its_own_words_as_a_sentence(proved: Prove, error: Exception, what: str) -> None:
    assert proved(raising(error)) == (1, {"proved": False, "what": what})


def test_trouble_is_printed_in_the_shape_of_what_would_have_been_shown(proved: Prove) -> None:
    code, line = proved(raising(LabError("no.")), Told)
    assert (code, line) == (1, {"proved": False, "how": "no.", "orders": 0})


def test_a_defect_of_the_proof_keeps_its_traceback(fake: FakeSystem, proved: Prove) -> None:
    with pytest.raises(KeyError):
        proved(raising(KeyError("status")))


def test_a_system_that_is_not_there_proves_nothing(fake: FakeSystem, proved: Prove) -> None:
    def refuse(request: httpx.Request) -> None:
        raise httpx.ConnectError("refused", request=request)

    async def check(asked: Asked) -> Shown:
        return await asyncio.sleep(0, Shown(True, "it was not even asked."))

    fake.before = refuse
    code, line = proved(check)
    assert (code, line["proved"]) == (1, False)
    assert "is duet up running?" in line["what"]


async def test_placed_orders_are_of_the_style_and_noted_for_the_audit(fake: FakeSystem, asked: Asked) -> None:
    outcome = await place(asked, [mixed_order(number) for number in range(5)])
    assert outcome.all_accepted
    assert outcome.finished["completed"] == 5
    assert {order["style"] for order in fake.orders.values()} == {"choreography"}
    assert set(read_lines(fake.system.accepted_file)) == set(fake.orders)


async def test_an_order_whose_answer_is_lost_is_submitted_again_and_never_twice(
    fake: FakeSystem, asked: Asked
) -> None:
    fake.trouble.append(lost_reply)
    answer = await submit(asked, sample_order(), "wait=10")
    assert [*fake.orders] == read_lines(fake.system.accepted_file) == [answer.body["order_id"]]
    assert {sent.headers["Prefer"] for sent in fake.posts("/checkouts")} == {"wait=10"}


async def test_a_refused_order_is_an_error_and_is_not_noted(fake: FakeSystem, asked: Asked) -> None:
    with pytest.raises(RefusedError):
        await submit(asked, {})
    assert read_lines(fake.system.accepted_file) == []


async def test_orders_are_read_anew_once_they_are_final(fake: FakeSystem, asked: Asked) -> None:
    fake.looks = 1
    ids = [(await submit(asked, sample_order())).body["order_id"] for _ in range(2)]
    assert len(set(ids)) == 2
    assert [order["status"] for order in await until_final(asked, ids)] == ["completed"] * 2


async def test_an_order_that_is_not_final_in_time_disproves(fake: FakeSystem, asked: Asked) -> None:
    fake.looks = 9
    order_id = (await submit(asked, sample_order())).body["order_id"]
    with pytest.raises(NotProvedError, match="still in progress"):
        await until_final(asked, [order_id], within_s=-1.0)


async def test_a_service_is_asked_as_the_operator_and_told_as_the_conductor(
    fake: FakeSystem, asked: Asked
) -> None:
    order_id = fake.add(style="choreography")
    assert (await tell(asked, "rewards", "/balances", {"order_id": order_id})).status == 201
    assert (await ask(asked, "rewards", "/balances", {"order_id": order_id})).status == 401
    assert (await fetch(asked, "checkout", f"/checkouts/{order_id}"))["order_id"] == order_id
    with pytest.raises(RefusedError):
        await fetch(asked, "checkout", "/checkouts/unknown")


async def test_all_pages_are_fetched(fake: FakeSystem, asked: Asked) -> None:
    ids = [fake.add() for _ in range(5)]
    told = await fetch_all(asked, "email", "/effects", "effects")
    assert [each["order_id"] for each in told] == ids
