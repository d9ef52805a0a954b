"""A checkout that is started again on PostgreSQL: what waited for something that is back waits no longer."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.checkout.world import ORDER
from tests.support.broker import free_port

SERVICES = ("EMAIL", "WAREHOUSE", "REWARDS")
PATIENCE_S = 60.0
# The pause of an order that waits, shortened by nothing but what is tested.
PAUSE_S = 600


@contextmanager
def checkout(settings: dict[str, str], log: Path) -> Iterator[str]:
    """The real process, until the block ends; then it is killed. Its URL."""
    url = f"http://127.0.0.1:{settings['CHECKOUT_PORT']}"
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "checkout"], env={**os.environ, **settings}, stdout=file, stderr=file
        )
    try:
        _until(lambda: httpx.get(f"{url}/healthz").is_success, log)
        yield url
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.timeout(240)
def test_an_order_that_waited_for_a_service_is_taken_up_at_once_by_a_new_process(
    postgres_url: str, tmp_path: Path
) -> None:
    port, log = free_port(), tmp_path / "log"
    settings = {
        "CHECKOUT_DATABASE_URL": postgres_url,
        "CHECKOUT_PORT": str(free_port()),
        "CHECKOUT_NATS_URL": "nats://127.0.0.1:1",
        "CHECKOUT_OPERATOR_TOKEN": "operator-token-0123",
        "CHECKOUT_RESUME_MIN_S": str(PAUSE_S),
        "CHECKOUT_RESUME_MAX_S": str(PAUSE_S),
        "CHECKOUT_CALL_TIMEOUT_S": "0.2",
        "CHECKOUT_PUBLISH_TIMEOUT_S": "0.2",
        "CHECKOUT_PASS_TIMEOUT_S": "1",
        "CHECKOUT_RETRY_BUDGET_FLOOR_PER_S": "0",
        **{f"CHECKOUT_{name}_URL": f"http://127.0.0.1:{port}" for name in SERVICES},
        **{f"CHECKOUT_{name}_TOKEN": "token-0123456789abc" for name in SERVICES},
    }
    with checkout(settings, log) as url:
        placed = httpx.post(f"{url}/checkouts", json=ORDER, headers={"Prefer": "respond-async"})
        assert placed.status_code == 202
        _until(lambda: 'passes_running{kind="first"} 0.0' in httpx.get(f"{url}/metrics").text, log)
    with listening(port) as heard, checkout(settings, log):
        _until(lambda: len(heard) >= len(SERVICES), log)


@contextmanager
def listening(port: int) -> Iterator[list[str]]:
    """Something that hears every command, and refuses it for now."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.path)
            self.send_response(503)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield heard
    finally:
        server.shutdown()
        server.server_close()


def _until(right: object, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if right():  # type: ignore[operator]
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text()[-3_000:])
