"""Opens the checkout service's resources and serves: `python -m checkout`."""

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import uvloop

from checkout.app import create_app
from checkout.broker import Broker
from checkout.choreography import Choreography
from checkout.clients import ServiceClient
from checkout.deps import Deps
from checkout.errors import catalogue
from checkout.journal import Journal
from checkout.metrics import CallMetrics, ChoreographyMetrics, OrderMetrics
from checkout.orchestration import CALLS, Orchestration
from checkout.participants import Participants
from checkout.passes import Passes
from checkout.resume import Resumer
from checkout.settings import Settings
from checkout.timeline import Timeline
from checkout.transport import http_transport
from checkout.watching import Watchers
from servicekit.auth import Authenticator, Caller, Credential
from servicekit.boot import boot, can_read, in_background
from servicekit.bus import Bus
from servicekit.db import Database
from servicekit.metrics import Metrics
from servicekit.server import serve
from servicekit.web import Health, NotReadyError

PASSES_END_WITHIN_S = 2.0
# A broker that is there is known before the first order; one that is not holds nobody up.
FIRST_LOOK_WITHIN_S = 2.0


async def main() -> None:
    """Run until told to stop."""
    settings = Settings.load()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(boot(Path(__file__).parent, settings))
        metrics = Metrics()
        order_metrics = OrderMetrics(metrics.registry)
        watchers = Watchers(settings.max_waiters)
        journal = Journal(
            database, watchers, delay_s=settings.outcome_delay_s, observe=metrics.batches.of("journal")
        )
        stack.push_async_callback(journal.aclose)
        passes = Passes(journal, settings, order_metrics)
        participants = Participants(database, journal)
        await participants.load()
        orchestration = await _orchestration(stack, settings, journal, passes, metrics)
        choreography = await _choreography(stack, settings, journal, passes, participants, metrics)
        # Ended first: what still runs may use all of the above.
        stack.push_async_callback(passes.aclose, PASSES_END_WITHIN_S)
        alone = database.dialect == "sqlite"  # nobody else serves this file, so nobody else holds a lease
        resumer = resumer_for(journal, passes, settings, orchestration, choreography, alone=alone)
        if not alone:
            await in_background(stack, watchers.poll(journal.refresh))
        await in_background(stack, resumer.run())
        health = Health(
            check=partial(check_ready, database, participants, settings.participants_expected()),
            on_drain=[watchers.close, database.hurry],
        )
        metrics.refreshers.append(partial(order_metrics.refresh, journal.census))
        deps = Deps(
            journal=journal,
            watchers=watchers,
            styles={"orchestration": orchestration, "choreography": choreography},
            participants=participants,
            kick_resumer=resumer.kick,
            emit=choreography.broker.emit,
            auth=authenticator(settings),
            catalogue=catalogue(settings.base_url),
            metrics=metrics,
            order_metrics=order_metrics,
            health=health,
            settings=settings,
        )
        await serve(create_app(deps), settings, health)


async def _orchestration(
    stack: AsyncExitStack,
    settings: Settings,
    journal: Journal,
    passes: Passes,
    metrics: Metrics,
) -> Orchestration:
    call_metrics = CallMetrics(metrics.registry)
    clients = {}
    for name in CALLS:
        connections = http_transport(settings.max_in_flight, settings.http_pool)
        transport = await stack.enter_async_context(connections)
        url, token = getattr(settings, f"{name}_url"), getattr(settings, f"{name}_token")
        clients[name] = ServiceClient(
            name,
            str(url),
            token.get_secret_value(),
            transport,
            settings,
            call_metrics,
            observe=metrics.batches.of(f"calls-{name}"),
        )
    return Orchestration(journal, passes, clients, settings.lease_s)


async def _choreography(
    stack: AsyncExitStack,
    settings: Settings,
    journal: Journal,
    passes: Passes,
    participants: Participants,
    metrics: Metrics,
) -> Choreography:
    timeline = settings.timeline == "on"
    bus = await stack.enter_async_context(Bus(settings))
    broker = Broker(bus, settings, participants.observe, metrics.batches.of("events"))
    choreography_metrics = ChoreographyMetrics(metrics.registry, broker.failing_s)
    await in_background(stack, broker.run())
    if timeline:
        await in_background(stack, Timeline(bus, journal, choreography_metrics).run())
    await broker.looked(FIRST_LOOK_WITHIN_S)
    return Choreography(journal, passes, broker, participants, settings.lease_s, timeline)


def resumer_for(
    journal: Journal,
    passes: Passes,
    settings: Settings,
    orchestration: Orchestration,
    choreography: Choreography,
    *,
    alone: bool,
) -> Resumer:
    """The resumer of both styles, told when what a style depends on is back."""
    clients, broker = orchestration.clients, choreography.broker
    performers = {"orchestration": orchestration.perform, "choreography": choreography.perform}
    is_failing = {
        "orchestration": lambda: any(client.failing for client in clients.values()),
        "choreography": lambda: broker.failing,
    }
    resumer = Resumer(journal, passes, performers, settings, is_failing, alone=alone)
    passes.on_room = resumer.kick
    passes.wait_s["orchestration"] = lambda: max(client.wait_s for client in clients.values())
    for client in clients.values():
        client.on_recovery = partial(resumer.recovered, "orchestration")
    broker.on_return = partial(resumer.recovered, "choreography")
    return resumer


def authenticator(settings: Settings) -> Authenticator:
    """Who may call: the operator, the callers by their keys, and anybody if there are none (on loopback)."""
    operator = Credential(settings.operator_token.get_secret_value(), Caller("operator", "operator"))
    callers = [
        Credential(key, Caller("caller", f"caller:{name}")) for name, key in settings.callers().items()
    ]
    anonymous = None if callers else Caller("caller", "anonymous")
    return Authenticator([operator, *callers], anonymous)


async def check_ready(database: Database, participants: Participants, expected: frozenset[str]) -> None:
    """Raise unless the database answers and everybody expected has joined once."""
    await database.read(can_read)
    if missing := sorted(expected - participants.ever()):
        raise NotReadyError(f"waiting for participants: {', '.join(missing)}")


if __name__ == "__main__":
    uvloop.run(main())
