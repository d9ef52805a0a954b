"""The open-loop generator before a checkout that is not ours: its address, its manners, its connections."""

import asyncio
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from lab.bench import arrivals, connections
from lab.bench.arrivals import OpenPlan, intended_times, run_open
from lab.bench.orders import prepare_orders
from lab.bench.wire import Request
from tests.lab.fake_checkout import fake_checkout, reply

ORDERS = prepare_orders(seed=1, count=20)
CLOSE = b"Connection: close\r\n"


def a_plan(port: int, folder: Path) -> OpenPlan:
    return OpenPlan(port, "", 200.0, 0.0, 0.5, 3, {}, str(folder / "rows"))


def accept(_: Request, number: int) -> bytes:
    return reply(202, f"o-{number}")


@pytest.mark.parametrize(("rate", "total_s", "count"), [(100, 6, 600), (3, 1, 3), (0.5, 10, 5)])
def test_constant_arrivals_are_evenly_spaced_and_as_many_as_the_rate_says(
    rate: float, total_s: float, count: int
) -> None:
    times = intended_times(rate, total_s, seed=7, arrivals="constant")
    assert len(times) == count
    assert [later - at for at, later in itertools.pairwise(times)] == pytest.approx([1 / rate] * (count - 1))
    assert 0 < times[0] < times[-1] < total_s


async def test_a_plan_of_constant_arrivals_is_carried_out(tmp_path: Path) -> None:
    async with fake_checkout(accept) as fake:
        found = await run_open(replace(a_plan(fake.port, tmp_path), arrivals="constant"), ORDERS)
    rows = sorted(row[1] for row in json.loads((tmp_path / "rows").read_bytes()))
    assert found.accepted == found.due == 100
    assert [later - at for at, later in itertools.pairwise(rows)] == pytest.approx([0.005] * 99, abs=1e-5)


async def test_orders_go_to_the_address_that_is_told_with_its_token_and_preference(tmp_path: Path) -> None:
    async with fake_checkout(accept, host="::1") as fake:
        plan = replace(a_plan(fake.port, tmp_path), host="::1", path="/shop/v2", token="t0k", prefer="wait=5")
        found = await run_open(replace(plan, style="orchestration"), ORDERS)
    assert found.accepted == found.due > 0
    assert set(fake.paths) == {b"/shop/v2/checkouts?style=orchestration"}
    for request in fake.heard:
        head = request.partition(b"\r\n\r\n")[0].split(b"\r\n")
        assert f"Host: [::1]:{fake.port}".encode() in head
        assert b"Authorization: Bearer t0k" in head
        assert b"Prefer: wait=5" in head


async def test_without_a_style_and_a_token_none_is_sent_and_any_order_is_accepted(tmp_path: Path) -> None:
    numbers = itertools.count(1)

    def bare(*_: object) -> bytes:
        body = b'{"order_id":"o-%d"}' % next(numbers)
        return b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    async with fake_checkout(bare) as fake:
        found = await run_open(a_plan(fake.port, tmp_path), ORDERS)
    assert (found.accepted, found.errors) == (found.due, {})
    assert set(fake.paths) == {b"/checkouts"}
    assert not any(b"Authorization" in request for request in fake.heard)


async def test_what_is_answered_202_is_counted_beside_what_is_finished(tmp_path: Path) -> None:
    async with fake_checkout(lambda _, number: reply(201 + number % 2, f"o-{number}")) as fake:
        found = await run_open(a_plan(fake.port, tmp_path), ORDERS)
    assert (found.accepted, found.errors) == (found.due, {})
    assert found.handed_in == (found.due + 1) // 2 > 10


async def test_an_order_id_that_was_given_out_before_is_no_second_order(tmp_path: Path) -> None:
    body = b'{"order_id":"o-1"}'
    same = b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with fake_checkout(lambda *_: same) as fake:
        found = await run_open(a_plan(fake.port, tmp_path), ORDERS)
    assert (found.accepted, found.errors) == (1, {"repeated-id": found.due - 1})


async def test_an_order_id_that_is_no_text_is_no_checkout(tmp_path: Path) -> None:
    body = b'{"order_id":17,"style":"x"}'
    odd = b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with fake_checkout(lambda *_: odd) as fake:
        found = await run_open(a_plan(fake.port, tmp_path), ORDERS)
    assert found.errors == {"not-a-checkout": found.due}


async def test_a_server_that_closes_after_every_answer_gets_every_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "CONNECTIONS", 4)
    async with fake_checkout(lambda _, number: reply(202, f"o-{number}", headers=CLOSE)) as fake:
        found = await run_open(a_plan(fake.port, tmp_path), ORDERS)
    assert (found.accepted, found.errors) == (found.due, {})
    assert len(fake.connections) >= found.due


async def test_connections_that_the_server_closes_while_they_are_idle_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "CONNECTIONS", 4)
    monkeypatch.setattr(connections, "LEAST_IDLE_S", 0.01)
    async with fake_checkout(accept) as fake:
        plan = replace(a_plan(fake.port, tmp_path), rate=10.0, measured_s=1.0, arrivals="constant")
        asyncio.get_running_loop().call_later(arrivals.LEAD_S + 0.5, fake.hang_up)  # between two orders
        found = await run_open(plan, ORDERS)
    assert (found.accepted, found.errors) == (10, {})
    assert len(fake.connections) == 8


async def test_a_server_that_hangs_up_on_whoever_comes_is_not_besieged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "CONNECTIONS", 4)
    async with fake_checkout(accept) as fake:
        asyncio.get_running_loop().call_later(arrivals.LEAD_S / 2, fake.hang_up)
        found = await run_open(a_plan(fake.port, tmp_path), ORDERS)
    assert found.errors == {"no-connection": found.due}
    assert len(fake.connections) == 4


async def test_a_server_that_is_gone_for_good_fails_the_orders_that_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "CONNECTIONS", 1)
    server = await asyncio.get_running_loop().create_server(OneOrder, "127.0.0.1", 0)
    OneOrder.server = server
    async with server:
        found = await run_open(a_plan(server.sockets[0].getsockname()[1], tmp_path), ORDERS)
    assert (found.accepted, found.errors) == (1, {"no-connection": found.due - 1})


class OneOrder(asyncio.Protocol):
    """Takes one order, stops listening, and says goodbye."""

    server: asyncio.Server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.server.close()
        self._transport.write(reply(202, "o-1", headers=CLOSE))
        self._transport.close()
