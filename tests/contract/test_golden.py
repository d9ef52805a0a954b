"""The three contracts between the conductor and the services, compared on both sides by golden files.

Each side declares its own view; only the files are shared. To change a contract is to change a file, and both
sides have to agree to it.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import email_svc.schemas
import rewards_svc.schemas
import warehouse_svc.schemas
from checkout.clients import MAX_REPLY_BYTES
from checkout.orchestration import CALLS
from checkout.orders import Order
from checkout.replies import RefusedError, Reply, judge
from checkout.schemas import COUNTRIES, EXAMPLE_REQUEST, MAX_QUANTITY, MAX_UNIT_PRICE_MINOR, CheckoutRequest
from tests.api.apps import CONDUCTOR, bearer, open_app
from tests.checkout.test_input import LARGEST

GOLDEN = Path(__file__).parent / "golden"
ORDER_ID = "019a5c3e-7c1b-7f3a-9d55-0c8f4e2b1a00"
NAMES = list(CALLS)
COMMANDS: dict[str, type[BaseModel]] = {
    "email": email_svc.schemas.SendConfirmation,
    "warehouse": warehouse_svc.schemas.PrepareShipment,
    "rewards": rewards_svc.schemas.CreditPoints,
}
Served = tuple[str, httpx.AsyncClient]
# What differs from run to run stands in the files by these names.
MADE_UP = ("shipment_id", "balance_id")


def golden(name: str) -> Any:
    return orjson.loads((GOLDEN / name).read_bytes())


def order_of(request: Any) -> Order:
    checked = CheckoutRequest.model_validate(request)
    return checked.to_order(ORDER_ID, "orchestration", "anonymous", datetime(2026, 11, 22, tzinfo=UTC))


def sent(name: str, request: Any) -> bytes:
    """What the conductor puts on the wire for an order."""
    return orjson.dumps(CALLS[name].command(order_of(request)))


@pytest.fixture(params=NAMES)
async def service(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[str, httpx.AsyncClient]]:
    """Each real service in turn, and a client of it that holds the conductor's token."""
    name: str = request.param
    async with open_app(name, tmp_path) as app:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        headers = {**bearer(CONDUCTOR), "Content-Type": "application/json"}
        async with httpx.AsyncClient(
            transport=transport, base_url=f"http://{name}.test", headers=headers
        ) as client:
            yield name, client


@pytest.mark.parametrize("name", NAMES)
def test_what_the_conductor_sends_is_the_golden_command(name: str) -> None:
    assert orjson.loads(sent(name, EXAMPLE_REQUEST)) == golden(f"{name}.command.json")


async def test_what_a_service_replies_to_the_golden_command_is_the_golden_reply(
    service: Served,
) -> None:
    name, client = service
    command = (GOLDEN / f"{name}.command.json").read_bytes()
    first = await client.post(CALLS[name].path, content=command)
    again = await client.post(CALLS[name].path, content=command)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.headers["content-type"] == "application/json"
    seen = {key: key.upper() if key in MADE_UP else value for key, value in first.json().items()}
    assert seen == golden(f"{name}.reply.json")
    assert again.json() == first.json()


@pytest.mark.parametrize("name", NAMES)
def test_the_conductor_reads_the_golden_reply(name: str) -> None:
    body = (GOLDEN / f"{name}.reply.json").read_bytes()
    reply = judge(name, 201, {"content-type": "application/json"}, body, CALLS[name].reply)
    assert isinstance(reply, Reply)
    assert reply.order_id == ORDER_ID
    assert reply.model_dump().items() <= golden(f"{name}.reply.json").items()


@pytest.mark.parametrize("name", NAMES)
def test_the_conductor_reads_only_what_it_uses_and_bears_what_is_new(name: str) -> None:
    used = {*CALLS[name].reply.model_fields}
    body = {key: value for key, value in golden(f"{name}.reply.json").items() if key in used}
    CALLS[name].reply.model_validate({**body, "newer": {"field": [1]}})
    for missing in used:
        with pytest.raises(ValueError, match=missing):
            CALLS[name].reply.model_validate({key: value for key, value in body.items() if key != missing})


@pytest.mark.parametrize("name", NAMES)
def test_a_service_bears_a_command_with_more_than_it_reads(name: str) -> None:
    command = golden(f"{name}.command.json")
    COMMANDS[name].model_validate(
        {**command, "newer": 1, "lines": [{**line, "newer": 2} for line in command.get("lines", [])]}
    )


async def test_a_refusal_of_the_warehouse_is_one_to_the_conductor(tmp_path: Path) -> None:
    request = {**EXAMPLE_REQUEST, "lines": [{"sku": "REFUSE-ME", "quantity": 1, "unit_price_minor": 1}]}
    async with open_app("warehouse", tmp_path) as app:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://warehouse.test") as client:
            headers = {**bearer(CONDUCTOR), "Content-Type": "application/json"}
            reply = await client.post("/shipments", content=sent("warehouse", request), headers=headers)
    with pytest.raises(RefusedError, match="sku-refused"):
        judge("warehouse", reply.status_code, reply.headers, reply.content, CALLS["warehouse"].reply)


async def test_the_largest_order_fits_into_the_services_and_their_replies_into_the_conductor(
    service: Served,
) -> None:
    name, client = service
    reply = await client.post(CALLS[name].path, content=sent(name, LARGEST))
    assert reply.status_code == 201
    assert len(reply.content) < MAX_REPLY_BYTES
    assert isinstance(judge(name, reply.status_code, reply.headers, reply.content, CALLS[name].reply), Reply)


CHARACTERS = st.characters(exclude_categories=["Cc", "Cs"])
TEXT = st.text(CHARACTERS, min_size=1, max_size=200)
REQUESTS = st.fixed_dictionaries(
    {
        "customer": st.fixed_dictionaries(
            {
                "name": TEXT,
                "email": st.emails() | st.sampled_from(["\u00e4da@b\u00fccher.example", "A.B+c@EXAMPLE.com"]),
                "rewards_member": st.booleans(),
            }
        ),
        "currency": st.sampled_from(["GBP", "JPY", "BHD", "XAU", "EUR"]),
        "lines": st.lists(
            st.fixed_dictionaries(
                {
                    "sku": st.text(CHARACTERS, min_size=1, max_size=64),
                    "quantity": st.integers(1, MAX_QUANTITY),
                    "unit_price_minor": st.integers(0, MAX_UNIT_PRICE_MINOR),
                }
            ),
            min_size=1,
            max_size=3,
        ),
        "ship_to": st.fixed_dictionaries(
            {"line1": TEXT, "city": TEXT, "country": st.sampled_from(sorted(COUNTRIES))},
            optional={name: st.none() | TEXT for name in ("name", "line2", "region", "postcode")},
        ),
    }
)


@settings(max_examples=150, deadline=None)
@given(request=REQUESTS)
def test_whatever_checkout_accepts_every_service_accepts(request: Any) -> None:
    try:
        CheckoutRequest.model_validate(request)
    except ValueError:
        reject()
    for name in NAMES:
        COMMANDS[name].model_validate_json(sent(name, request))
