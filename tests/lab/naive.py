"""The three services as one fake, and a way to place orders with a naive arm: for the tests of both arms."""

import json
from collections.abc import Mapping

import httpx
from fastapi import FastAPI

from lab.bench.orders import prepare_orders
from lab.bench.stub import Answers
from lab.bench.wire import (
    ReplyReader,
    Request,
)

SETTINGS = {
    f"NAIVE_{name}_{kind}": f"http://{name.lower()}" if kind == "URL" else f"token-{name.lower()}"
    for name in ("EMAIL", "WAREHOUSE", "REWARDS")
    for kind in ("URL", "TOKEN")
}


class FakeServices:
    """Answers as the stubs do, but for the path that is told to fail, and writes down what it did.

    `effects`: the order ids by path, in the order in which they were acted on.
    """

    def __init__(self, failing: str | None = None) -> None:
        self.answers = Answers()
        self.commands: dict[str, dict[str, object]] = {}
        self.effects: dict[str, list[str]] = {"/emails": [], "/shipments": [], "/balances": []}
        self.tokens: set[str] = set()
        self.calls = 0
        self.failing = failing

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        command = json.loads(request.content)
        self.calls += 1
        self.commands[f"{request.url.host}{path}"] = command
        self.tokens.add(request.headers["authorization"])
        if path == self.failing:
            return httpx.Response(503, json={"title": "busy"})
        [reply] = ReplyReader().feed(self.answers.answer(Request(b"POST", path.encode(), request.content)))
        self.effects[path].append(command["order_id"])
        return httpx.Response(reply.status, content=reply.body)

    def client(self) -> httpx.AsyncClient:
        """A client whose every call this fake answers."""
        return httpx.AsyncClient(transport=httpx.MockTransport(self))


async def submit(app: FastAPI, body: bytes, key: str | None = None) -> httpx.Response:
    """Place one order, with an Idempotency-Key if one is given; an error of the application is a 500."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers: Mapping[str, str] = {"content-type": "application/json"} | (
        {} if key is None else {"Idempotency-Key": key}
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://checkout") as client:
        return await client.post("/checkouts?style=choreography", content=body, headers=headers)


def prepared(member: bool) -> bytes:
    """The body of an order, of a member of the rewards programme or of somebody else."""
    return next(order.body for order in prepare_orders(seed=1) if order.member is member)
