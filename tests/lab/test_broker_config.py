"""The broker's configuration: made from each `service.toml`, taken by the real server, by plain Python."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.broker_config import (
    DOMAIN,
    MAX_FILE_BYTES,
    MAX_MEMORY_BYTES,
    STREAMS_ACCOUNT,
    BrokerRights,
    BrokerTls,
    BrokerUser,
    broker_users,
    nats_config,
    read_rights,
)

ROOT = Path(__file__).parent.parent.parent
SERVER = Path(sys.executable).with_name("nats-server")
DANCER = BrokerUser(
    name="dancer",
    password='a "quoted" $password',
    publish=("outcomes.dancer", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.dancer", "$JS.ACK.ORDERS.dancer.>"),
    subscribe=("_INBOX_dancer.>",),
    participant=True,
)
FIRST = BrokerUser("first", "secret", ("orders.created",), ("_INBOX_first.>",))


def config_of(*users: BrokerUser, tls: BrokerTls | None = None) -> dict[str, Any]:
    """What nats-server is told, parsed."""
    text = nats_config(users, host="127.0.0.1", port=4222, monitor_port=8222, store="/tmp/store", tls=tls)
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def service(root: Path, name: str, section: str) -> None:
    """A service's description below a root."""
    (root / name).mkdir(parents=True)
    (root / name / "service.toml").write_text(f'name = "{name}"\nport = 8001\n{section}')


def test_the_real_server_takes_it(tmp_path: Path) -> None:
    rights = read_rights(ROOT)
    users = broker_users(rights, {name: f"password of {name}" for name in (*rights, "operator")})
    path = tmp_path / "nats.conf"
    path.write_text(
        nats_config([*users, DANCER], host="127.0.0.1", port=4222, monitor_port=8222, store=str(tmp_path))
    )
    done = subprocess.run([SERVER, "-t", "-c", path], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    path.write_text(path.read_text().replace('"max_payload"', '"max_payloads"'))
    refused = subprocess.run([SERVER, "-t", "-c", path], capture_output=True, text=True, timeout=20)
    assert refused.returncode != 0


def test_every_message_is_synced_and_everything_is_bounded() -> None:
    config = config_of(FIRST)
    assert config["jetstream"] == {
        "store_dir": "/tmp/store",
        "sync_interval": "always",
        "max_memory_store": MAX_MEMORY_BYTES,
        "max_file_store": MAX_FILE_BYTES,
    }
    assert config["listen"] == "127.0.0.1:4222"
    assert config["http"] == "127.0.0.1:8222"
    assert {"max_payload", "max_connections", "write_deadline", "ping_interval", "ping_max"} < config.keys()
    assert "tls" not in config


def test_there_is_no_user_without_a_password_and_no_anonymous_one() -> None:
    config = config_of(FIRST, DANCER)
    assert "no_auth_user" not in config
    assert all(user["password"] for told in config["accounts"].values() for user in told["users"])
    with pytest.raises(ValueError, match="no broker password for dancer, operator"):
        broker_users({"dancer": BrokerRights(("a",), ("b",))}, {"dancer": ""})


def test_a_participant_has_an_account_that_imports_its_subjects_and_holds_nothing() -> None:
    accounts = config_of(FIRST, DANCER)["accounts"]
    streams = accounts.pop(STREAMS_ACCOUNT)
    assert [user["user"] for user in streams["users"]] == ["first"]
    assert streams["jetstream"] == "enabled"
    assert [export["service"] for export in streams["exports"]] == list(DANCER.publish)
    assert all(export["accounts"] == ["dancer"] for export in streams["exports"])
    [own] = accounts.values()
    assert own.keys() == {"users", "imports"}
    assert [told["service"]["account"] for told in own["imports"]] == [STREAMS_ACCOUNT] * 3
    here = ["outcomes.dancer", f"$JS.{DOMAIN}.API.CONSUMER.MSG.NEXT.ORDERS.dancer", "$JS.ACK.ORDERS.dancer.>"]
    assert [told["to"] for told in own["imports"]] == here
    assert own["users"][0]["permissions"] == {
        "publish": {"allow": here},
        "subscribe": {"allow": ["_INBOX_dancer.>"]},
    }


def test_only_a_pull_may_be_answered_more_than_once() -> None:
    exports = config_of(DANCER)["accounts"][STREAMS_ACCOUNT]["exports"]
    streamed = [export["service"] for export in exports if export.get("response_type") == "stream"]
    assert streamed == ["$JS.API.CONSUMER.MSG.NEXT.ORDERS.dancer"]


def test_tls_is_asked_for_and_of_clients_too_where_there_is_an_authority() -> None:
    assert config_of(FIRST, tls=BrokerTls("c.pem", "k.pem"))["tls"] == {
        "cert_file": "c.pem",
        "key_file": "k.pem",
        "timeout": 2,
    }
    mutual = config_of(FIRST, tls=BrokerTls("c.pem", "k.pem", "ca.pem"))["tls"]
    assert (mutual["ca_file"], mutual["verify"]) == ("ca.pem", True)


@pytest.mark.parametrize("user", [BrokerUser("x", "p", (), ("a",)), BrokerUser("x", "p", ("a",), ())])
def test_a_user_without_a_list_of_subjects_is_refused(user: BrokerUser) -> None:
    with pytest.raises(ValueError, match="an empty list would allow every subject"):
        config_of(user)


def test_a_service_without_a_section_has_no_user(tmp_path: Path) -> None:
    service(tmp_path, "quiet", "")
    service(tmp_path, "loud", '[broker]\nparticipant = true\npublish = ["a"]\nsubscribe = ["b"]\n')
    assert read_rights(tmp_path) == {"loud": BrokerRights(("a",), ("b",), participant=True)}


@pytest.mark.parametrize(
    "section",
    [
        "broker = 1",
        '[broker]\npublish = ["a"]',
        '[broker]\npublish = "a"\nsubscribe = ["b"]',
        '[broker]\npublish = []\nsubscribe = ["b"]',
        '[broker]\npublish = [1]\nsubscribe = ["b"]',
        '[broker]\nparticipant = "yes"\npublish = ["a"]\nsubscribe = ["b"]',
    ],
)
def test_a_malformed_section_is_refused_by_the_name_of_its_file(section: str, tmp_path: Path) -> None:
    service(tmp_path, "odd", section)
    with pytest.raises(ValueError, match=r"odd/service\.toml"):
        read_rights(tmp_path)


def test_it_needs_the_standard_library_alone() -> None:
    code = "import sys; import lab.broker_config; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= {*sys.stdlib_module_names, "lab", "__main__"}
