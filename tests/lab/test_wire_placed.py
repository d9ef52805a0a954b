"""A service of `duet up` behind its wires: put there, started again there, and refused where it has none."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from lab import broker, folder
from lab.environment import Behind, make_environment
from lab.errors import LabError
from lab.processes import make_programs
from lab.system import System
from lab.wire.control import read_weather, set_weather
from lab.wire.placed import Placed
from lab.wire.weather import CLEAR, as_document, flaky
from tests.lab.test_supervisor import REPOSITORY, Up, free_port_base, until_now, up

__all__ = ["up"]  # a fixture

SLOW_S = 0.4
EVERY = as_document(flaky(1))


async def deploy_nothing(name: str) -> str:
    return name


def test_a_service_is_started_anew_behind_its_wires_and_stays_there(up: Up) -> None:
    up.begin("--mail", "null")
    before = up.ps()["email"]
    said = up.duet("slow", "email", "400ms", *up.place())
    assert said.stdout == "email's weather (REST and broker): delay 0.4 s on all exchanges\n", said.stderr
    after = up.ps()["email"]
    assert (after["pid"] != before["pid"], after["url"]) == (True, before["url"])
    assert seconds_of(after["url"]) >= SLOW_S
    until_now(lambda: bool(up.ps()["email"]["ready"]))
    for verb in ("kill", "deploy"):
        pid = up.ps()["email"]["pid"]
        assert up.duet(verb, "email", *up.place()).returncode == 0
        until_now(lambda pid=pid: up.ps()["email"]["ready"] and up.ps()["email"]["pid"] != pid)
        until_now(lambda: read_weather(up.system, "email")["rest"]["open"])
        assert seconds_of(after["url"]) >= SLOW_S
    assert up.duet("calm", "email", *up.place()).stdout == "email's weather (REST and broker): clear\n"
    shown = up.duet("weather", *up.place()).stdout.splitlines()
    assert shown[0].startswith("email rest: clear; hit so far: ")
    assert "delay" in shown[0]
    assert json.loads(up.duet("weather", "--json", *up.place()).stdout).keys() == {"email"}


def test_with_wires_from_the_start_nothing_is_started_anew_for_the_weather(up: Up) -> None:
    _, told = up.begin("--mail", "null", "--wires")
    state = set_weather(up.system, "email", flaky(1), "rest")
    assert up.ps()["email"]["pid"] == told["pids"]["email"]
    assert (state["rest"]["weather"], state["broker"]["weather"]) == (EVERY, as_document(CLEAR))
    with pytest.raises(httpx.TransportError):
        httpx.get(told["urls"]["email"], trust_env=False)
    assert read_weather(up.system)["email"]["rest"]["exchanges"] == 1
    assert up.ps()["email"]["ready"], "readiness is asked for behind the wire"


def test_a_stopped_service_is_refused_connections_behind_its_wires_too(up: Up) -> None:
    up.begin("--mail", "null", "--wires")
    up.duet("stop", "email", *up.place())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", up.system.port_base + 1), timeout=5)
    up.duet("start", "email", *up.place())
    until_now(lambda: read_weather(up.system, "email")["rest"]["open"])
    assert httpx.get(f"http://127.0.0.1:{up.system.port_base + 1}", trust_env=False).is_success


def test_what_has_no_wires_and_what_is_no_weather_is_refused_in_one_line(up: Up) -> None:
    up.begin("--mail", "null")
    for arguments, word in [
        (("slow", "checkout", "2s"), "give one of email"),
        (("flaky", "broker", "10%"), "give one of email"),
        (("calm", "nobody"), "give one of email"),
        (("slow", "email", "2"), "300ms"),
        (("flaky", "email", "0%"), "100%"),
    ]:
        refused = up.duet(*arguments, *up.place())
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
        assert word in refused.stderr
    up.duet("stop", "email", *up.place())
    held = up.duet("slow", "email", "1s", *up.place())
    assert (held.returncode, held.stderr) == (1, "duet: email is stopped: let it run first\n")
    assert read_weather(up.system, "email") == {}
    assert set_weather(up.system, "email", CLEAR) == {}
    assert up.duet("start", "email", *up.place()).returncode == 0, "it starts at its own port"
    until_now(lambda: bool(up.ps()["email"]["ready"]))


def test_behind_its_wires_a_service_listens_and_finds_the_broker_elsewhere_but_is_called_the_same(
    tmp_path: Path,
) -> None:
    system = System(tmp_path / "data")
    system.data.mkdir()
    folder.make_tokens(system)
    broker.make_files(system)
    hidden = {"email": Behind(12_345, "nats://127.0.0.1:12346")}
    plain, told = make_environment(system), make_environment(system, behind=hidden)
    changed = {key for key in plain["email"] if plain["email"][key] != told["email"][key]}
    assert changed == {"EMAIL_PORT", "EMAIL_NATS_URL"}
    assert [told[name] for name in told if name != "email"] == [plain[n] for n in plain if n != "email"]
    [program] = [one for one in make_programs(system, "null", hidden) if one.name == "email"]
    assert (program.url, program.ready_url) == (system.url("email"), "http://127.0.0.1:12345/readyz")


@pytest.mark.parametrize("url", ["tls://broker:4222", "nats://one:4222,nats://two:4222"])
async def test_a_broker_that_a_proxy_would_break_is_refused(url: str) -> None:
    placed = Placed(System(REPOSITORY / "nowhere", free_port_base(), nats_url=url), lambda _: None)
    with pytest.raises(LabError, match="TLS"):
        placed.place_all()
    assert placed.behind == {}


async def test_a_login_in_the_broker_s_address_is_kept() -> None:
    system = System(REPOSITORY / "nowhere", free_port_base(), nats_url="nats://me:secret@10.0.0.1:4333")
    placed = Placed(system, lambda _: None)
    placed.place("email")
    assert placed.behind["email"].nats_url.startswith("nats://me:secret@127.0.0.1:")
    state = await placed.weather(deploy_nothing, "email", None)
    assert state["broker"]["direct"] == 4333
    await placed.end()


async def test_a_service_that_cannot_be_started_anew_is_not_left_behind_wires() -> None:
    async def refuse(name: str) -> str:
        raise LabError(f"{name} is paused")

    placed = Placed(System(REPOSITORY / "nowhere", free_port_base()), lambda _: None)
    with pytest.raises(LabError, match="paused"):
        await placed.weather(refuse, "email", {"weather": EVERY})
    assert (placed.behind, await placed.weather(refuse, None, None)) == ({}, {})


@pytest.mark.parametrize(
    "arguments",
    [[1], {"weather": None}, {"weather": EVERY, "wire": "smtp"}, {"weather": {**EVERY, "share": 2}}],
)
async def test_a_request_that_is_no_weather_is_refused(arguments: Any) -> None:
    placed = Placed(System(REPOSITORY / "nowhere", free_port_base()), lambda _: None)
    with pytest.raises(LabError):
        await placed.weather(deploy_nothing, "email", arguments)
    assert placed.behind == {}


def seconds_of(url: str) -> float:
    began = time.monotonic()
    assert httpx.get(url, timeout=5, trust_env=False).is_success
    return time.monotonic() - began
