"""What `duet up` tells each service of a system by its environment: ports, URLs, tokens, the broker.

It refuses nothing: whatever else a service can be told, it hears from the caller's own environment.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from lab.broker_config import DOMAIN
from lab.system import CONDUCTOR, HOST, Mail, Service, System, Tokens

DEFAULT_STOCK = 100_000  # of each SKU that is seen for the first time, so that a trial run has what to ship
SENDER = "shop@example.com"


@dataclass(frozen=True, slots=True)
class Behind:
    """Where a service that stands behind proxies listens, and where it finds the broker."""

    port: int
    nats_url: str


def make_environment(
    system: System, mail: Mail = "smtp", behind: Mapping[str, Behind] | None = None
) -> dict[str, dict[str, str]]:
    """By service name, the settings that `duet up` gives that service, secrets included.

    `behind`: by name, the services that stand behind proxies; to the others they are where they always were.
    """
    tokens = system.tokens()
    passwords = system.broker_passwords() if system.nats_url is None else {}
    told = {
        service.name: _settings(system, tokens, service, mail) | _broker_settings(system, passwords, service)
        for service in system.services
    }
    for name, hidden in (behind or {}).items():
        told[name] |= {"PORT": str(hidden.port), "NATS_URL": hidden.nats_url}
    return {
        name: {f"{name.upper()}_{key}": value for key, value in settings.items()}
        for name, settings in told.items()
    }


def _broker_settings(system: System, passwords: Mapping[str, str], service: Service) -> dict[str, str]:
    """How a service reaches the broker; its login at somebody else's is the caller's to tell."""
    settings = {"NATS_URL": system.broker_url}
    if service.name in passwords:
        settings |= {"NATS_USER": service.name, "NATS_PASSWORD": passwords[service.name]}
        if service.participant:  # in an account of its own, from where the streams are in another domain
            settings["NATS_DOMAIN"] = DOMAIN
    if service.name == CONDUCTOR:
        participants = (other.name for other in system.services if other.participant)
        settings["EXPECTED_PARTICIPANTS"] = ",".join(participants)
    return settings


def _settings(system: System, tokens: Tokens, service: Service, mail: Mail) -> dict[str, str]:
    called = system.called_by(service)
    settings = {
        "HOST": HOST,
        "PORT": str(system.port(service.name)),
        "DATABASE_URL": f"sqlite:///{system.database_file(service.name)}",
        "PUBLIC_URL": system.url(service.name),
        "OPERATOR_TOKEN": tokens.operator,
        "MIGRATE": "never",  # one process has migrated all of them before any of them starts
    }
    settings |= {f"{other.name.upper()}_URL": system.url(other.name) for other in called}
    settings |= {f"{other.name.upper()}_TOKEN": tokens.conductor(other.name) for other in called}
    if service.name != CONDUCTOR:
        settings["CONDUCTOR_TOKEN"] = tokens.conductor(service.name)
    if service.name == "email":
        settings["SMTP_URL"] = "null:" if mail == "null" else f"smtp://{HOST}:{system.smtp_port}"
        settings["SENDER"] = os.environ.get("EMAIL_SENDER", SENDER)
    if service.name == "warehouse":
        settings["INITIAL_STOCK"] = os.environ.get("WAREHOUSE_INITIAL_STOCK", str(DEFAULT_STOCK))
        settings["DEV_SKUS"] = os.environ.get("WAREHOUSE_DEV_SKUS", "true")
    return settings
