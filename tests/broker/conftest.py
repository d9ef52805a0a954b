"""Brokers for a module's tests: one with the services' own rights, and two that are laxer, for comparison."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from lab.broker_config import BrokerRights
from tests.broker.secured import RIGHTS, prepare, secured_broker
from tests.support.broker import Broker

EVERYTHING = BrokerRights(publish=(">",), subscribe=(">",))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker with the services' own rights; no test changes what it holds."""
    with secured_broker(tmp_path_factory.mktemp("secured")) as running:
        asyncio.run(prepare(running))
        yield running


@pytest.fixture(scope="module")
def permissive_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker on which every service may do everything."""
    rights = dict.fromkeys(RIGHTS, EVERYTHING)
    with secured_broker(tmp_path_factory.mktemp("permissive"), rights) as running:
        yield running


@pytest.fixture(scope="module")
def flat_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker with the services' own rights, but with one account for all."""
    rights = {name: replace(right, participant=False) for name, right in RIGHTS.items()}
    with secured_broker(tmp_path_factory.mktemp("flat"), rights) as running:
        yield running
