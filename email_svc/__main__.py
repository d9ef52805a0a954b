"""Opens the e-mail service's resources and serves: `python -m email_svc`."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import uvloop
from prometheus_client import Counter

from email_svc.app import Deps, create_app
from email_svc.confirmations import Confirmation, Recorded, record_confirmations
from email_svc.consumer import participant
from email_svc.delivery import Deliverer, Policy
from email_svc.errors import catalogue
from email_svc.settings import Settings
from email_svc.smtp import SmtpPool
from servicekit.auth import by_role
from servicekit.batching import Batcher
from servicekit.boot import boot, can_read, in_background
from servicekit.bus import Bus
from servicekit.db import Database
from servicekit.metrics import Metrics
from servicekit.server import serve
from servicekit.web import Health

MAX_GROUP = 100
MAX_QUEUE = 2_000


async def main() -> None:
    """Run until told to stop."""
    settings = Settings.load()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(boot(Path(__file__).parent, settings))
        metrics = Metrics()
        wake = await start_delivery(stack, database, metrics, settings)
        record = partial(record_confirmations, deliver=settings.server is not None)
        confirmations: Batcher[Confirmation, Recorded] = Batcher(
            lambda commands: database.batch(record, commands),
            max_items=MAX_GROUP,
            max_queue=MAX_QUEUE,
            observe=metrics.batches.of("confirmations"),
            before=settings.simulated_wait,
        )
        stack.push_async_callback(confirmations.aclose)
        bus = await stack.enter_async_context(Bus(settings))
        await in_background(stack, participant(bus, database, settings, metrics.registry, wake).run())
        health = Health(check=lambda: database.read(can_read), on_drain=[database.hurry])
        deps = Deps(
            database=database,
            confirmations=confirmations,
            wake=wake,
            auth=by_role(operator=settings.operator_token, conductor=settings.conductor_token),
            catalogue=catalogue(settings.base_url),
            metrics=metrics,
            health=health,
            settings=settings,
        )
        await serve(create_app(deps), settings, health)


async def start_delivery(
    stack: AsyncExitStack, database: Database, metrics: Metrics, settings: Settings
) -> Callable[[], None]:
    """Deliver in the background until the stack closes, and return how to wake it; with `null:` never."""
    if settings.server is None:
        return lambda: None
    counted = Counter(
        "email_deliveries", "Attempts, by what became of them.", ["outcome"], registry=metrics.registry
    )
    pool = SmtpPool(settings.server, size=settings.smtp_connections, timeout_s=settings.smtp_timeout_s)
    stack.push_async_callback(pool.aclose)
    policy = Policy(
        sender=settings.origin,
        workers=settings.smtp_connections,
        claim_size=settings.claim_size,
        lease_s=settings.lease_s,
        attempt_s=settings.attempt_s,
        poll_s=settings.poll_s,
        give_up_s=settings.give_up_s,
    )
    deliverer = Deliverer(database, pool.send, policy, observe=lambda outcome: counted.labels(outcome).inc())
    await stack.enter_async_context(deliverer)
    return deliverer.wake


if __name__ == "__main__":
    uvloop.run(main())
