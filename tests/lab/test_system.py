"""Where a system is: discovery, the ways to find a data folder, tokens, and what each service is told."""

import json
import stat
from pathlib import Path

import pytest

from lab import folder
from lab.environment import make_environment
from lab.errors import LabError
from lab.system import Service, System, discover_services, note_file

SERVICES = (
    Service("checkout", "checkout", 0),
    Service("email", "email_svc", 1, participant=True),
    Service("tax", "tax_svc", 4),
)


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("DUET_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)


def make_system(tmp_path: Path) -> System:
    system = System(tmp_path / "data", 18000, SERVICES)
    system.data.mkdir()
    folder.make_tokens(system)
    folder.make_broker_passwords(system, ("checkout", "email"))
    return system


def describe(root: Path, package: str, text: str) -> None:
    (root / package).mkdir()
    (root / package / "service.toml").write_text(text)


def test_services_are_discovered_with_checkout_first_and_the_rest_by_port(tmp_path: Path) -> None:
    describe(tmp_path, "a_svc", 'name = "tax"\nport = 8004\n')
    describe(tmp_path, "b_svc", 'name = "email"\nport = 8001\n[broker]\nparticipant = true\n')
    describe(tmp_path, "checkout", 'name = "checkout"\nport = 8000\n')
    (tmp_path / "docs").mkdir()
    found = discover_services(tmp_path)
    assert found == (
        Service("checkout", "checkout", 0),
        Service("email", "b_svc", 1, participant=True),
        Service("tax", "a_svc", 4),
    )


@pytest.mark.parametrize(
    "text",
    [
        "name = 1\nport = 8001",
        'name = "a"',
        'name = "a"\nport = 9000',
        'name = "a"\nport = 8022',
        'name = "a b"\nport = 8001',
        'name = "a"\nport = 8001\nbroker = true',
        'name = "a"\nport = 8001\ncalls = "email"',
        'name = "a"\nport = 8001\ncalls = [1]',
        "{",
    ],
)
def test_a_description_that_makes_no_sense_is_refused_by_its_path(tmp_path: Path, text: str) -> None:
    describe(tmp_path, "x_svc", text)
    with pytest.raises(LabError, match=r"x_svc/service\.toml"):
        discover_services(tmp_path)


def test_two_services_on_one_port_are_refused(tmp_path: Path) -> None:
    describe(tmp_path, "a_svc", 'name = "a"\nport = 8001\n')
    describe(tmp_path, "b_svc", 'name = "b"\nport = 8001\n')
    with pytest.raises(LabError, match="a and b"):
        discover_services(tmp_path)


def test_the_services_of_this_project_are_found() -> None:
    names = [service.name for service in discover_services()]
    assert names[:1] == ["checkout"]
    assert {"email", "warehouse", "rewards"} <= set(names)


def test_without_options_the_folder_is_dot_duet_at_port_8000(tmp_path: Path) -> None:
    system = System.locate()
    assert (system.data, system.port_base) == (tmp_path / ".duet", 8000)


def test_a_port_base_alone_leads_to_the_folder_that_up_noted(tmp_path: Path) -> None:
    system = make_system(tmp_path)
    with folder.noted(system):
        assert System.locate(18000).data == system.data
        assert System.locate(18001).data == tmp_path / ".duet"
    assert not note_file(18000).exists()


def test_a_data_folder_alone_leads_to_the_port_base_of_the_last_up(tmp_path: Path) -> None:
    system = make_system(tmp_path)
    system.supervisor_file.write_text(json.dumps({"port_base": 19000, "processes": []}))
    assert System.locate(None, system.data).port_base == 19000
    assert System.locate(20000, system.data).port_base == 20000


def test_a_broken_note_is_as_good_as_none(tmp_path: Path) -> None:
    note_file(18000).parent.mkdir(parents=True)
    note_file(18000).write_text("[1")
    assert System.locate(18000).data == tmp_path / ".duet"


def test_note_and_tokens_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    system = make_system(tmp_path)
    with folder.noted(system):
        modes = [
            stat.S_IMODE(path.stat().st_mode)
            for path in (system.tokens_file, note_file(18000), note_file(18000).parent)
        ]
    assert modes == [0o600, 0o600, 0o700]


def test_a_note_that_another_up_has_left_since_is_not_taken_away(tmp_path: Path) -> None:
    with folder.noted(make_system(tmp_path)):
        note_file(18000).write_text(json.dumps({"data": "/elsewhere"}))
    assert System.locate(18000).data == Path("/elsewhere")


def test_tokens_are_kept_and_only_missing_ones_are_made(tmp_path: Path) -> None:
    system = make_system(tmp_path)
    before = system.tokens()
    folder.make_tokens(System(system.data, 18000, (*SERVICES, Service("fraud", "fraud_svc", 5))))
    after = system.tokens()
    assert (after.operator, after.conductor("email")) == (before.operator, before.conductor("email"))
    assert len({after.operator, *after.services.values()}) == 4
    assert len(after.conductor("fraud")) >= 32


def test_missing_tokens_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="duet up --port-base 18000") as caught:
        System(tmp_path / "nothing", 18000, SERVICES).tokens()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", "\x00"])
def test_unreadable_tokens_are_refused_by_their_path(tmp_path: Path, text: str) -> None:
    system = make_system(tmp_path)
    system.tokens_file.write_text(text)
    with pytest.raises(LabError, match=r"tokens\.json"):
        system.tokens()


def test_the_conductor_is_told_where_the_services_are_and_they_know_only_its_token(tmp_path: Path) -> None:
    system = make_system(tmp_path)
    tokens = system.tokens()
    told = make_environment(system)
    assert told["checkout"]["CHECKOUT_EMAIL_URL"] == "http://127.0.0.1:18001"
    assert (
        told["checkout"]["CHECKOUT_TAX_TOKEN"]
        == tokens.conductor("tax")
        == told["tax"]["TAX_CONDUCTOR_TOKEN"]
    )
    assert told["email"]["EMAIL_SMTP_URL"] == "smtp://127.0.0.1:18025"
    assert told["email"]["EMAIL_DATABASE_URL"] == f"sqlite:///{system.data}/email.db"
    assert tokens.conductor("tax") not in told["email"].values()
    assert "CHECKOUT_CALLER_KEYS" not in told["checkout"]
    assert make_environment(system, "null")["email"]["EMAIL_SMTP_URL"] == "null:"


def test_a_service_that_names_whom_it_calls_is_told_of_these_alone(tmp_path: Path) -> None:
    describe(tmp_path, "checkout", 'name = "checkout"\nport = 8000\ncalls = []\n')
    describe(tmp_path, "email_svc", 'name = "email"\nport = 8001\n')
    describe(tmp_path, "tax_svc", 'name = "tax"\nport = 8004\ncalls = ["email"]\n')
    system = System(tmp_path / "data", 18000, discover_services(tmp_path))
    system.data.mkdir()
    folder.make_tokens(system)
    folder.make_broker_passwords(system, ())
    told = make_environment(system)
    assert told["tax"]["TAX_EMAIL_URL"] == "http://127.0.0.1:18001"
    assert told["tax"]["TAX_EMAIL_TOKEN"] == told["email"]["EMAIL_CONDUCTOR_TOKEN"]
    assert not [name for name in told["checkout"] if name.endswith(("EMAIL_URL", "TAX_URL", "EMAIL_TOKEN"))]

    (tmp_path / "tax_svc" / "service.toml").write_text('name = "tax"\nport = 8004\ncalls = ["mail"]\n')
    with pytest.raises(LabError, match="there is no service mail"):
        make_environment(System(system.data, 18000, discover_services(tmp_path)))


def test_each_service_is_told_its_own_login_at_the_broker_and_checkout_whom_to_wait_for(
    tmp_path: Path,
) -> None:
    system = make_system(tmp_path)
    passwords = system.broker_passwords()
    told = make_environment(system)
    assert {told[name][f"{name.upper()}_NATS_URL"] for name in told} == {"nats://127.0.0.1:18022"}
    assert told["email"]["EMAIL_NATS_USER"] == "email"
    assert told["email"]["EMAIL_NATS_PASSWORD"] == passwords["email"]
    assert told["email"]["EMAIL_NATS_DOMAIN"] == "duet"
    assert "CHECKOUT_NATS_DOMAIN" not in told["checkout"]
    assert "TAX_NATS_PASSWORD" not in told["tax"]  # it asks for no rights at the broker
    assert told["checkout"]["CHECKOUT_EXPECTED_PARTICIPANTS"] == "email"
    assert not {passwords["operator"], passwords["checkout"]} & set(told["email"].values())


def test_at_somebody_elses_broker_the_logins_are_the_callers_to_tell(tmp_path: Path) -> None:
    own = make_system(tmp_path)
    system = System(own.data, own.port_base, own.services, nats_url="tls://nats.example.com:4222")
    told = make_environment(system)
    assert told["email"]["EMAIL_NATS_URL"] == "tls://nats.example.com:4222"
    assert not {key for settings in told.values() for key in settings if key.endswith(("_USER", "_PASSWORD"))}


def test_a_folder_leads_to_the_broker_of_the_last_up(tmp_path: Path) -> None:
    system = make_system(tmp_path)
    note = {"port_base": 18000, "nats_url": "nats://nats.example.com:4222", "processes": []}
    system.supervisor_file.write_text(json.dumps(note))
    assert System.locate(None, system.data).broker_url == "nats://nats.example.com:4222"
    with folder.noted(system):
        assert System.locate(18000).broker_url == "nats://nats.example.com:4222"
    system.supervisor_file.write_text(json.dumps({"port_base": 18000, "nats_url": None, "processes": []}))
    assert System.locate(None, system.data).broker_url == "nats://127.0.0.1:18022"


def test_fresh_deletes_what_duet_made_and_leaves_everything_else(tmp_path: Path) -> None:
    system = make_system(tmp_path)
    (system.mail_folder / "deep").mkdir(parents=True)
    (system.broker_folder / "jetstream").mkdir(parents=True)
    for name in (
        "email.db",
        "email.db-wal",
        "checkout.db",
        "accepted.log",
        "supervisor.json",
        "my-notes.txt",
    ):
        (system.data / name).write_text("x")
    folder.refuse_strange_folder(system)
    folder.empty(system)
    assert [path.name for path in system.data.iterdir()] == ["my-notes.txt"]


def test_fresh_follows_no_link_out_of_the_folder(tmp_path: Path) -> None:
    system = make_system(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "keep").write_text("x")
    (system.data / "mail").symlink_to(tmp_path / "elsewhere")
    folder.empty(system)
    assert (tmp_path / "elsewhere" / "keep").exists()


def test_fresh_refuses_a_folder_that_no_up_has_made(tmp_path: Path) -> None:
    strange = tmp_path / "photos"
    strange.mkdir()
    (strange / "cat.jpg").write_text("x")
    with pytest.raises(LabError, match="does not look like"):
        folder.refuse_strange_folder(System(strange, 18000, SERVICES))
    assert (strange / "cat.jpg").exists()


def test_fresh_takes_a_folder_that_is_missing_or_empty_or_half_made(tmp_path: Path) -> None:
    system = System(tmp_path / "new", 18000, SERVICES)
    folder.refuse_strange_folder(system)
    system.data.mkdir()
    folder.refuse_strange_folder(system)
    (system.data / "supervisor.lock").write_text("")
    folder.refuse_strange_folder(system)


def test_a_data_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    system = make_system(tmp_path)
    with folder.hold(system), pytest.raises(LabError, match="another `duet up`"), folder.hold(system):
        pass
    with folder.hold(system):
        pass
