"""The broker that `duet up` runs: its files, proof of durability, the operator's way in, and its revival."""

import asyncio
import contextlib
import json
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import prometheus_client
import pytest
from nats.js.api import StorageType, StreamConfig

from checkout.metrics import ChoreographyMetrics
from lab import broker, folder
from lab.broker_revival import METRIC, Condition, Pace, Revival, revive_broker
from lab.errors import LabError
from lab.lives import State
from lab.look import MOST_BYTES, look
from lab.processes import make_programs
from lab.supervisor import Supervisor
from lab.system import BROKER, HOST, System
from tests.lab.test_supervisor import REPOSITORY, Bench, Up, bench, free_port_base, row, until, up

__all__ = ["bench", "up"]

PACE = Pace(failing_s=30, most_pause_s=120, room_bytes=100)
PLENTY = 1000


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """A system with the files of its broker; of its two services one takes part."""
    root = tmp_path / "root"
    (root / "email_svc").mkdir(parents=True)
    (root / "email_svc" / "service.toml").write_text(
        'name = "email"\nport = 8001\n[broker]\nparticipant = true\n'
        'publish = ["outcomes.email"]\nsubscribe = ["_INBOX_email.>"]\n'
    )
    (root / "checkout").mkdir()
    (root / "checkout" / "service.toml").write_text('name = "checkout"\nport = 8000\n')
    monkeypatch.setenv("DUET_ROOT", str(root))
    for name in ("DUET_NATS_USER", "DUET_NATS_PASSWORD", "DUET_NATS_CA", broker.SYNC):
        monkeypatch.delenv(name, raising=False)
    made = System(tmp_path / "data", free_port_base())
    made.data.mkdir()
    folder.make_tokens(made)
    broker.make_files(made)
    return made


@contextlib.asynccontextmanager
async def running_broker(system: System, bench: Bench) -> AsyncIterator[Supervisor]:
    (system.data / "logs").mkdir()
    [program] = [one for one in make_programs(system, "null") if one.name == BROKER]
    async with bench.supervising(program) as supervisor:
        await supervisor.until_ready()
        yield supervisor


def test_its_files_are_for_their_owner_alone_and_name_every_user(system: System) -> None:
    files = (system.broker_passwords_file, system.broker_config_file)
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]
    assert set(system.broker_passwords()) == {"operator", "email"}
    told = system.broker_config_file.read_text()
    assert all(f'"{password}"' in told for password in system.broker_passwords().values())


def test_passwords_are_kept_and_those_of_new_services_are_made(system: System, tmp_path: Path) -> None:
    before = system.broker_passwords()
    added = tmp_path / "root" / "fraud_svc" / "service.toml"
    added.parent.mkdir()
    added.write_text(
        'name = "fraud"\nport = 8004\n'
        '[broker]\npublish = ["outcomes.fraud"]\nsubscribe = ["_INBOX_fraud.>"]\n'
    )
    broker.make_files(system)
    after = system.broker_passwords()
    assert {name: after[name] for name in before} == before
    assert len(after["fraud"]) >= 32


def test_a_service_that_asks_for_nonsense_is_refused_by_its_path(system: System, tmp_path: Path) -> None:
    described = tmp_path / "root" / "email_svc" / "service.toml"
    described.write_text('name = "email"\nport = 8001\n[broker]\npublish = "everything"\n')
    with pytest.raises(LabError, match=r"email_svc/service\.toml"):
        broker.make_files(system)


def test_without_a_server_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="--nats-url"):
        broker.find_server()
    server = tmp_path / "nats-server"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o700)
    assert broker.find_server() == server


async def test_a_broker_that_syncs_every_message_is_trusted(system: System, bench: Bench) -> None:
    async with running_broker(system, bench):
        await broker.prove_durable(system)


async def test_a_broker_that_syncs_now_and_then_is_refused(system: System, bench: Bench) -> None:
    config = json.loads(system.broker_config_file.read_text())
    del config["jetstream"]["sync_interval"]
    system.broker_config_file.write_text(json.dumps(config))
    async with running_broker(system, bench):
        with pytest.raises(LabError, match="does not sync"):
            await broker.prove_durable(system)


async def test_a_broker_that_is_asked_not_to_sync_runs_for_measuring_only(
    system: System, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUET_BROKER_SYNC", "default")
    assert broker.make_files(system)
    assert broker.syncs(system) is False
    async with running_broker(system, bench):
        await broker.prove_durable(system)
        monkeypatch.delenv("DUET_BROKER_SYNC")
        with pytest.raises(LabError, match="does not sync"):
            await broker.prove_durable(system)
    assert broker.make_files(system)


@pytest.mark.parametrize(
    ("asked", "nats_url", "said"),
    [("off", None, "give always, or default"), ("default", "nats://127.0.0.1:1", "the system's own broker")],
)
def test_how_the_broker_syncs_is_always_or_default_and_another_s_is_its_own_matter(
    system: System, monkeypatch: pytest.MonkeyPatch, asked: str, nats_url: str | None, said: str
) -> None:
    monkeypatch.setenv("DUET_BROKER_SYNC", asked)
    with pytest.raises(LabError, match=said):
        broker.syncs(replace(system, nats_url=nats_url))


async def test_no_broker_at_all_is_no_proof(system: System) -> None:
    with pytest.raises(LabError, match="does not sync"):
        await broker.prove_durable(system)


async def test_a_wipe_leaves_no_stream_and_a_kill_leaves_all(system: System, bench: Bench) -> None:
    async with running_broker(system, bench) as supervisor:
        async with broker.connect(system) as jetstream:
            await jetstream.add_stream(StreamConfig(name="KEPT", subjects=["kept"], storage=StorageType.FILE))
        assert await streams_after("kill", system, supervisor) == ["KEPT"]
        assert await streams_after("wipe", system, supervisor) == []
        await supervisor.command("stop", BROKER)
        assert await streams_after("wipe", system, supervisor) == []


async def streams_after(verb: str, system: System, supervisor: Supervisor) -> list[str | None]:
    """What the broker holds once it runs again, as another process."""
    before = row(supervisor, BROKER)["pid"]
    await supervisor.command(verb, BROKER)
    await until(lambda: bool(row(supervisor, BROKER)["ready"]) and row(supervisor, BROKER)["pid"] != before)
    async with broker.connect(system) as jetstream:
        return [stream.config.name for stream in await jetstream.streams_info()]


async def test_who_is_not_the_operator_is_not_let_in(
    system: System, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "CONNECT_S", 0.5)
    async with running_broker(system, bench):
        system.broker_passwords_file.write_text(json.dumps({"operator": "guessed", "email": "guessed"}))
        with pytest.raises(LabError, match=f"cannot reach the broker at nats://{HOST}.*[Aa]uthorization"):
            async with broker.connect(system):
                pass


async def test_somebody_elses_broker_is_reached_by_its_url_and_the_callers_login(
    system: System, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = System(system.data, system.port_base + 1, system.services, nats_url=system.broker_url)
    monkeypatch.setenv("DUET_NATS_USER", "operator")
    monkeypatch.setenv("DUET_NATS_PASSWORD", system.broker_passwords()["operator"])
    async with running_broker(system, bench), broker.connect(foreign) as jetstream:
        assert (await jetstream.account_info()).streams == 0


def condition(
    failing_s: float = 0, *, healthy: bool = True, free: int = PLENTY, running: bool = True
) -> Condition:
    return Condition(failing_s, healthy, free, running)


def test_it_is_started_again_when_publishing_has_failed_for_long_and_the_disk_has_room() -> None:
    revival = Revival(PACE, 0)
    assert not revival.is_due(0, condition())
    assert not revival.is_due(29, condition(29))
    assert not revival.is_due(40, condition(40, free=99))
    assert revival.is_due(50, condition(50))


def test_a_broker_that_is_well_and_has_nothing_to_do_is_never_started_again() -> None:
    revival = Revival(PACE, 0)
    assert not any(revival.is_due(now, condition()) for now in range(1000))


def test_trouble_that_passes_in_time_is_forgotten() -> None:
    revival = Revival(PACE, 0)
    for now in range(0, 1000, 25):
        assert not revival.is_due(now, condition(25, healthy=False))
        assert not revival.is_due(now + 1, condition())


def test_it_is_started_again_when_it_has_been_unwell_for_long_whatever_can_be_published() -> None:
    revival = Revival(PACE, 0)
    looks = {now: revival.is_due(now, condition(healthy=now < 100)) for now in range(140)}
    assert [now for now, due in looks.items() if due] == [129]


def test_where_starting_again_does_not_help_the_pauses_double_up_to_a_bound() -> None:
    revival = Revival(PACE, 0)
    assert [now for now in range(600) if revival.is_due(now, condition(31))] == [
        0,
        30,
        90,
        210,
        330,
        450,
        570,
    ]
    assert not revival.is_due(600, condition(0))  # it published: the next trouble is a new one
    assert [now for now in range(700, 800) if revival.is_due(now, condition(31))] == [700, 730, 790]


def test_trouble_counts_only_while_nobody_holds_the_broker() -> None:
    revival = Revival(PACE, 0)
    held = condition(99, healthy=False, running=False)
    assert not any(revival.is_due(now, held) for now in range(100))
    running = condition(99, healthy=False)
    assert [now for now in range(100, 140) if revival.is_due(now, running)] == [129]


# Checkout's metrics as text, served by whoever listens at its port.
METRICS = """
import os, pathlib, socket
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
print("listening", flush=True)
while True:
    connection, _ = server.accept()
    connection.recv(4096)
    body = pathlib.Path(os.environ["METRICS"]).read_bytes()
    connection.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n" + body)
    connection.close()
"""


def exposed(failing_s: float) -> bytes:
    """Checkout's own metrics while publishing has failed for so long."""
    registry = prometheus_client.CollectorRegistry()
    ChoreographyMetrics(registry, lambda: failing_s)
    return prometheus_client.generate_latest(registry)


@contextlib.contextmanager
def metrics(system: System, body: bytes) -> Iterator[None]:
    """A checkout service that tells this of its metrics."""
    file = system.data / "metrics"
    file.write_bytes(body)
    environment = {"PORT": str(system.port_base), "METRICS": str(file)}
    command = [sys.executable, "-c", METRICS]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield
        finally:
            process.kill()


async def test_the_supervisor_restarts_a_broker_that_takes_nothing_and_says_so(
    system: System, bench: Bench
) -> None:
    pace = Pace(look_s=0.02, failing_s=30)
    async with running_broker(system, bench) as supervisor:
        first = row(supervisor, BROKER)["pid"]
        with metrics(system, exposed(33.0)):
            reviving = asyncio.create_task(revive_broker(system, supervisor, bench.said.append, pace))
            await until(lambda: row(supervisor, BROKER)["pid"] not in (None, first))
            await until(lambda: bool(row(supervisor, BROKER)["ready"]))
            reviving.cancel()
    assert "the broker has taken no message for 30 s or more: it is started again" in bench.said


UNREADABLE = METRIC + b"soon\n"


@pytest.mark.parametrize(
    "body",
    [exposed(0.0), exposed(float("nan")), UNREADABLE, b"", None],
    ids=["0", "NaN", "?", "none", "away"],
)
async def test_a_broker_that_is_well_is_left_alone_whatever_checkout_does_not_say(
    system: System, bench: Bench, body: bytes | None
) -> None:
    looks = 0

    async def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0)

    async with running_broker(system, bench) as supervisor:
        first = row(supervisor, BROKER)["pid"]
        with contextlib.nullcontext() if body is None else metrics(system, body):
            pace = Pace(look_s=10, failing_s=30)
            reviving = asyncio.create_task(
                revive_broker(system, supervisor, bench.said.append, pace, lambda: looks * pace.look_s, sleep)
            )
            await until(lambda: looks > 30 or reviving.done())
            assert not reviving.done()
            reviving.cancel()
        assert row(supervisor, BROKER)["pid"] == first
    assert not [line for line in bench.said if "started again" in line]


async def test_only_a_running_process_is_restarted(bench: Bench, system: System) -> None:
    async with running_broker(system, bench) as supervisor:
        for verb, state in (("pause", State.PAUSED), ("stop", State.STOPPED)):
            await supervisor.command(verb, BROKER)
            with pytest.raises(LabError, match=state):
                await supervisor.command("restart", BROKER)


async def test_a_look_is_bounded_in_time_and_bytes(bench: Bench) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(bytes(65_536))
                await writer.drain()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    for behave in (endless, silent):
        async with await asyncio.start_server(behave, HOST, bench.base) as server:
            seen = await look(f"http://{HOST}:{bench.base}/", 0.5)
            assert seen is None or (seen.status == 200 and len(seen.body) <= 2 * MOST_BYTES)
            server.close()
    assert await look(f"http://{HOST}:{bench.base + 1}/", 0.5) is None


def test_wipe_is_for_the_broker_alone(up: Up) -> None:
    up.begin("--mail", "null")
    before = up.ps()["broker"]["pid"]
    refused = up.duet("wipe", "email", *up.place())
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "only the broker" in refused.stderr
    assert "starts empty" in up.duet("wipe", "broker", *up.place()).stdout
    assert up.ps()["broker"]["pid"] != before


def test_with_somebody_elses_broker_none_is_started(up: Up) -> None:
    refused = up.duet("up", "--nats-url", "http://127.0.0.1:4222", *up.place())
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    _, told = up.begin("--mail", "null", "--nats-url", "nats://127.0.0.1:4222")
    assert set(told["urls"]) == {"checkout", "email"}
    assert System.locate(None, up.system.data).nats_url == "nats://127.0.0.1:4222"
    assert not up.system.broker_config_file.exists()


def test_fresh_clears_the_broker_and_its_passwords(system: System) -> None:
    (system.broker_folder / "jetstream" / "$G").mkdir(parents=True)
    folder.refuse_strange_folder(system)
    folder.empty(system)
    assert list(system.data.iterdir()) == []
    assert shutil.disk_usage(system.data).free > 0


def test_up_refuses_a_broker_that_syncs_now_and_then_and_leaves_nothing(up: Up, tmp_path: Path) -> None:
    lax = tmp_path / "bin" / "nats-server"
    lax.parent.mkdir()
    lax.write_text(f'#!/bin/sh\nsed s/always/2m/ "$2" > "$2.lax"\nexec {broker.find_server()} -c "$2.lax"\n')
    lax.chmod(0o700)
    python = lax.with_name("python")
    python.symlink_to(sys.executable)
    site = sysconfig.get_paths()["purelib"]  # which a Python elsewhere would not look into
    refused = subprocess.run(
        [python, "-m", "lab", "up", *up.place()],
        cwd=REPOSITORY,
        env=up.environment | {"PYTHONPATH": site},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert refused.returncode == 1
    assert "does not sync every message" in refused.stderr
    assert json.loads(up.system.supervisor_file.read_text())["processes"] == []
