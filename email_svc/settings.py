"""The e-mail service's settings: `EMAIL_*` in the environment.

Refuses a sender that is not one address, and an SMTP URL that could not work or would send a password
in the clear over a network.
"""

from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from email_svc.addresses import Address, parse_sender
from email_svc.smtp import Server
from servicekit.settings import BrokerUser, ParticipantSettings

SMTP_PORT = 25
SMTPS_PORT = 465
# Claimed at once for each connection: the last of them is tried within this many attempts' time.
CLAIMED_PER_CONNECTION = 2
# What a lease allows for besides the attempts themselves: a slow database after each.
LEASE_RESERVE_S = 20.0


def parse_smtp_url(url: str) -> Server | None:
    """The server of `smtp://[USER:PASSWORD@]HOST[:PORT]` or `smtps://…`; None for `null:`.

    Raises ValueError.
    """
    if url == "null:":
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise ValueError("use smtp://HOST:PORT, smtps://USER:PASSWORD@HOST or null:")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("an SMTP URL ends with the port")
    secure = parts.scheme == "smtps"
    return Server(
        host=parts.hostname,
        port=parts.port or (SMTPS_PORT if secure else SMTP_PORT),
        tls=secure,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


def _smtp_url(url: SecretStr) -> SecretStr:
    parse_smtp_url(url.get_secret_value())
    return url


def _sender(sender: str) -> str:
    parse_sender(sender)
    return sender


class Settings(ParticipantSettings):
    """What the e-mail service can be told, beyond what every service can."""

    model_config = SettingsConfigDict(env_prefix="EMAIL_")

    port: int = Field(8001, ge=1, le=65_535)
    nats_user: BrokerUser = "email"
    conductor_token: SecretStr = Field(min_length=16)
    smtp_url: Annotated[SecretStr, AfterValidator(_smtp_url)]
    sender: Annotated[str, AfterValidator(_sender)] = "Duet Shop <orders@shop.example>"
    smtp_connections: int = Field(4, ge=1, le=64)
    smtp_timeout_s: float = Field(10.0, gt=0, le=120)
    poll_s: float = Field(1.0, gt=0, le=60)
    give_up_s: float = Field(5 * 86_400.0, gt=0)

    @property
    def origin(self) -> Address:
        """Whom the mail comes from."""
        return parse_sender(self.sender)

    @property
    def server(self) -> Server | None:
        """Where mail is handed over; None: nowhere, confirmations are only recorded."""
        return parse_smtp_url(self.smtp_url.get_secret_value())

    @property
    def claim_size(self) -> int:
        """How many confirmations one claim takes."""
        return CLAIMED_PER_CONNECTION * self.smtp_connections

    @property
    def attempt_s(self) -> float:
        """How long one attempt may take: to connect, and to hand over."""
        return 2 * self.smtp_timeout_s

    @property
    def lease_s(self) -> float:
        """How long a claim is good for: until then nobody else tries the same confirmations."""
        return CLAIMED_PER_CONNECTION * self.attempt_s + LEASE_RESERVE_S
