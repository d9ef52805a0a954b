"""The scripts for other load testers: run by the tool where it is installed; k6's logic under Node, too."""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.system import ROOT, live_system

LOADTEST = ROOT / "loadtest"
LOCUST, K6, NODE = (shutil.which(name) for name in ("locust", "k6", "node"))
RUN_S = 90.0
PATIENT = "--stop-timeout 60"
ACCEPTED = {"status": 202, "body": {"order_id": "o-1", "status": "in_progress"}}
WAITING = {"status": 202, "body": {"order_id": "o-1", "status": "in_progress"}}
DONE = {"status": 200, "body": {"order_id": "o-1", "status": "completed"}}
NEEDS_ATTENTION = {"status": 200, "body": {"order_id": "o-1", "status": "needs_attention"}}

needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed: k6.js is not run without k6")


@pytest.mark.e2e
@pytest.mark.skipif(LOCUST is None, reason="locust is not on the PATH: loadtest/README.md says how to get it")
def test_locust_places_orders_on_both_clocks_and_the_books_balance(tmp_path: Path) -> None:
    assert LOCUST is not None
    with live_system(tmp_path) as system:
        url = system.lab.url("checkout")
        for style in ("orchestration", "choreography"):
            options = f"--headless --host {url} --users 10 --spawn-rate 10 --run-time 4s {PATIENT} --json"
            done = _run(LOCUST, "-f", str(LOADTEST / "locustfile.py"), *options.split(), STYLE=style)
            assert done.returncode == 0, done.stderr
            told = {entry["name"]: entry for entry in json.loads(done.stdout)}
            assert told["ack"]["num_requests"] >= told["completion"]["num_requests"] > 10
            assert told["completion"]["num_failures"] == 0
        assert system.audit()["styles"].keys() == {"orchestration", "choreography"}


@pytest.mark.e2e
@pytest.mark.skipif(LOCUST is None, reason="locust is not on the PATH: loadtest/README.md says how to get it")
def test_locust_fails_where_nothing_is_accepted() -> None:
    assert LOCUST is not None
    options = "--headless --host http://127.0.0.1:9 --users 1 --spawn-rate 1 --run-time 2s"
    assert _run(LOCUST, "-f", str(LOADTEST / "locustfile.py"), *options.split()).returncode == 1


@pytest.mark.e2e
@pytest.mark.skipif(LOCUST is None, reason="locust is not on the PATH: loadtest/README.md says how to get it")
def test_locust_fails_where_an_order_is_never_completed() -> None:
    assert LOCUST is not None
    with hanging_checkout() as url:
        options = f"--headless --host {url} --users 1 --spawn-rate 1 --run-time 1s --stop-timeout 30 --json"
        settings = {"LONGEST_WAIT_S": "3"}
        done = _run(LOCUST, "-f", str(LOADTEST / "locustfile.py"), *options.split(), **settings)
    assert done.returncode == 1, done.stderr
    told = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert told["completion"]["num_failures"] == told["completion"]["num_requests"] > 0


@contextmanager
def hanging_checkout() -> Iterator[str]:
    """The URL of a checkout that takes every order and carries none out."""

    class Hanging(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self._answer(202)

        def do_GET(self) -> None:
            time.sleep(0.5)
            self._answer(200)

        def _answer(self, status: int) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            body = json.dumps(WAITING["body"]).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hanging) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.e2e
@pytest.mark.skipif(K6 is None, reason="k6 is not on the PATH")
def test_k6_places_orders_on_both_clocks_and_the_books_balance(tmp_path: Path) -> None:
    assert K6 is not None
    with live_system(tmp_path) as system:
        summary = tmp_path / "summary.json"
        told = {"BASE_URL": system.lab.url("checkout"), "RATE": "20", "DURATION": "4s"}
        given = [part for name, value in told.items() for part in ("-e", f"{name}={value}")]
        done = _run(K6, "run", *given, "--summary-export", str(summary), str(LOADTEST / "k6.js"))
        assert done.returncode == 0, done.stdout
        metrics = json.loads(summary.read_text())["metrics"]
        assert {"ack", "completion"} <= metrics.keys()
        assert system.audit()["balances"]


@needs_node
def test_k6_measures_the_2xx_and_the_end_of_an_order_apart(tmp_path: Path) -> None:
    found = _iterate(tmp_path, ACCEPTED, WAITING, DONE, STYLE="choreography", BASE_URL="http://127.0.0.1:1/")
    post, *gets = found["asked"]
    assert (post["method"], post["url"]) == ("POST", "http://127.0.0.1:1/checkouts?style=choreography")
    assert post["prefer"] == "respond-async"
    assert post["key"].startswith('"k6-')
    assert [get["url"] for get in gets] == ["http://127.0.0.1:1/checkouts/o-1"] * 2
    assert all(get["prefer"].startswith("wait=") for get in gets)
    assert {name: len(values) for name, values in found["metrics"].items()} == {"ack": 1, "completion": 1}


@needs_node
@pytest.mark.parametrize(
    ("answers", "counted"),
    [
        ([{"status": 503, "body": {}}], {"refused"}),
        ([ACCEPTED, NEEDS_ATTENTION], {"ack", "unfinished"}),
        ([ACCEPTED, {"status": 500, "body": {}}], {"ack", "unfinished"}),
    ],
    ids=["refused", "needs attention", "cannot be read"],
)
def test_k6_counts_what_is_no_completed_order(
    tmp_path: Path, answers: list[dict[str, Any]], counted: set[str]
) -> None:
    assert _iterate(tmp_path, *answers)["metrics"].keys() == counted


@needs_node
def test_k6_drives_a_constant_arrival_rate_and_fails_on_dropped_iterations(tmp_path: Path) -> None:
    options = _iterate(tmp_path, {"status": 201, "body": DONE["body"]}, RATE="40", DURATION="9s")["options"]
    [scenario] = options["scenarios"].values()
    assert (scenario["executor"], scenario["rate"], scenario["timeUnit"]) == (
        "constant-arrival-rate",
        40,
        "1s",
    )
    assert scenario["duration"] == "9s"
    for name in ("dropped_iterations", "refused", "unfinished"):
        assert options["thresholds"][name] == ["count==0"]


def _iterate(folder: Path, *answers: Mapping[str, Any], **settings: str) -> dict[str, Any]:
    assert NODE is not None
    stub = Path(__file__).with_name("stub.mjs")
    done = _run(NODE, str(stub), str(LOADTEST / "k6.js"), str(folder), json.dumps(answers), **settings)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _run(*argv: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", **settings}
    return subprocess.run(argv, capture_output=True, text=True, timeout=RUN_S, env=environment, check=False)
