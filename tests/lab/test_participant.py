"""`duet participant`: who takes part is listed, and nobody is retired by accident."""

import json
from pathlib import Path

import pytest

from lab import participant
from tests.lab.fake_system import ACCEPTED_AT, LATER, FakeSystem, make_fake, run_command


@pytest.fixture
def fake(tmp_path: Path) -> FakeSystem:
    made = make_fake(tmp_path)
    for name, retired_at in (("email", None), ("fraud", LATER)):
        made.participants[name] = {"name": name, "joined_at": ACCEPTED_AT, "retired_at": retired_at}
    return made


def test_the_list_says_since_when_and_until_when(fake: FakeSystem) -> None:
    result = run_command(participant, fake, "participant", "list")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        f"email: joined {ACCEPTED_AT}",
        f"fraud: joined {ACCEPTED_AT}, retired {LATER}",
    ]


def test_the_list_is_json_for_programs(fake: FakeSystem) -> None:
    told = json.loads(run_command(participant, fake, "participant", "list", "--json").stdout)
    assert [one["name"] for one in told["participants"]] == ["email", "fraud"]


def test_where_nobody_has_joined_it_says_so(fake: FakeSystem) -> None:
    fake.participants.clear()
    assert "Nobody has joined yet." in run_command(participant, fake, "participant", "list").output


def test_retiring_twice_is_the_same_as_once(fake: FakeSystem) -> None:
    first = run_command(participant, fake, "participant", "retire", "email", "--yes")
    assert first.exit_code == 0, first.output
    assert first.stdout == f"email: joined {ACCEPTED_AT}, retired {LATER}\n"
    again = run_command(participant, fake, "participant", "retire", "email", "--yes", "--json")
    assert json.loads(again.stdout) == fake.participants["email"]


@pytest.mark.parametrize("name", ["nobody", "no/body"])
def test_a_name_that_never_joined_is_one_line_and_exit_one(fake: FakeSystem, name: str) -> None:
    result = run_command(participant, fake, "participant", "retire", name, "--yes")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert f"nobody called {name} has ever joined" in result.stderr


def test_retiring_wants_to_be_confirmed(fake: FakeSystem) -> None:
    result = run_command(participant, fake, "participant", "retire", "email")
    assert result.exit_code == 2
    assert not fake.requests
    assert fake.participants["email"]["retired_at"] is None
