"""A participant that waits for something else: each event on its own, few at a time, none lost or twice."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from servicekit import participant
from servicekit.simulation import MAX_IN_HAND, SimulatedTroubleError, Simulation
from tests.servicekit.kettle import settings_for, until
from tests.servicekit.test_participant import Party, party_at, wanted
from tests.support.broker import Broker


class Gates:
    """Waits that end when a test says so, in the order in which they began."""

    def __init__(self) -> None:
        self.begun: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        self.begun.append(asyncio.get_running_loop().create_future())
        await self.begun[-1]

    def open(self, number: int) -> None:
        self.begun[number].set_result(None)

    async def begun_are(self, count: int) -> None:
        """Wait until so many have begun, and see that no more do."""
        await until(lambda: len(self.begun) >= count)
        await asyncio.sleep(0.1)
        assert len(self.begun) == count


def waits_of(party: Party, gates: Gates, **given: float) -> None:
    """From its next start on, the kettle's waits are these."""
    party.settings = settings_for(party.settings.nats_url, **given)
    vars(party.settings)["simulated_wait"] = gates.wait  # where the cached property would keep it


@pytest.fixture
async def party(broker: Broker, sqlite_url: str) -> AsyncIterator[Party]:
    async with party_at(broker, sqlite_url) as party:
        yield party


async def test_events_finish_in_the_order_of_their_own_waits_and_a_slow_one_holds_nobody_up(
    party: Party,
) -> None:
    gates = Gates()
    waits_of(party, gates)
    await party.want(*map(wanted, ("slow", "later", "sooner")))
    party.start()
    await gates.begun_are(3)
    for number, name in ((2, "sooner"), (1, "later")):
        gates.open(number)
        await party.all_told(name)
    await party.want(wanted("next"))  # fetched while another still waits
    await gates.begun_are(4)
    gates.open(3)
    await party.all_told("next")
    assert party.handled == [["sooner"], ["later"], ["next"]]
    gates.open(0)
    await party.settled()
    assert party.handled[-1] == ["slow"]


async def test_an_event_for_which_there_is_nothing_to_do_waits_for_nothing(party: Party) -> None:
    gates = Gates()
    waits_of(party, gates)
    await party.want(*map(wanted, ("tea", "water")))
    party.start()
    await party.all_told("water")
    await gates.begun_are(1)
    assert (await party.told())["water"]["status"] == "skipped"
    gates.open(0)
    await party.settled()
    assert (await party.told())["tea"]["status"] == "succeeded"


async def test_events_whose_waits_end_together_share_a_transaction(party: Party) -> None:
    gates = Gates()
    waits_of(party, gates)
    names = [f"tea{number}" for number in range(5)]
    await party.want(*map(wanted, names))
    party.start()
    await gates.begun_are(5)
    for number in range(5):
        gates.open(number)
    await party.settled()
    assert party.handled == [names]


async def test_no_more_events_are_in_hand_than_the_limit_and_the_others_wait_in_the_stream(
    party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(participant, "MAX_IN_HAND", 3)
    gates = Gates()
    waits_of(party, gates)
    names = [f"tea{number}" for number in range(7)]
    await party.want(*map(wanted, names))
    party.start()
    await gates.begun_are(3)
    [durable] = await party.bus.durables("TEAS")
    assert durable.waiting >= 4
    gates.open(1)
    await gates.begun_are(4)
    for number in (0, 2, 3):
        gates.open(number)
    await gates.begun_are(7)
    for number in (4, 5, 6):
        gates.open(number)
    await party.settled()
    assert await party.made() == names
    assert [party.tries_of(name) for name in names] == [1] * 7


async def test_an_event_that_waits_longer_than_the_broker_does_is_delivered_to_nobody_else(
    party: Party,
) -> None:
    gates = Gates()
    waits_of(party, gates, ack_wait_s=1.0)
    await party.want(wanted("slow"))
    party.start()
    await gates.begun_are(1)
    await asyncio.sleep(2.5)
    assert len(gates.begun) == 1
    gates.open(0)
    await party.settled()
    assert (await party.told())["slow"]["attempts"] == 1


async def test_what_still_waits_at_the_end_is_delivered_again_and_has_its_effect_once(party: Party) -> None:
    gates = Gates()
    waits_of(party, gates, ack_wait_s=1.0)
    await party.want(wanted("left"), wanted("done"))
    party.start()
    await gates.begun_are(2)
    gates.open(1)
    await party.all_told("done")
    await party.stop()
    assert gates.begun[0].cancelled()
    party.settings = settings_for(party.settings.nats_url, ack_wait_s=1.0)
    party.start()
    await party.settled()
    assert await party.made() == ["done", "left"]
    assert (await party.told())["left"]["attempts"] > 1


async def test_each_has_one_effect_however_often_it_comes_and_fails(party: Party) -> None:
    party.settings = settings_for(
        party.settings.nats_url, simulate_time="exponential:5ms", simulate_errors="30%", simulate_capacity=500
    )
    names = sorted(f"tea{number}" for number in range(MAX_IN_HAND + 16))
    await party.want(*map(wanted, names), *map(wanted, reversed(names)))
    party.start()
    await party.settled()
    assert await party.made() == names
    assert [party.tries_of(name) for name in names] == [1] * len(names)
    assert party.counted("events_handled_total", outcome="succeeded") == len(names)
    assert party.counted("events_handled_total", outcome="repeated") == len(names)
    assert party.counted("event_trouble_total", error=SimulatedTroubleError.__name__) > 0


async def test_a_simulated_error_is_trouble_and_no_refusal(party: Party) -> None:
    party.settings = settings_for(party.settings.nats_url, simulate_errors="100%")
    await party.want(wanted("green"))
    party.start()
    await until(lambda: party.counted("event_trouble_total", error=SimulatedTroubleError.__name__) > 5)
    assert party.handled == []
    assert await party.told() == {}
    await party.stop()
    party.settings = settings_for(party.settings.nats_url)
    party.start()
    await party.settled()
    told = (await party.told())["green"]
    assert (told["status"], told["attempts"] > 5) == ("succeeded", True)


async def test_without_a_simulation_nothing_waits(party: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("there is nothing to simulate")

    monkeypatch.setattr(participant, "InHand", refuse)
    monkeypatch.setattr(Simulation, "serve", refuse)
    await party.want(*map(wanted, ("a", "b")))
    party.start()
    await party.settled()
    assert party.handled == [["a", "b"]]
