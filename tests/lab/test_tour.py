"""The tour of `make run`: one checkout in each style, side by side, for a terminal and for a log."""

import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.text import Text

from lab.errors import LabError
from lab.system import MAILBOX, Mail
from lab.tour import first_order
from tests.lab.fake_system import FakeSystem, make_fake

POINTS = {"balance_id": "balance-1", "points": 43}
SHIPMENT = {
    "shipment_id": "shipment-1",
    "state": "preparing",
    "lines": [{"sku": "BOOK-1", "quantity": 2}, {"sku": "PEN-7", "quantity": 1}],
    "ship_to": {"city": "London"},
}


@pytest.fixture
def fake(tmp_path: Path) -> FakeSystem:
    made = make_fake(tmp_path)
    made.pending = {"rewards": {"status": "succeeded", "attempts": 1, "result": POINTS}}
    return made


def with_pages(fake: FakeSystem) -> httpx.MockTransport:
    """The fake system, and what its services and its mailbox show of any order."""

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.port == fake.system.port(MAILBOX):
            subject = f"Your order {request.url.params['order']}"
            found = {"id": "mail-1", "subject": subject, "to": ["ada@example.com"]}
            return httpx.Response(200, json={"messages": [found]})
        if request.url.path.startswith("/shipments/"):
            return httpx.Response(200, json=SHIPMENT)
        if request.url.path.startswith("/balances/"):
            return httpx.Response(200, json={"balance_id": "balance-1", "points": 86})
        return fake.handle(request)

    return httpx.MockTransport(handle)


async def toured(fake: FakeSystem, capsys: pytest.CaptureFixture[str], mail: Mail = "smtp") -> str:
    await first_order(fake.system, mail, with_pages(fake))
    return capsys.readouterr().out


async def test_a_log_gets_plain_lines_for_each_style(
    fake: FakeSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    said = await toured(fake, capsys)
    first, second = said.index("order-0001, orchestration"), said.index("order-0002, choreography")
    assert first < second
    for order_id, part in (("order-0001", said[first:second]), ("order-0002", said[second:])):
        assert part.splitlines()[0].endswith("39.98 GBP: completed")
        lines = [line.split(maxsplit=1) for line in part.splitlines()[1:8]]
        assert [name for name, _ in lines] == [
            "acknowledged",
            "completed",
            "email",
            "warehouse",
            "rewards",
            "e-mail",
            "shipment",
        ]
        told = dict(lines)
        assert told["completed"] == "2000 ms after acceptance"
        assert told["warehouse"] == "succeeded, 1 try"
        assert told["e-mail"] == (
            f"“Your order {order_id}” to ada@example.com: http://127.0.0.1:8026/messages/mail-1"
        )
        assert told["shipment"] == "preparing, 3 units to London (shipment-1)"
        assert "points        43 for this order, 86 in all (balance-1)" in part


async def test_a_terminal_gets_both_side_by_side_within_80_columns(
    fake: FakeSystem, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    lines = Text.from_ansi(await toured(fake, capsys)).plain.splitlines()
    assert [line for line in lines if "orchestration" in line and "choreography" in line]
    shipments = next(line for line in lines if "shipment" in line)
    assert shipments.count("preparing, 3 units to London") == 2
    assert [line for line in lines if len(line) > 80] == []
    assert any(line.endswith("http://127.0.0.1:8000/checkouts/order-0002") for line in lines)


async def test_each_style_is_asked_for_by_name_and_both_ids_are_noted_for_the_audit(
    fake: FakeSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    await toured(fake, capsys)
    posts = fake.posts("/checkouts")
    assert [post.url.params["style"] for post in posts] == ["orchestration", "choreography"]
    assert posts[0].content == posts[1].content
    assert fake.system.accepted_file.read_text().split() == ["order-0001", "order-0002"]


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (
            {"status": "failed", "attempts": 5, "reason": "too-late"},
            "none yet: the step is failed (too-late)",
        ),
        (None, "none yet: nobody is known to do it"),
    ],
)
async def test_what_has_not_come_about_is_said_to_be_missing(
    fake: FakeSystem,
    capsys: pytest.CaptureFixture[str],
    step: dict[str, Any] | None,
    told: str,
) -> None:
    if step is None:
        fake.pending = {}
        added = fake.add
        fake.add = lambda **given: forget_rewards(fake, added(**given))  # type: ignore[method-assign]
    else:
        fake.pending = {"rewards": step}
    assert f"points        {told}" in await toured(fake, capsys)


def forget_rewards(fake: FakeSystem, order_id: str) -> str:
    del fake.orders[order_id]["steps"]["rewards"]
    return order_id


async def test_without_mail_nobody_looks_for_it(fake: FakeSystem, capsys: pytest.CaptureFixture[str]) -> None:
    assert "recorded; --mail null sends none" in await toured(fake, capsys, "null")


async def test_an_order_that_is_refused_ends_the_tour_with_the_reason(fake: FakeSystem) -> None:
    fake.trouble = [lambda request, _: httpx.Response(422, json={"title": "Not today"})]
    with pytest.raises(LabError, match="by orchestration was not accepted: Not today"):
        await first_order(fake.system, "null", with_pages(fake))
