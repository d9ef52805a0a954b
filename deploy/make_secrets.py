"""Make the secrets that compose.yaml reads: random tokens, database URLs, and the broker's users.

`python3 deploy/make_secrets.py` writes deploy/secrets/ and leaves alone what is there; only nats.conf, which
follows from the passwords and from each `service.toml`, is written anew. Python 3.11's standard library only.
"""

import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lab.broker_config import OPERATOR, broker_users, nats_config, read_rights  # noqa: E402 - found there

FOLDER = Path(__file__).parent / "secrets"
DATABASES = ("checkout", "email", "warehouse", "rewards")
TOKENS = ("operator_token", "email_token", "warehouse_token", "rewards_token")


def main() -> None:
    """Write what is missing."""
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    for name in TOKENS:
        _write(name, secrets.token_urlsafe(32))
    _write("caller_keys", f"shop:{secrets.token_urlsafe(32)}")
    password = _write("postgres_password", secrets.token_urlsafe(32))
    for name in DATABASES:
        _write(f"{name}_database_url", f"postgresql+psycopg://postgres:{password}@postgres:5432/{name}")
    rights = read_rights(ROOT)
    passwords = {name: _write(f"nats_{name}", secrets.token_urlsafe(32)) for name in (*rights, OPERATOR)}
    host = "0.0.0.0"  # noqa: S104 - of the container, which publishes no port
    users = broker_users(rights, passwords)
    config = nats_config(users, host=host, port=4222, monitor_port=8222, store="/data")
    _write("nats.conf", config, anew=True)


def _write(name: str, value: str, *, anew: bool = False) -> str:
    path = FOLDER / name
    if anew or not path.exists():
        path.touch()
        path.chmod(0o644)  # compose mounts it for the service's own user; the folder keeps others out
        path.write_text(value)
    return path.read_text()


if __name__ == "__main__":
    main()
