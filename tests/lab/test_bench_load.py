"""The bench's load generator and stub services: their HTTP, their counts, what is no success."""

import asyncio
import json

import pytest

from lab.bench.generator import Plan, Tally, measure
from lab.bench.orders import prepare_orders
from lab.bench.stub import Answers, listen
from lab.bench.wire import (
    MalformedMessage,
    Reply,
    ReplyReader,
    Request,
    RequestReader,
    encode_reply,
    encode_request,
)


def test_a_reply_cut_anywhere_is_read_as_one() -> None:
    wire = encode_reply(201, b'{"order_id":"1"}')
    for cut in range(1, len(wire)):
        reader = ReplyReader()
        assert [*reader.feed(wire[:cut]), *reader.feed(wire[cut:])] == [Reply(201, b'{"order_id":"1"}', True)]


def test_replies_in_one_read_come_out_in_order() -> None:
    wire = encode_reply(200, b"1") + encode_reply(404, b"22")
    assert ReplyReader().feed(wire) == [Reply(200, b"1", True), Reply(404, b"22", True)]


def test_a_chunked_reply_is_put_together() -> None:
    wire = b'HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n4\r\n":1}\r\n0\r\n\r\n'
    assert ReplyReader().feed(wire) == [Reply(201, b'{"a":1}', True)]


def test_a_reply_that_closes_the_connection_says_so() -> None:
    wire = b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    assert ReplyReader().feed(wire) == [Reply(503, b"", False)]


@pytest.mark.parametrize("wire", [b"SMTP is another protocol\r\n", b"HTTP/1.1 abc\r\n\r\n"])
def test_what_is_not_http_is_malformed(wire: bytes) -> None:
    with pytest.raises(MalformedMessage):
        ReplyReader().feed(wire)


def test_a_body_over_the_limit_is_malformed() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n"
    with pytest.raises(MalformedMessage):
        ReplyReader().feed(head + b"x" * 1_100_000)


def test_what_the_generator_encodes_the_stub_reads() -> None:
    wire = encode_request("POST", "/emails", 8001, b'{"order_id":"1"}', token="secret")
    reader = RequestReader()
    cut = reader.feed(wire[:10]) + reader.feed(wire[10:] + encode_request("GET", "/readyz", 8001))
    assert cut == [Request(b"POST", b"/emails", b'{"order_id":"1"}'), Request(b"GET", b"/readyz", b"")]


def test_the_same_seed_gives_the_same_orders_and_four_in_five_are_of_members() -> None:
    orders = prepare_orders(seed=1)
    assert orders == prepare_orders(seed=1)
    assert orders != prepare_orders(seed=2)
    assert sum(order.member for order in orders) == 0.8 * len(orders)
    assert all(json.loads(o.body)["customer"]["rewards_member"] is o.member for o in orders)


@pytest.mark.parametrize(
    ("path", "command", "fields"),
    [
        (b"/emails", {}, {"delivery"}),
        (b"/shipments", {}, {"shipment_id", "state"}),
        (b"/balances", {"total_minor": 4399}, {"balance_id", "points", "balance"}),
    ],
)
def test_a_stub_answers_a_command_in_the_shape_of_its_service(
    path: bytes, command: dict[str, object], fields: set[str]
) -> None:
    answers = Answers()
    wire = answers.answer(Request(b"POST", path, json.dumps({"order_id": "o-1", **command}).encode()))
    [reply] = ReplyReader().feed(wire)
    body = json.loads(reply.body)
    assert reply.status == 201
    assert body.pop("order_id") == "o-1"
    assert set(body) == fields
    assert answers.counts.total() == 1


@pytest.mark.parametrize("body", [b"", b"[]", b'{"id": 1}', b"{"])
def test_a_stub_refuses_a_command_without_an_order_id_and_does_not_count_it(body: bytes) -> None:
    answers = Answers()
    [reply] = ReplyReader().feed(answers.answer(Request(b"POST", b"/balances", body)))
    assert reply.status == 422
    assert not answers.counts


def plan(port: int, clients: int = 4) -> Plan:
    return Plan("stub", port, clients, warm_up_s=0.0, measured_s=0.05, seed=1, processes={})


async def test_the_generator_gets_an_answer_for_every_order_it_sends() -> None:
    server, port = await listen(Answers())
    async with server:
        seen: set[str] = set()
        found = await measure(plan(port), prepare_orders(seed=1), seen)
    assert found.errors == {}
    assert found.orders >= 4
    assert found.orders == len(seen)
    assert 0 < found.members <= found.orders
    assert 0 < found.latency_ms["p50"] <= found.latency_ms["p99"] <= found.latency_ms["max"]
    assert set(found.cpu_s) == {"generator", "others"}
    assert all(spent >= 0 for spent in found.cpu_s.values())


class Peculiar(asyncio.Protocol):
    """A server that answers each read with the same bytes, or hangs up if there are none."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._answer:
            self._transport.write(self._answer)
        else:
            self._transport.close()


@pytest.mark.parametrize(
    ("answer", "slug"),
    [
        (b"", "connection-lost"),
        (b"nonsense\r\n", "malformed-reply"),
        (encode_reply(422, b"{}"), "status-422"),
        (encode_reply(200, b'{"order_id":"1","status":"completed"}'), "status-200"),
        (encode_reply(201, b'{"order_id":"1","status":"needs_attention"}'), "order-needs_attention"),
        (encode_reply(201, b"not json"), "not-a-checkout"),
        (encode_reply(201, b'{"status":"completed"}'), "not-a-checkout"),
        (b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "status-503"),
    ],
)
async def test_the_generator_counts_nothing_but_completed_orders_as_success(answer: bytes, slug: str) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Peculiar(answer), "127.0.0.1", 0)
    async with server:
        found = await measure(plan(server.sockets[0].getsockname()[1]), prepare_orders(seed=1), set())
    assert found.orders == 0
    assert found.errors[slug] >= 1
    assert found.latency_ms == {}


async def test_the_generator_tells_when_an_order_id_comes_twice() -> None:
    same = encode_reply(201, b'{"order_id":"1","status":"completed"}')
    server = await asyncio.get_running_loop().create_server(lambda: Peculiar(same), "127.0.0.1", 0)
    async with server:
        found = await measure(plan(server.sockets[0].getsockname()[1]), prepare_orders(seed=1), set())
    assert found.repeated_ids == found.orders - 1


async def test_the_generator_refuses_a_port_where_nobody_listens() -> None:
    server, port = await listen(Answers())
    server.close()
    await server.wait_closed()
    with pytest.raises(OSError, match="onnect"):
        await measure(plan(port), prepare_orders(seed=1), set())


def test_latency_counts_orders_sent_in_the_measured_time_and_rate_those_completed_in_it() -> None:
    tally = Tally(set(), opens_at=10.0, closes_at=20.0)
    times = [(9.0, 9.5), (9.9, 10.1), (15.0, 15.2), (19.9, 20.4)]
    for number, (sent_at, now) in enumerate(times):
        body = json.dumps({"order_id": str(number), "status": "completed"}).encode()
        assert tally.record(Reply(201, body, True), True, sent_at, now) is None
    assert (tally.orders, tally.measured) == (4, 2)
    assert tally.latencies_ms == pytest.approx([200, 500])
