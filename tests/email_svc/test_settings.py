"""What the service can be told, and what it refuses to be told."""

from typing import Any

import pytest

from email_svc.settings import Settings, parse_smtp_url
from email_svc.smtp import Server

GIVEN: dict[str, Any] = {
    "database_url": "sqlite:////tmp/none.db",
    "operator_token": "operator-token-0123",
    "conductor_token": "conductor-token-0123",
    "nats_url": "nats://127.0.0.1:1",
}


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("null:", None),
        ("smtp://127.0.0.1:8025", Server("127.0.0.1", 8025)),
        ("smtp://mail.example", Server("mail.example", 25)),
        ("smtp://[::1]:2525", Server("::1", 2525)),
        ("smtps://me%40x:p%3Aw@mail.example", Server("mail.example", 465, True, "me@x", "p:w")),
    ],
)
def test_a_mail_server_is_named_by_its_url(url: str, server: Server | None) -> None:
    assert parse_smtp_url(url) == server


@pytest.mark.parametrize(
    "url", ["", "null", "http://x", "smtp://", "smtp://x:99999", "smtp://x/path", "x:25"]
)
def test_any_other_url_ends_the_process_with_the_name_of_the_setting(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        Settings.load(**GIVEN, smtp_url=url)
    assert "EMAIL_SMTP_URL" in capsys.readouterr().err


def test_a_bad_sender_ends_the_process_with_the_name_of_the_setting(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        Settings.load(**GIVEN, smtp_url="null:", sender="a@x.org, b@x.org")
    assert "EMAIL_SENDER" in capsys.readouterr().err


def test_a_lease_outlasts_all_attempts_of_one_claim() -> None:
    settings = Settings(**GIVEN, smtp_url="smtp://x", smtp_timeout_s=120, smtp_connections=64)
    rounds = settings.claim_size / settings.smtp_connections
    assert settings.lease_s > rounds * settings.attempt_s
