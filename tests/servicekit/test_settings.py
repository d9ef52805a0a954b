"""Settings: from the environment and from files, checked at once, and never a secret in an error."""

from pathlib import Path
from typing import Any

import pytest

from checkout.settings import Settings as CheckoutSettings
from tests.checkout.world import settings_for
from tests.servicekit.conftest import Settings

GOOD = {
    "KETTLE_DATABASE_URL": "sqlite:///x.db",
    "KETTLE_OPERATOR_TOKEN": "keeper-token-0123",
    "KETTLE_NATS_URL": "nats://broker.test:4222",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def refused(capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit) as ended:
        Settings.load()
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()


def test_settings_come_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("KETTLE_PORT", "9000")
    environment.setenv("KETTLE_PUBLIC_URL", "https://tea.example/api/")
    environment.setenv("OTHER_PORT", "1")
    loaded = Settings.load()
    assert (loaded.port, loaded.base_url) == (9000, "https://tea.example/api")


@pytest.mark.parametrize(
    ("host", "url", "loopback"),
    [
        ("127.0.0.1", "http://127.0.0.1:8009", True),
        ("127.8.8.8", "http://127.8.8.8:8009", True),
        ("localhost", "http://localhost:8009", True),
        ("::1", "http://[::1]:8009", True),
        ("0.0.0.0", "http://0.0.0.0:8009", False),
        ("::", "http://[::]:8009", False),
        ("10.0.0.1", "http://10.0.0.1:8009", False),
        ("kettle.example", "http://kettle.example:8009", False),
    ],
)
def test_a_host_makes_an_address_and_is_on_loopback_or_not(
    environment: pytest.MonkeyPatch, host: str, url: str, loopback: bool
) -> None:
    environment.setenv("KETTLE_HOST", host)
    loaded = Settings.load()
    assert (loaded.base_url, loaded.on_loopback) == (url, loopback)


def test_a_missing_setting_is_named_by_its_variable(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.delenv("KETTLE_DATABASE_URL")
    [line] = refused(capsys)
    assert line.startswith("KETTLE_DATABASE_URL: ")
    assert "_FILE" in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "x"),
        ("MIGRATE", "maybe"),
        ("DRAIN_S", "-1"),
        ("LOG_LEVEL", "x"),
    ],
)
def test_a_bad_setting_is_one_line(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    environment.setenv(f"KETTLE_{name}", value)
    [line] = refused(capsys)
    assert line.startswith(f"KETTLE_{name}: ")


def test_a_short_token_is_refused_without_being_shown(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("KETTLE_OPERATOR_TOKEN", "hush")
    [line] = refused(capsys)
    assert line.startswith("KETTLE_OPERATOR_TOKEN: ")
    assert "hush" not in line


def test_any_setting_may_come_from_a_file(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("token-from-a-file-0123\n")
    environment.delenv("KETTLE_OPERATOR_TOKEN")
    environment.setenv("KETTLE_OPERATOR_TOKEN_FILE", str(secret))
    environment.setenv("KETTLE_SUGAR_FILE", str(secret))
    loaded = Settings.load()
    assert loaded.operator_token.get_secret_value() == "token-from-a-file-0123"
    assert loaded.sugar is not None
    assert loaded.sugar.get_secret_value() == "token-from-a-file-0123"
    assert "token-from" not in repr(loaded)


def test_a_file_that_cannot_be_read_is_one_line(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    environment.delenv("KETTLE_OPERATOR_TOKEN")
    environment.setenv("KETTLE_OPERATOR_TOKEN_FILE", str(tmp_path / "missing"))
    [line] = refused(capsys)
    assert line.startswith("KETTLE_OPERATOR_TOKEN_FILE: cannot read ")


def test_a_setting_and_its_file_together_are_refused(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    environment.setenv("KETTLE_OPERATOR_TOKEN_FILE", str(tmp_path))
    [line] = refused(capsys)
    assert "both set" in line


def test_a_broker_may_be_a_cluster(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("KETTLE_NATS_URL", "tls://a.test:4222, tls://b.test,tls://[::1]:4222")
    loaded = Settings.load()
    assert loaded.broker_urls == ["tls://a.test:4222", "tls://b.test", "tls://[::1]:4222"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NATS_URL", "broker.test:4222"),
        ("NATS_URL", "http://broker.test"),
        ("NATS_URL", "nats://:4222"),
        ("NATS_URL", "nats://broker.test:70000"),
        ("NATS_URL", "nats://broker.test/x"),
        ("NATS_URL", "nats://a.test,"),
        ("NATS_USER", "a.b"),
        ("NATS_USER", "*"),
        ("NATS_CA", "/no/such/file"),
    ],
)
def test_a_bad_setting_of_the_broker_is_one_line(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    environment.setenv(f"KETTLE_{name}", value)
    [line] = refused(capsys)
    assert line.startswith(f"KETTLE_{name}: ")


def test_a_password_has_no_place_in_the_broker_s_url(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("KETTLE_NATS_URL", "nats://kettle:hush@broker.test:4222")
    [line] = refused(capsys)
    assert line.startswith("KETTLE_NATS_URL: ")
    assert "hush" not in line


def test_a_certificate_comes_with_its_key(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    certificate = tmp_path / "kettle.pem"
    certificate.touch()
    environment.setenv("KETTLE_NATS_CERT", str(certificate))
    [line] = refused(capsys)
    assert "NATS_KEY" in line


def checkout(**given: Any) -> CheckoutSettings:
    return settings_for("sqlite:///x.db", **given)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "shop.example"])
def test_checkout_opens_to_the_outside_only_with_caller_keys(host: str) -> None:
    with pytest.raises(ValueError, match="CALLER_KEYS"):
        checkout(host=host)
    assert checkout(host=host, caller_keys="shop:shop-key-0123456789").callers()


@pytest.mark.parametrize(
    ("keys", "callers"),
    [
        (None, {}),
        ("a:" + "k" * 16, {"a": "k" * 16}),
        (f" a:{'k' * 16} , b:{'l' * 16},", {"a": "k" * 16, "b": "l" * 16}),
        (f"a:{'k' * 16}\nb:{'l' * 16}\n", {"a": "k" * 16, "b": "l" * 16}),
        (f"a:{'k:' * 8}", {"a": "k:" * 8}),
    ],
)
def test_caller_keys_are_pairs_of_name_and_key(keys: str | None, callers: dict[str, str]) -> None:
    assert checkout(caller_keys=keys).callers() == callers


@pytest.mark.parametrize("keys", [",", "a", "a:", ":" + "k" * 16, "a:short", f"a:{'k' * 16},a:{'l' * 16}"])
def test_malformed_caller_keys_are_refused(keys: str) -> None:
    with pytest.raises(ValueError, match="CALLER_KEYS"):
        checkout(caller_keys=keys)


def test_a_pass_must_end_before_its_lease_and_hear_how_an_emission_ends() -> None:
    with pytest.raises(ValueError, match="LEASE_S"):
        checkout(pass_timeout_s=15, lease_s=15)
    with pytest.raises(ValueError, match="PUBLISH_TIMEOUT_S"):
        checkout(pass_timeout_s=2, publish_timeout_s=2)
