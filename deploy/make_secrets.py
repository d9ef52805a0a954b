"""Make the secrets that compose.yaml reads, once: random tokens and database URLs.

`python3 deploy/make_secrets.py` writes deploy/secrets/ and leaves alone what is there. Standard library only.
"""

import secrets
from pathlib import Path

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


def _write(name: str, value: str) -> str:
    path = FOLDER / name
    if not path.exists():
        path.touch()
        path.chmod(0o644)  # compose mounts it for the service's own user; the folder keeps others out
        path.write_text(value)
    return path.read_text()


if __name__ == "__main__":
    main()
