"""Runs the mailbox.

Its settings are `MAILBOX_` and HOST, PORT (of the page), SMTP_PORT, FOLDER, MAX_MESSAGES, MAX_BYTES.
It refuses an address that other machines reach, and ends with code 2 on a setting that it cannot use.
"""

import asyncio
import contextlib
import ipaddress
import os
import signal
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from lab.mailbox.page import create_app
from lab.mailbox.smtp import serve_smtp
from lab.mailbox.store import MailStore

EXIT_BAD_SETTINGS = 2
EXIT_FAILED = 1


@dataclass(frozen=True)
class Settings:
    """What the mailbox is told; sizes in bytes."""

    host: str
    port: int
    smtp_port: int
    folder: Path
    max_messages: int
    max_bytes: int


def read_settings(environment: dict[str, str]) -> Settings:
    """Read and check the settings; raise `ValueError` with what is wrong."""

    def number(name: str, default: int) -> int:
        told = environment.get(f"MAILBOX_{name}", str(default))
        if not told.isdecimal() or int(told) < 1:
            raise ValueError(f"MAILBOX_{name}: {told!r} is no number above 0")
        return int(told)

    host = environment.get("MAILBOX_HOST", "127.0.0.1")
    if not ipaddress.ip_address(host).is_loopback:
        raise ValueError(
            f"MAILBOX_HOST: {host} is not on loopback, and the mailbox asks nobody for a password"
        )
    return Settings(
        host=host,
        port=number("PORT", 8026),
        smtp_port=number("SMTP_PORT", 8025),
        folder=Path(environment.get("MAILBOX_FOLDER", "mail")),
        max_messages=number("MAX_MESSAGES", 10_000),
        max_bytes=number("MAX_BYTES", 256 * 1024 * 1024),
    )


class PageServer(uvicorn.Server):
    """uvicorn, but signals are `serve`'s: a SIGTERM ends page and SMTP together, with exit code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the signals alone."""
        yield


async def serve(settings: Settings) -> None:
    """Take mail and show it until SIGTERM or SIGINT; raise `OSError` where port or folder are unusable."""
    store = MailStore(settings.folder, settings.max_messages, settings.max_bytes)
    await asyncio.to_thread(store.open)
    # One thread: writing is one file after the other anyway, and the queue is bounded by the clients.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="mail") as executor:
        smtp = await serve_smtp(settings.host, settings.smtp_port, store, executor)
        hosts = [settings.host, "127.0.0.1", "localhost"]
        config = uvicorn.Config(
            create_app(store, smtp.is_serving, hosts),
            host=settings.host,
            port=settings.port,
            http="httptools",
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        server = PageServer(config)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, _ask_to_exit, server)
        try:
            await server.serve()
        finally:
            smtp.close()


def _ask_to_exit(server: uvicorn.Server) -> None:
    server.should_exit = True


def main() -> int:
    """Run the mailbox and return its exit code."""
    try:
        settings = read_settings(dict(os.environ))
    except ValueError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_SETTINGS
    try:
        asyncio.run(serve(settings))
    except OSError as error:
        print(f"the mailbox cannot run: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
