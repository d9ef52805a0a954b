"""The e-mail service's routes: outcomes, roles and problems."""

from typing import Any

import iso4217
import pytest

from email_svc.confirmations import Settlement, claim_due, settle
from email_svc.confirmations import confirmation as stored
from email_svc.messages import compose
from servicekit.db import Database
from tests.email_svc.conftest import CONDUCTOR, OPERATOR, Service
from tests.email_svc.test_delivery import POLICY

COMMAND: dict[str, Any] = {
    "order_id": "o1",
    "customer": {"name": "Ada Lovelace", "email": "ada@example.com", "rewards_member": True},
    "currency": "GBP",
    "total_minor": 4348,
    "lines": [
        {"sku": "BOOK-1", "quantity": 2, "unit_price_minor": 1999, "colour": "red"},
        {"sku": "PEN-7", "quantity": 1, "unit_price_minor": 350},
    ],
    "ship_to": {
        "name": "Ada Lovelace",
        "line1": "12 St James Sq",
        "line2": None,
        "city": "London",
        "region": None,
        "postcode": "SW1Y 4JH",
        "country": "GB",
    },
    "something_newer": 1,
}


async def test_the_first_command_answers_201_and_a_repeat_200_and_the_first_body_wins(
    service: Service, sqlite: Database
) -> None:
    eve = COMMAND | {"customer": {"name": "Eve", "email": "eve@example.com"}}
    first = await service.client.post("/emails", json=COMMAND, headers=CONDUCTOR)
    again = await service.client.post("/emails", json=eve, headers=CONDUCTOR)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() == {"order_id": "o1", "delivery": "queued"}
    assert service.woken == [True]
    row = await sqlite.read(lambda c: stored(c, "o1"))
    assert row is not None
    assert row.recipient == "ada@example.com"


async def test_a_repeat_and_the_operator_see_how_the_delivery_stands(
    service: Service, sqlite: Database
) -> None:
    await service.client.post("/emails", json=COMMAND, headers=CONDUCTOR)
    await sqlite.write(lambda c: claim_due(c, 10, 60))
    await sqlite.batch(settle, [Settlement("o1", 1, "bounced", "550 no such user")])
    again = await service.client.post("/emails", json=COMMAND, headers=CONDUCTOR)
    assert (again.status_code, again.json()["delivery"]) == (200, "bounced")
    shown = (await service.client.get("/emails/o1", headers=OPERATOR)).json()
    assert (shown["to"], shown["delivery"], shown["attempts"]) == ("ada@example.com", "bounced", 1)
    assert shown["reason"] == "550 no such user"
    assert shown["delivered_at"] is None


async def test_the_operator_pages_through_the_effects(service: Service) -> None:
    for n in range(3):
        await service.client.post("/emails", json=COMMAND | {"order_id": f"o{n}"}, headers=CONDUCTOR)
    page = (await service.client.get("/effects?limit=2", headers=OPERATOR)).json()
    rest = (await service.client.get(f"/effects?limit=2&cursor={page['next']}", headers=OPERATOR)).json()
    assert [effect["order_id"] for effect in page["effects"] + rest["effects"]] == ["o0", "o1", "o2"]
    assert rest["next"] is None
    assert page["effects"][0]["at"].endswith("Z")


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "cursor=x", "cursor=LTE"])
async def test_a_page_that_cannot_be_is_refused(service: Service, query: str) -> None:
    reply = await service.client.get(f"/effects?{query}", headers=OPERATOR)
    assert reply.status_code == 422


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("POST", "/emails", "conductor"),
        ("GET", "/emails/x", "operator"),
        ("GET", "/effects", "operator"),
    ],
)
async def test_each_route_opens_to_its_own_role_alone(
    service: Service, method: str, path: str, role: str
) -> None:
    body: dict[str, Any] = {"json": COMMAND} if method == "POST" else {}
    wrong = {"operator": CONDUCTOR, "conductor": OPERATOR}[role]
    right = {"operator": OPERATOR, "conductor": CONDUCTOR}[role]
    stranger = {"Authorization": "Bearer not-a-token"}
    assert (await service.client.request(method, path, **body)).status_code == 401
    assert (await service.client.request(method, path, headers=stranger, **body)).status_code == 401
    assert (await service.client.request(method, path, headers=wrong, **body)).status_code == 403
    assert (await service.client.request(method, path, headers=right, **body)).status_code in (200, 201, 404)


def customer(**changes: str) -> dict[str, Any]:
    return {"customer": COMMAND["customer"] | changes}


def line(**changes: object) -> dict[str, Any]:
    return {"lines": [COMMAND["lines"][0] | changes]}


def ship_to(**changes: object) -> dict[str, Any]:
    return {"ship_to": COMMAND["ship_to"] | changes}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"order_id": ""}, "#/order_id"),
        ({"order_id": "a\nb"}, "#/order_id"),
        ({"order_id": "a@b>"}, "#/order_id"),
        ({"order_id": "x" * 65}, "#/order_id"),
        (customer(email="a@x.org, b@x.org"), "#/customer/email"),
        (customer(email="Ada <ada@example.com>"), "#/customer/email"),
        (customer(email="ada@example.com\r\nBcc: b@example.com"), "#/customer/email"),
        (customer(email="ada"), "#/customer/email"),
        (customer(name=""), "#/customer/name"),
        (customer(name="Ada\r\nBcc: b@x.org"), "#/customer/name"),
        (customer(name="Ada\x00"), "#/customer/name"),
        (customer(name="x" * 201), "#/customer/name"),
        ({"currency": "GBX"}, "#/currency"),
        ({"currency": "gbp"}, "#/currency"),
        ({"total_minor": -1}, "#/total_minor"),
        ({"total_minor": "1"}, "#/total_minor"),
        ({"total_minor": 2**63}, "#/total_minor"),
        ({"lines": []}, "#/lines"),
        ({"lines": COMMAND["lines"] * 51}, "#/lines"),
        (line(quantity=0), "#/lines/0/quantity"),
        (line(quantity=10_001), "#/lines/0/quantity"),
        (line(quantity=1.5), "#/lines/0/quantity"),
        (line(unit_price_minor=-1), "#/lines/0/unit_price_minor"),
        (line(unit_price_minor=100_000_001), "#/lines/0/unit_price_minor"),
        (line(sku="x\x1b[2J"), "#/lines/0/sku"),
        (ship_to(country="Atlantis"), "#/ship_to/country"),
        (ship_to(city=None), "#/ship_to/city"),
    ],
)
async def test_a_bad_field_is_named_by_its_pointer_and_nothing_is_recorded(
    service: Service, change: dict[str, Any], pointer: str
) -> None:
    for _ in range(2):
        reply = await service.client.post("/emails", json=COMMAND | change, headers=CONDUCTOR)
        assert reply.status_code == 422
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.json()["type"].endswith("/problems/email/validation-error")
        assert [error["pointer"] for error in reply.json()["errors"]] == [pointer]
    assert (await service.client.get("/effects", headers=OPERATOR)).json()["effects"] == []


async def test_the_largest_order_is_taken_and_its_message_can_be_made(
    service: Service, sqlite: Database
) -> None:
    lines = [{"sku": "🛒" * 64, "quantity": 10_000, "unit_price_minor": 100_000_000}] * 100
    place = dict.fromkeys(("name", "line1", "line2", "city", "region", "postcode"), "Ł" * 200)
    command = {
        "order_id": "x" * 64,
        "customer": {"name": "Ü" * 200, "email": f"{'ü' * 20}@{'ä' * 20}.example.com"},
        "currency": "KWD",
        "total_minor": 10**14,
        "lines": lines,
        "ship_to": place | {"country": "GB"},
    }
    for status in (201, 200):
        reply = await service.client.post("/emails", json=command, headers=CONDUCTOR)
        assert reply.status_code == status
        assert len(reply.content) < 65_536
    (claim,) = await sqlite.write(lambda c: claim_due(c, 1, 60))
    assert len(compose(claim, POLICY.sender).payload) < 1_000_000


async def test_every_currency_of_the_list_is_taken(service: Service) -> None:
    for currency in iso4217.Currency:
        command = COMMAND | {"order_id": currency.code, "currency": currency.code}
        reply = await service.client.post("/emails", json=command, headers=CONDUCTOR)
        assert reply.status_code == 201


async def test_a_shipping_name_is_the_customer_s_if_absent(service: Service, sqlite: Database) -> None:
    command = COMMAND | {"ship_to": {"line1": "1 Rd", "city": "Cork", "country": "IE"}}
    await service.client.post("/emails", json=command, headers=CONDUCTOR)
    (claim,) = await sqlite.write(lambda c: claim_due(c, 1, 60))
    assert claim.confirmation.ship_to == ("Ada Lovelace", "1 Rd", "Cork", "IE")


@pytest.mark.parametrize("order_id", ["nobody", "%00", "a%0Ab"])
async def test_an_unknown_order_has_no_confirmation(service: Service, order_id: str) -> None:
    reply = await service.client.get(f"/emails/{order_id}", headers=OPERATOR)
    assert reply.status_code in (404, 422)
    assert reply.headers["content-type"] == "application/problem+json"


async def metrics(service: Service) -> dict[str, float]:
    text = (await service.client.get("/metrics")).text
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def test_metrics_count_confirmations_and_what_is_undelivered(
    service: Service, sqlite: Database
) -> None:
    for order_id in ("o1", "o1", "o2"):
        await service.client.post("/emails", json=COMMAND | {"order_id": order_id}, headers=CONDUCTOR)
    figures = await metrics(service)
    assert figures['email_confirmations_total{repeated="false"}'] == 2
    assert figures['email_confirmations_total{repeated="true"}'] == 1
    assert figures["undelivered_emails"] == 2
    assert 0 <= figures["undelivered_emails_oldest_seconds"] < 60
    await sqlite.batch(settle, [Settlement("o1", 0, "sent"), Settlement("o2", 0, "bounced", "550")])
    assert (await metrics(service))["undelivered_emails"] == 0


@pytest.mark.parametrize("service", ["null:"], indirect=True)
async def test_without_a_mail_server_confirmations_are_recorded_and_none_is_undelivered(
    service: Service, sqlite: Database
) -> None:
    for status in (201, 200):
        reply = await service.client.post("/emails", json=COMMAND, headers=CONDUCTOR)
        assert (reply.status_code, reply.json()["delivery"]) == (status, "queued")
    assert (await metrics(service))["undelivered_emails"] == 0
    assert await sqlite.write(lambda c: claim_due(c, 10, 60)) == []


async def test_the_service_is_ready_while_no_mail_server_answers(service: Service) -> None:
    assert (await service.client.get("/readyz")).status_code == 200
