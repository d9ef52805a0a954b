"""Logs as JSON lines, and the crash points of fault tests."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from servicekit import crashpoints
from servicekit.logs import JsonLines, set_up_logging


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "kettle.tea", "levelname": "WARNING", "created": 1763802000.25})
    made.msg, made.args, made.msecs = message, args, 250.0
    vars(made).update(extra)
    return made


def test_a_line_is_one_json_object_with_its_context() -> None:
    text = JsonLines("kettle").format(record("filled %d\ncups", 2, order_id="o1", path=Path("/x")))
    assert "\n" not in text
    assert json.loads(text) == {
        "at": "2025-11-22T09:00:00.250Z",
        "level": "warning",
        "service": "kettle",
        "logger": "kettle.tea",
        "message": "filled 2\ncups",
        "order_id": "o1",
        "path": "/x",
    }


def test_an_exception_is_text_within_the_line() -> None:
    try:
        raise ValueError("boiled over")
    except ValueError:
        text = JsonLines("kettle").format(record("no", exc_info=sys.exc_info()))
    assert "boiled over" in json.loads(text)["exception"]


def test_libraries_speak_from_warning_up_and_the_service_as_it_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        set_up_logging("kettle", "info")
        logging.getLogger("library").info("unheard")
        logging.getLogger("library").warning("heard")
        logging.getLogger("kettle.tea").info("heard too")
        logging.getLogger("kettle.tea").debug("unheard")
        messages = [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    finally:
        root.handlers[:], root.level = before, level
    assert messages == ["heard", "heard too"]


@pytest.fixture
def disarmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crashpoints, "_armed_by", None)


@pytest.mark.usefixtures("disarmed")
def test_nothing_happens_at_a_point_without_a_file_or_with_another_name_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, sig: killed.append(sig))
    file = tmp_path / "crash"
    crashpoints.reach("here")
    crashpoints.arm(file)
    crashpoints.reach("here")
    file.write_text("there\n")
    crashpoints.reach("here")
    assert (killed, file.exists()) == ([], True)


def test_a_process_dies_at_its_point_and_only_once(tmp_path: Path) -> None:
    file = tmp_path / "crash"
    file.write_text("here\n")
    code = (
        "import sys, pathlib; from servicekit import crashpoints as c; "
        "c.arm(pathlib.Path(sys.argv[1])); c.reach('here'); print('alive')"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code, str(file)],
            cwd=Path(crashpoints.__file__).parent.parent,
            capture_output=True,
            timeout=20,
            check=False,
        )
        for _ in range(2)
    ]
    assert [run.returncode for run in runs] == [-signal.SIGKILL, 0]
    assert [run.stdout for run in runs] == [b"", b"alive\n"]
