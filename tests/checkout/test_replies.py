"""What each class of reply means: success, refusal, trouble, or a call that went astray."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkout.replies import CallError, MisroutedError, RefusedError, Reply, TroubleError, judge

JSON = {"content-type": "application/json"}
PROBLEM = {"content-type": "application/problem+json"}
GOOD = b'{"order_id": "o1", "state": "preparing"}'


class ShipmentLike(Reply):
    """A reply with one field in use."""

    state: str


def verdict(status: int, headers: dict[str, str], body: bytes) -> CallError | Reply:
    try:
        return judge("warehouse", status, headers, body, ShipmentLike)
    except CallError as error:
        return error


def problem(kind: Any) -> bytes:
    return orjson.dumps({"type": kind, "title": "No", "status": 422})


OWN = problem("http://w.test/problems/warehouse/sku-refused")


@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=utf-8", "application/json ;v=1"]
)
def test_a_good_reply_is_a_success(status: int, content_type: str) -> None:
    assert verdict(status, {"content-type": content_type}, GOOD) == ShipmentLike(
        order_id="o1", state="preparing"
    )


def test_fields_that_the_conductor_does_not_know_are_passed_over() -> None:
    reply = verdict(200, JSON, b'{"order_id": "o1", "state": "x", "carrier": {"a": [1]}}')
    assert isinstance(reply, ShipmentLike)
    assert reply.model_dump() == {"state": "x"}


@pytest.mark.parametrize(
    ("status", "headers", "body", "slug"),
    [
        (200, {}, GOOD, "reply-wrong-content-type"),
        (200, {"content-type": "text/html"}, GOOD, "reply-wrong-content-type"),
        (200, PROBLEM, GOOD, "reply-wrong-content-type"),
        (200, {"content-type": "application/jsonp"}, GOOD, "reply-wrong-content-type"),
        (200, JSON, b"", "reply-malformed"),
        (200, JSON, GOOD[:-1], "reply-malformed"),
        (200, JSON, GOOD + GOOD, "reply-malformed"),
        (200, JSON, b"\xff" + GOOD, "reply-malformed"),
        (200, JSON, b'{"order_id": "o1", "state": NaN}', "reply-malformed"),
        (200, JSON, b'{"order_id": "o1", "state": "\\ud800"}', "reply-malformed"),
        (200, JSON, b"[" * 10_000, "reply-malformed"),
        (200, JSON, b"[]", "reply-wrong-shape"),
        (200, JSON, b"null", "reply-wrong-shape"),
        (200, JSON, b'{"order_id": "o1"}', "reply-wrong-shape"),
        (200, JSON, b'{"state": "x"}', "reply-wrong-shape"),
        (200, JSON, b'{"order_id": "o1", "state": 1}', "reply-wrong-shape"),
        (200, JSON, b'{"order_id": 1, "state": "x"}', "reply-wrong-shape"),
        (201, JSON, b'{"order_id": "o1", "state": null}', "reply-wrong-shape"),
        (202, JSON, GOOD, "unexpected-status-202"),
        (204, {}, b"", "unexpected-status-204"),
        (206, JSON, GOOD, "unexpected-status-206"),
        (408, {}, b"", "status-408"),
        (425, {}, b"", "status-425"),
        (429, PROBLEM, OWN, "status-429"),
        (500, PROBLEM, OWN, "status-500"),
        (502, {}, b"<html>", "status-502"),
        (503, {}, b"", "status-503"),
        (504, {}, b"", "status-504"),
        (599, {}, b"", "status-599"),
    ],
)
def test_what_may_pass_by_itself_is_trouble(
    status: int, headers: dict[str, str], body: bytes, slug: str
) -> None:
    error = verdict(status, headers, body)
    assert isinstance(error, TroubleError)
    assert error.slug == slug


@pytest.mark.parametrize("status", [400, 409, 422])
@pytest.mark.parametrize(
    "kind",
    [
        "http://w.test/problems/warehouse/sku-refused",
        "https://api.example/v2/problems/warehouse/sku-refused",
        "/problems/warehouse/sku-refused",
    ],
)
def test_the_services_own_problem_is_a_refusal(status: int, kind: str) -> None:
    error = verdict(status, {"content-type": "application/problem+json; charset=utf-8"}, problem(kind))
    assert isinstance(error, RefusedError)
    assert error.slug == "sku-refused"


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        *((status, {}, b"") for status in (300, 301, 302, 303, 304, 307, 308)),
        *((status, PROBLEM, OWN) for status in (401, 402, 403, 404, 405, 406, 410, 411, 413, 414, 415)),
        *((status, PROBLEM, OWN) for status in (100, 301, 418, 421, 423, 426, 428, 431, 451, 499)),
        *((status, {}, b"") for status in (400, 409, 422)),
        (422, JSON, OWN),
        (422, {}, OWN),
        (422, PROBLEM, b""),
        (422, PROBLEM, OWN[:-1]),
        (422, PROBLEM, b"[]"),
        (422, PROBLEM, b'"x"'),
        (422, PROBLEM, b"{}"),
        (422, PROBLEM, problem(None)),
        (422, PROBLEM, problem(7)),
        (422, PROBLEM, problem("about:blank")),
        (422, PROBLEM, problem("http://w.test/problems/email/sku-refused")),
        (422, PROBLEM, problem("http://w.test/problems/warehouse/")),
        (422, PROBLEM, problem("http://w.test/problems/warehouse")),
        (422, PROBLEM, problem("http://w.test/problems/warehouse/a/b")),
        (422, PROBLEM, problem("http://w.test/problems/warehouse/a b")),
        (422, PROBLEM, problem("http://w.test/problems/warehouse/<script>")),
        (422, PROBLEM, problem("http://w.test/problems/not-warehouse/x")),
    ],
)
def test_what_is_not_the_services_own_no_has_gone_astray(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    error = verdict(status, headers, body)
    assert isinstance(error, MisroutedError)
    assert error.slug == f"misrouted-{status}"


def test_a_refusal_names_a_slug_of_bounded_length() -> None:
    error = verdict(422, PROBLEM, problem("/problems/warehouse/" + "x" * 60_000))
    assert isinstance(error, RefusedError)
    assert len(error.slug) <= 300


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3.0), ("0", 0.0), ("999999", 999999.0), ("", None), ("-1", None), ("1.5", None), ("soon", None)],
)
def test_retry_after_is_understood_in_seconds(value: str, seconds: float | None) -> None:
    error = verdict(503, {"retry-after": value}, b"")
    assert isinstance(error, TroubleError)
    assert error.retry_after_s == seconds


@given(
    status=st.integers(100, 999),
    content_type=st.sampled_from(["application/json", "application/problem+json", "", "text/plain"]),
    body=st.binary(max_size=40) | st.sampled_from([GOOD, OWN, b"{}", b"[]"]),
)
def test_every_reply_is_one_of_the_four(status: int, content_type: str, body: bytes) -> None:
    error = verdict(status, {"content-type": content_type}, body)
    if isinstance(error, ShipmentLike):
        assert (status in (200, 201), content_type, body) == (True, "application/json", GOOD)
    elif isinstance(error, RefusedError):
        assert (status in (400, 409, 422), content_type, body) == (True, "application/problem+json", OWN)
    else:
        assert isinstance(error, TroubleError | MisroutedError)
