"""The supervisor on real, tiny processes, and `duet up` with its verbs on services that do nothing."""

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.control import call
from lab.errors import LabError
from lab.lives import Timing, next_backoff_s
from lab.processes import LOG_LIMIT_BYTES, Program, StampBook, bound_log, end_leftovers, wait_stopped
from lab.supervisor import Supervisor
from lab.system import System, note_file
from tests.support.threads import needs_threads, states_of_threads

REPOSITORY = Path(__file__).resolve().parents[2]
QUICK = Timing(backoff_first_s=0.01, backoff_most_s=0.05, poll_unready_s=0.02, poll_ready_s=0.05, start_s=10)
WAIT_S = 10.0
PORTS = 32  # that a system may take

# Answers every request with 200. The last line decides what a SIGTERM does.
SERVICE = """
import os, signal, socket
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
def serve():
    while True:
        connection, _ = server.accept()
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
        connection.close()
print("serving", flush=True)
"""
STUBBORN = SERVICE + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nserve()"
PLAIN = SERVICE + "serve()"
THREADS = 8
CROWDED = (
    SERVICE
    + f"""
import hashlib, threading
def busy():
    while True:
        hashlib.sha256(bytes(1_000_000))  # outside the interpreter's lock
for _ in range({THREADS}):
    threading.Thread(target=busy, daemon=True).start()
serve()"""
)


def free_port_base() -> int:
    """A port base with its ports free; below the ports that the system gives to outgoing connections."""
    for _ in range(100):
        base = random.randrange(10_000, 30_000, PORTS)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(base, base + PORTS):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return base
    raise AssertionError("no free ports")


@dataclass
class Bench:
    """Programs of one test, and what the supervisor said of them."""

    folder: Path
    base: int = field(default_factory=free_port_base)
    said: list[str] = field(default_factory=list)

    def program(self, name: str, code: str, offset: int = 0) -> Program:
        port = self.base + offset
        return Program(
            name=name,
            argv=(sys.executable, "-c", code),
            environment={"PORT": str(port), "PATH": os.environ["PATH"]},
            log=self.folder / f"{name}.log",
            url=f"http://127.0.0.1:{port}",
            ready_url=f"http://127.0.0.1:{port}/readyz",
        )

    @property
    def book(self) -> Path:
        return self.folder / "supervisor.json"

    @contextlib.asynccontextmanager
    async def supervising(self, *programs: Program, timing: Timing = QUICK) -> AsyncIterator[Supervisor]:
        book = StampBook(self.book, self.base, self.said.append)
        supervisor = Supervisor(programs, book, self.said.append, timing)
        supervisor.launch(program.name for program in programs)
        try:
            yield supervisor
        finally:
            await supervisor.end()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def row(supervisor: Supervisor, name: str = "a") -> dict[str, Any]:
    return next(found for found in supervisor.rows() if found["name"] == name)


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not what():  # noqa: ASYNC110  # another process changes it, and sets no event here
            await asyncio.sleep(0.01)


def until_now(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.parametrize(
    ("previous_s", "up_s", "killed", "expected_s"),
    [
        (0, 0, False, 0.2),
        (0.2, 1, False, 0.4),
        (3.2, 1, False, 5),
        (5, 1, False, 5),
        (5, 10, False, 0.2),
        (5, 1, True, 0.2),
    ],
)
def test_the_pause_before_a_new_start_doubles_until_the_process_settles_or_somebody_kills_it(
    previous_s: float, up_s: float, killed: bool, expected_s: float
) -> None:
    assert next_backoff_s(Timing(), previous_s, up_s, killed) == pytest.approx(expected_s)


async def test_what_dies_is_started_again_and_becomes_ready_again(bench: Bench) -> None:
    async with bench.supervising(bench.program("a", PLAIN)) as supervisor:
        await supervisor.until_ready()
        first = row(supervisor)["pid"]
        os.kill(first, signal.SIGKILL)
        await until(lambda: row(supervisor)["restarts"] == 1)
        await until(lambda: bool(row(supervisor)["ready"]))
        assert row(supervisor)["pid"] != first
    assert any("a ended (SIGKILL), starting it again" in line for line in bench.said)


async def test_kill_gives_a_process_anew(bench: Bench) -> None:
    async with bench.supervising(bench.program("a", PLAIN)) as supervisor:
        await supervisor.until_ready()
        first = row(supervisor)["pid"]
        await supervisor.command("kill", "a")
        assert row(supervisor)["pid"] != first
        await until(lambda: bool(row(supervisor)["ready"]))


async def test_a_stopped_process_stays_ended_until_it_is_started(bench: Bench) -> None:
    async with bench.supervising(bench.program("a", PLAIN)) as supervisor:
        await supervisor.until_ready()
        await supervisor.command("stop", "a")
        for _ in range(10):
            await asyncio.sleep(QUICK.backoff_most_s / 5)
            assert (row(supervisor)["state"], row(supervisor)["pid"]) == ("stopped", None)
        await supervisor.command("start", "a")
        await until(lambda: bool(row(supervisor)["ready"]))
        assert row(supervisor)["restarts"] == 0


async def test_a_process_that_ignores_a_polite_stop_is_killed(bench: Bench) -> None:
    timing = Timing(poll_unready_s=0.02, grace_s=0.1)
    async with bench.supervising(bench.program("a", STUBBORN), timing=timing) as supervisor:
        await supervisor.until_ready()
        pid = row(supervisor)["pid"]
        await supervisor.command("stop", "a")
        assert not is_alive(pid)


async def test_a_paused_process_is_held_and_not_ready_until_it_is_resumed(bench: Bench) -> None:
    async with bench.supervising(bench.program("a", PLAIN)) as supervisor:
        await supervisor.until_ready()
        pid = row(supervisor)["pid"]
        await supervisor.command("pause", "a")
        assert psutil.Process(pid).status() == psutil.STATUS_STOPPED
        assert (await supervisor.fresh_rows())[0]["ready"] is False
        assert (row(supervisor)["state"], row(supervisor)["pid"]) == ("paused", pid)
        await supervisor.command("resume", "a")
        await until(lambda: bool(row(supervisor)["ready"]))
        assert (row(supervisor)["pid"], row(supervisor)["restarts"]) == (pid, 0)


@needs_threads
async def test_a_pause_that_is_answered_holds_every_thread(bench: Bench) -> None:
    async with bench.supervising(bench.program("a", CROWDED)) as supervisor:
        await supervisor.until_ready()
        for _ in range(20):
            await supervisor.command("pause", "a")
            states = states_of_threads(row(supervisor)["pid"])
            assert len(states) > THREADS
            assert set(states) == {"T"}
            await supervisor.command("resume", "a")


def test_the_wait_for_a_stop_ends_whatever_the_process_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.processes.STOPPED_WITHIN_S", 0.05)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        with pytest.raises(LabError, match="does not stop"):
            wait_stopped(process.pid)
        process.kill()
        process.wait()
        with pytest.raises(LabError, match="has ended"):
            wait_stopped(process.pid)


async def test_a_paused_process_can_be_killed_and_stopped(bench: Bench) -> None:
    async with bench.supervising(bench.program("a", PLAIN)) as supervisor:
        await supervisor.until_ready()
        await supervisor.command("pause", "a")
        await supervisor.command("kill", "a")
        await until(lambda: bool(row(supervisor)["ready"]))
        await supervisor.command("pause", "a")
        await supervisor.command("stop", "a")
        assert row(supervisor)["state"] == "stopped"


async def test_verbs_that_make_no_sense_are_refused(bench: Bench) -> None:
    async with bench.supervising(bench.program("a", PLAIN)) as supervisor:
        await supervisor.until_ready()
        for verb in ("start", "resume"):
            with pytest.raises(LabError, match="running"):
                await supervisor.command(verb, "a")
        await supervisor.command("pause", "a")
        with pytest.raises(LabError, match="paused already"):
            await supervisor.command("pause", "a")
        await supervisor.command("stop", "a")
        for verb in ("stop", "pause", "resume", "kill"):
            with pytest.raises(LabError, match="stopped"):
                await supervisor.command(verb, "a")
        with pytest.raises(LabError, match="no process b: it is one of a"):
            await supervisor.command("stop", "b")
        with pytest.raises(LabError, match="no command dance"):
            await supervisor.command("dance", "a")


async def test_a_process_that_keeps_failing_can_be_stopped_between_its_tries(bench: Bench) -> None:
    timing = Timing(backoff_first_s=60, backoff_most_s=60, poll_unready_s=0.02)
    async with bench.supervising(bench.program("a", "raise SystemExit(1)"), timing=timing) as supervisor:
        await until(lambda: row(supervisor)["restarts"] == 1)
        await supervisor.command("stop", "a")
        assert row(supervisor)["state"] == "stopped"
        await supervisor.command("start", "a")
        await until(lambda: row(supervisor)["restarts"] == 2)
        await supervisor.command("start", "a")  # does not wait for the rest of the pause
        await until(lambda: row(supervisor)["restarts"] == 3)


async def test_nothing_runs_after_the_end_whatever_state_it_was_in(bench: Bench) -> None:
    programs = [
        bench.program("a", STUBBORN, 0),
        bench.program("b", PLAIN, 1),
        bench.program("c", PLAIN, 2),
        bench.program("d", PLAIN, 3),
    ]
    timing = Timing(poll_unready_s=0.02, grace_s=2)
    async with bench.supervising(*programs, timing=timing) as supervisor:
        await supervisor.until_ready()
        await supervisor.command("pause", "b")
        await supervisor.command("stop", "c")
        pids = [found["pid"] for found in supervisor.rows() if found["pid"]]
        os.kill(row(supervisor, "d")["pid"], signal.SIGKILL)
    assert len(pids) == 3
    assert [line for line in bench.said if line.endswith("killed")] == ["a has not ended in 2 s: killed"]
    assert not any(is_alive(pid) for pid in pids)
    assert [found["pid"] for found in supervisor.rows()] == [None] * 4
    assert json.loads(bench.book.read_text())["processes"] == []


async def test_a_start_with_bad_settings_ends_at_once_with_the_last_words(bench: Bench) -> None:
    code = "import sys; print('EMAIL_PORT: not a port', file=sys.stderr); sys.exit(2)"
    async with bench.supervising(bench.program("a", code)) as supervisor:
        with pytest.raises(LabError, match=r"a did not start \(exit code 2\)(.|\n)*EMAIL_PORT: not a port"):
            await supervisor.until_ready()


async def test_a_start_that_takes_too_long_names_the_process(bench: Bench) -> None:
    code = "import time; print('I am thinking', flush=True); time.sleep(60)"
    timing = Timing(start_s=4, poll_unready_s=0.05, grace_s=2)
    ready, slow = bench.program("a", PLAIN, 0), bench.program("b", code, 1)
    async with bench.supervising(ready, slow, timing=timing) as supervisor:
        with pytest.raises(LabError, match=r"b is not ready after 4 s(.|\n)*I am thinking"):
            await supervisor.until_ready()


async def test_a_start_that_takes_too_long_says_why_a_process_is_not_ready(bench: Bench) -> None:
    refusal = "503 Service Unavailable\\r\\nContent-Length: 31\\r\\n\\r\\nwaiting for participants: email"
    waiting = PLAIN.replace("200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n", refusal)
    timing = Timing(start_s=4, poll_unready_s=0.05, grace_s=2)
    programs = bench.program("a", waiting, 0), bench.program("b", "import time; time.sleep(60)", 1)
    async with bench.supervising(*programs, timing=timing) as supervisor:
        expected = (
            r"a is not ready after 4 s \(waiting for participants: email\)\nb is not ready .* \(no answer\)"
        )
        with pytest.raises(LabError, match=expected):
            await supervisor.until_ready()


async def test_a_short_lived_program_that_fails_is_told_with_its_last_words(bench: Bench) -> None:
    async with bench.supervising() as supervisor:
        await supervisor.run_once(bench.program("migrate", "print('done')"))
        with pytest.raises(LabError, match=r"exit code 3(.|\n)*no such table"):
            await supervisor.run_once(bench.program("migrate", "print('no such table'); exit(3)"))


def test_a_log_is_bounded_and_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * LOG_LIMIT_BYTES)
        writer.write(b"last\n")
        bound_log(log)
        writer.write(b"new\n")
    assert log.read_bytes() == b"new\n"
    older = (tmp_path / "a.log.1").read_bytes()
    assert (len(older), older[-5:]) == (LOG_LIMIT_BYTES, b"last\n")


def test_only_a_process_that_is_surely_ours_is_ended(tmp_path: Path) -> None:
    argv = (sys.executable, "-c", "import time; time.sleep(60)")
    ours, recycled, other = (subprocess.Popen(argv, start_new_session=True) for _ in range(3))
    try:
        until_now(
            lambda: all(psutil.Process(one.pid).cmdline() == [*argv] for one in (ours, recycled, other))
        )
        os_stamp = {one.pid: psutil.Process(one.pid).create_time() for one in (ours, recycled, other)}
        stamps = [
            {"name": "ours", "pid": ours.pid, "started": os_stamp[ours.pid], "argv": argv},
            {"name": "old", "pid": recycled.pid, "started": os_stamp[recycled.pid] - 60, "argv": argv},
            {
                "name": "other",
                "pid": other.pid,
                "started": os_stamp[other.pid],
                "argv": ["something", "else"],
            },
        ]
        book = tmp_path / "supervisor.json"
        book.write_text(json.dumps({"port_base": 1, "processes": stamps}))
        assert end_leftovers(book, tmp_path) == ["ours"]
        assert [one.poll() is None for one in (ours, recycled, other)] == [False, True, True]
    finally:
        for one in (ours, recycled, other):
            one.kill()
            one.wait()


def test_a_process_that_nobody_had_time_to_write_down_is_known_by_its_mark(tmp_path: Path) -> None:
    argv = (sys.executable, "-c", "import time; time.sleep(60)")
    marks = [f"email {tmp_path}", f"email {tmp_path}-other"]
    ours, other = (
        subprocess.Popen(argv, start_new_session=True, env={"DUET_SUPERVISED": mark}) for mark in marks
    )
    try:
        until_now(lambda: all(psutil.Process(one.pid).cmdline() == [*argv] for one in (ours, other)))
        assert end_leftovers(tmp_path / "missing.json", tmp_path) == ["email"]
        assert [one.poll() is None for one in (ours, other)] == [False, True]
    finally:
        for one in (ours, other):
            one.kill()
            one.wait()


@pytest.mark.parametrize("text", ["", "{}", '{"processes": [{}]}', '{"processes": 1}'])
def test_a_broken_book_of_processes_ends_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "supervisor.json").write_text(text)
    assert end_leftovers(tmp_path / "supervisor.json", tmp_path) == []


@dataclass
class Up:
    """A `duet` on two services that do nothing but serve."""

    system: System
    environment: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def duet(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lab", *arguments],
            cwd=REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def begin(self, *arguments: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab", "up", "--json", *self.place(), *arguments],
            cwd=REPOSITORY,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        assert process.stdout is not None
        return process, json.loads(process.stdout.readline())

    def place(self) -> list[str]:
        return ["--port-base", str(self.system.port_base), "--data", str(self.system.data)]

    def ps(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in call(self.system, "ps")}


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    root = tmp_path / "root"
    for number, (name, package) in enumerate([("checkout", "checkout"), ("email", "email_svc")]):
        (root / package).mkdir(parents=True)
        (root / package / "__init__.py").touch()
        (root / package / "service.toml").write_text(f'name = "{name}"\nport = {8000 + number}\n')
        main = PLAIN.replace('"PORT"', f'"{name.upper()}_PORT"')
        (root / package / "__main__.py").write_text(main)
    (root / "servicekit").mkdir()
    (root / "servicekit" / "__init__.py").touch()
    (root / "servicekit" / "migrate.py").write_text("import sys; print('migrated', *sys.argv[1:])")
    state = tmp_path / "state"
    environment = os.environ | {"DUET_ROOT": str(root), "XDG_STATE_HOME": str(state)}
    for name in ("DUET_DATA", "DUET_PORT_BASE"):
        environment.pop(name, None)
    made = Up(System(tmp_path / "data", free_port_base(), ()), environment)
    yield made
    for process in made.started:
        process.terminate()
        process.wait(timeout=30)
        if process.stdout is not None:
            process.stdout.close()
    end_leftovers(made.system.supervisor_file, made.system.data)


def test_up_tells_once_what_runs_and_leaves_nothing_behind(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    process, told = up.begin()
    base = up.system.port_base
    assert (told["ready"], told["port_base"], told["data"]) == (True, base, str(up.system.data))
    assert told["urls"] == {
        "checkout": f"http://127.0.0.1:{base}",
        "email": f"http://127.0.0.1:{base + 1}",
        "mailbox": f"http://127.0.0.1:{base + 26}",
        "broker": f"nats://127.0.0.1:{base + 22}",
    }
    assert told["mail"]["smtp"] == f"smtp://127.0.0.1:{base + 25}"
    assert {name: one["pid"] for name, one in up.ps().items()} == told["pids"]
    assert "migrated checkout email_svc" in up.system.log_file("migrate").read_text()
    monkeypatch.setenv("XDG_STATE_HOME", up.environment["XDG_STATE_HOME"])
    assert note_file(base).exists()

    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    assert process.stdout is not None
    assert process.stdout.read() == ""
    assert not any(is_alive(pid) for pid in told["pids"].values())
    assert not note_file(base).exists()


def test_the_verbs_reach_the_supervisor_and_refusals_are_one_line(up: Up) -> None:
    up.begin("--mail", "null")
    by_base = ["--port-base", str(up.system.port_base)]  # the note leads to the tokens
    assert up.duet("stop", "email", *by_base).stdout == "email is stopped\n"
    listed = json.loads(up.duet("ps", "--json", *by_base).stdout)
    assert [(one["name"], one["state"], one["ready"]) for one in listed] == [
        ("checkout", "running", True),
        ("email", "stopped", False),
        ("broker", "running", True),
    ]
    assert up.duet("start", "email", "--data", str(up.system.data)).returncode == 0
    refused = up.duet("resume", "checkout", *up.place())
    assert (refused.returncode, refused.stderr) == (1, "duet: checkout is running, not paused\n")
    unknown = up.duet("kill", "nobody", *up.place())
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    assert "email" in up.duet("ps", *by_base).stdout


def test_commands_without_a_system_say_what_to_do(up: Up) -> None:
    result = up.duet("ps", *up.place())
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "duet up" in result.stderr


def test_the_supervisor_obeys_nobody_without_the_token(up: Up) -> None:
    _, told = up.begin("--mail", "null")
    for request in (b'{"token": "x", "verb": "kill", "name": "email"}\n', b"GET / HTTP/1.1\r\n\r\n", b"[]\n"):
        with socket.create_connection(("127.0.0.1", up.system.control_port), timeout=5) as connection:
            connection.sendall(request)
            assert json.loads(connection.recv(4096))["ok"] is False
    assert up.ps()["email"]["pid"] == told["pids"]["email"]


def test_a_second_up_on_the_same_folder_or_ports_is_refused(up: Up, tmp_path: Path) -> None:
    up.begin("--mail", "null")
    folder = up.duet("up", "--data", str(up.system.data), "--port-base", str(free_port_base()))
    assert (folder.returncode, folder.stderr.count("\n")) == (2, 1)
    assert "another `duet up`" in folder.stderr
    ports = up.duet("up", "--data", str(tmp_path / "other"), "--port-base", str(up.system.port_base))
    assert (ports.returncode, ports.stderr.count("\n")) == (2, 1)
    assert f"{up.system.port_base} (checkout)" in ports.stderr
    assert all(one["ready"] for one in up.ps().values())


def test_up_clears_up_after_a_supervisor_that_was_killed(up: Up) -> None:
    killed, before = up.begin()
    call(up.system, "pause", "email")
    killed.kill()
    killed.wait(timeout=10)
    assert all(is_alive(pid) for pid in before["pids"].values())
    _, after = up.begin()
    assert not any(is_alive(pid) for pid in before["pids"].values())
    assert all(one["ready"] for one in up.ps().values())
    assert set(after["pids"]) == set(before["pids"])


def test_a_failed_start_says_why_and_leaves_nothing(up: Up, tmp_path: Path) -> None:
    broken = tmp_path / "root" / "email_svc" / "__main__.py"
    broken.write_text("raise SystemExit('EMAIL_SENDER: missing')")
    result = up.duet("up", *up.place())
    assert result.returncode == 1
    assert "email did not start" in result.stderr
    assert "EMAIL_SENDER: missing" in result.stderr
    assert json.loads(up.system.supervisor_file.read_text())["processes"] == []


def test_fresh_starts_empty(up: Up) -> None:
    process, _ = up.begin("--mail", "null")
    process.terminate()
    process.wait(timeout=20)
    before = up.system.tokens()
    up.system.accepted_file.write_text("an id\n")
    up.begin("--mail", "null", "--fresh")
    assert not up.system.accepted_file.exists()
    assert up.system.tokens() != before


async def test_a_deployed_program_takes_the_place_of_the_one_of_its_name_and_a_new_one_stands_beside_it(
    bench: Bench,
) -> None:
    async with bench.supervising(bench.program("a", PLAIN)) as supervisor:
        await supervisor.until_ready()
        before = row(supervisor)["pid"]
        await supervisor.deploy(bench.program("a", PLAIN, offset=1))
        await supervisor.deploy(bench.program("b", PLAIN, offset=2))
        await until(lambda: all(found["ready"] for found in supervisor.rows()))
        assert row(supervisor)["pid"] != before
        assert [found["url"][-5:] for found in supervisor.rows()] == [
            f"{bench.base + 1}",
            f"{bench.base + 2}",
        ]
        os.kill(row(supervisor, "b")["pid"], signal.SIGKILL)  # it is kept running, as the first ones are
        await until(lambda: row(supervisor, "b")["restarts"] == 1 and row(supervisor, "b")["ready"])


async def test_a_program_that_ends_again_and_again_can_be_replaced(bench: Bench) -> None:
    slow = replace(QUICK, backoff_first_s=30.0)
    async with bench.supervising(bench.program("a", "exit(1)"), timing=slow) as supervisor:
        await until(lambda: row(supervisor)["state"] == "restarting")
        await supervisor.deploy(bench.program("a", PLAIN))
        await until(lambda: row(supervisor)["ready"])


async def test_what_is_held_stopped_is_not_deployed_and_nothing_is_at_the_end(bench: Bench) -> None:
    async with bench.supervising(bench.program("a", PLAIN)) as supervisor:
        await supervisor.until_ready()
        await supervisor.command("stop", "a")
        with pytest.raises(LabError, match="let it run first"):
            await supervisor.deploy(bench.program("a", PLAIN))
    with pytest.raises(LabError, match="stopping"):
        await supervisor.deploy(bench.program("b", PLAIN, offset=1))


async def test_a_process_is_told_by_a_hangup_to_read_its_configuration_again(bench: Bench) -> None:
    code = SERVICE + "signal.signal(signal.SIGHUP, lambda *_: print('again', flush=True))\nserve()"
    program = bench.program("a", code)
    async with bench.supervising(program) as supervisor:
        await supervisor.until_ready()
        supervisor.reload("a")
        await until(lambda: "again" in program.log.read_text())


def test_a_service_is_deployed_anew_and_one_that_was_not_there_is_found(up: Up) -> None:
    up.begin("--mail", "null")
    before = up.ps()
    root = Path(up.environment["DUET_ROOT"])
    shutil.copytree(root / "email_svc", root / "invoice_svc")
    rights = (
        '[broker]\npublish = ["outcomes.invoice"]\nsubscribe = ["_INBOX_invoice.>"]\nparticipant = true\n'
    )
    (root / "invoice_svc" / "service.toml").write_text(f'name = "invoice"\nport = 8004\n{rights}')
    main = root / "invoice_svc" / "__main__.py"
    main.write_text(main.read_text().replace("EMAIL_PORT", "INVOICE_PORT"))
    assert up.duet("deploy", "invoice", *up.place()).returncode == 0
    until_now(lambda: up.ps().get("invoice", {}).get("ready"))
    assert "invoice" in json.loads(up.system.tokens_file.read_text())
    config = json.loads(up.system.broker_config_file.read_text())
    assert [user["user"] for user in config["accounts"]["invoice"]["users"]] == ["invoice"]
    broker = up.ps()["broker"]["pid"]
    assert up.duet("deploy", "broker", *up.place()).returncode == 0
    assert up.ps()["broker"]["pid"] == broker

    assert up.duet("deploy", "email", *up.place()).returncode == 0
    until_now(lambda: up.ps()["email"]["ready"])
    after = up.ps()
    assert {name for name in before if after[name]["pid"] != before[name]["pid"]} == {"email"}

    unknown = up.duet("deploy", "nobody", *up.place())
    assert (unknown.returncode, unknown.stderr) == (
        2,
        "duet: there is no service nobody: it is one of checkout, email, invoice\n",
    )
