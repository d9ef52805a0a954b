"""Checkouts by Locust, on two clocks: `ack`, until the 2xx, and `completion`, until every step is final.

`locust -f loadtest/locustfile.py --headless --host http://127.0.0.1:8000 --users 50 --spawn-rate 50 -t 30s
--stop-timeout 90`

Each user begins one order a second at most (`constant_throughput`) and waits until it is final: a closed
loop. A server that stalls is asked less often while it does, so the tail is too good; where the tail matters
use k6.js or `duet compare`. Settings from the environment: STYLE (empty: the service's own), TOKEN (a
caller's key), LONGEST_WAIT_S (for an order to be completed, 60). The run fails (exit code 1) if one order was
refused or not completed; `--stop-timeout`, longer than that wait, lets the orders of the last moment end.
"""

import os
import time
import uuid

from locust import HttpUser, constant_throughput, events, task

STYLE = os.environ.get("STYLE", "")
TOKEN = os.environ.get("TOKEN", "")
LONGEST_WAIT_S = float(os.environ.get("LONGEST_WAIT_S", "60"))
ONE_WAIT_S = 20


class Shopper(HttpUser):
    """Places orders, one after the other, and follows each to its end."""

    wait_time = constant_throughput(1)

    @task
    def check_out(self) -> None:
        """One order, on both clocks."""
        began = time.perf_counter()
        headers = _headers({"Idempotency-Key": f'"{uuid.uuid4()}"', "Prefer": "respond-async"})
        path = f"/checkouts?style={STYLE}" if STYLE else "/checkouts"
        with self.client.post(
            path, json=_order(), headers=headers, name="place", catch_response=True
        ) as answer:
            if answer.status_code not in (201, 202):
                answer.failure(f"status {answer.status_code}")
                return
            told = answer.json()
        _tell("ack", began)
        while told["status"] == "in_progress" and time.perf_counter() - began < LONGEST_WAIT_S:
            path = f"/checkouts/{told['order_id']}"
            waiting = _headers({"Prefer": f"wait={ONE_WAIT_S}"})
            answer = self.client.get(path, headers=waiting, name="wait", timeout=ONE_WAIT_S + 5)
            if not answer.ok:
                break
            told = answer.json()
        done = told["status"] == "completed"
        _tell("completion", began, None if done else RuntimeError(f"the order is {told['status']}"))


def _tell(clock: str, began: float, error: Exception | None = None) -> None:
    took_ms = (time.perf_counter() - began) * 1000
    events.request.fire(
        request_type="CLOCK",
        name=clock,
        response_time=took_ms,
        response_length=0,
        exception=error,
        context={},
    )


def _headers(own: dict[str, str]) -> dict[str, str]:
    return {**own, "Authorization": f"Bearer {TOKEN}"} if TOKEN else own


def _order() -> dict[str, object]:
    number = uuid.uuid4().int
    return {
        "customer": {
            "name": "Ada Lovelace",
            "email": f"reader{number % 500}@example.com",
            "rewards_member": number % 5 != 0,
        },
        "currency": "GBP",
        "lines": [{"sku": f"BOOK-{number % 199 + 1}", "quantity": 1, "unit_price_minor": 1999}],
        "ship_to": {"line1": "12 St James Sq", "city": "London", "postcode": "SW1Y 4JH", "country": "GB"},
    }
