"""The bus and the broker over TLS, with certificates made here: each proves itself, or nothing is said."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from checkout.broker import ORDERS
from lab.broker_config import BrokerTls
from servicekit.bus import Bus
from tests.broker.secured import CREATED, bus_of, secured_broker, settings_of
from tests.servicekit.kettle import until
from tests.support.broker import Broker

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@dataclass(frozen=True)
class Pair:
    """A certificate that vouches for itself, and its key."""

    cert: Path
    key: Path


def pair(folder: Path, name: str) -> Pair:
    """Make one for 127.0.0.1."""
    made = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    extensions = ("subjectAltName=IP:127.0.0.1", "keyUsage=critical,digitalSignature,keyCertSign")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        + ["-days", "2", "-subj", f"/CN={name}", "-keyout", str(made.key), "-out", str(made.cert)]
        + [part for extension in extensions for part in ("-addext", extension)],
        check=True,
        capture_output=True,
        timeout=20,
    )
    return made


async def is_refused(broker: Broker, caplog: pytest.LogCaptureFixture, **given: Any) -> bool:
    """Whether an attempt to connect fails, and none succeeded."""
    caplog.clear()
    async with Bus(settings_of("checkout", broker.url, **given)) as bus:
        await until(lambda: bus.connected or bool(caplog.records))
        return not bus.connected


async def test_a_service_knows_the_broker_by_its_authority_and_talks_to_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own, other = pair(tmp_path, "own"), pair(tmp_path, "other")
    with secured_broker(tmp_path, tls=BrokerTls(str(own.cert), str(own.key))) as broker:
        async with bus_of("checkout", broker, nats_ca=own.cert) as bus:
            await bus.ensure_stream(ORDERS)
            assert (await bus.publish(CREATED, b"{}")).sequence == 1
        assert await is_refused(broker, caplog)
        assert await is_refused(broker, caplog, nats_ca=other.cert)


async def test_a_broker_may_want_its_clients_certificates_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own, client, other = (pair(tmp_path, name) for name in ("own", "client", "other"))
    with secured_broker(tmp_path, tls=BrokerTls(str(own.cert), str(own.key), str(client.cert))) as broker:
        async with bus_of(
            "checkout", broker, nats_ca=own.cert, nats_cert=client.cert, nats_key=client.key
        ) as bus:
            assert (await bus.ensure_stream(ORDERS)).last_sequence == 0
        assert await is_refused(broker, caplog, nats_ca=own.cert)
        assert await is_refused(broker, caplog, nats_ca=own.cert, nats_cert=other.cert, nats_key=other.key)


async def test_a_service_that_wants_tls_tells_a_broker_without_it_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = pair(tmp_path, "own")
    with secured_broker(tmp_path) as broker:
        assert not await is_refused(broker, caplog)
        assert await is_refused(broker, caplog, nats_ca=own.cert)
        assert "offers no TLS" in vars(caplog.records[-1])["error"]
