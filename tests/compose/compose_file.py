"""compose.yaml as data, and its services' commands and environments on loopback instead of a network."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE = ROOT / "compose.yaml"
SECRETS = "/run/secrets/"


def compose() -> dict[str, Any]:
    """The file, with anchors merged."""
    parsed: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return parsed


def our_services(document: Mapping[str, Any]) -> dict[str, Any]:
    """The services that are built here: the four, and their migrations."""
    return {name: told for name, told in document["services"].items() if "build" in told}


def command_of(service: Mapping[str, Any]) -> list[str]:
    """Its command, by this interpreter."""
    program, *arguments = service["command"]
    assert program == "python"
    return [sys.executable, *arguments]


def environment_of(
    service: Mapping[str, Any], ports: Mapping[str, int], port: int | None, secrets: Path
) -> dict[str, str]:
    """Its environment: other services on loopback at their `ports`, its own `port`, secrets as files."""

    def on_loopback(found: re.Match[str]) -> str:
        return f"127.0.0.1:{ports[found[1]]}"

    environment = {}
    for name, value in service["environment"].items():
        if name.endswith("_HOST"):
            assert value == "0.0.0.0"
            value = "127.0.0.1"
        elif name.endswith("_PORT"):
            value = str(port)
        elif value.startswith(SECRETS):
            value = str(secrets / value.removeprefix(SECRETS))
        environment[name] = re.sub(r"\b([a-z]+):\d+\b", on_loopback, value)
    return environment
