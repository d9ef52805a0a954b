"""Opens the invoice service's resources and serves: `python -m invoice_svc`."""

from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from invoice_svc.app import Deps, create_app
from invoice_svc.consumer import participant
from invoice_svc.errors import catalogue
from invoice_svc.invoices import Bill, Outcome, issue_invoices
from invoice_svc.settings import Settings
from servicekit.auth import by_role
from servicekit.batching import Batcher
from servicekit.boot import boot, can_read, in_background
from servicekit.bus import Bus
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
        bills: Batcher[Bill, Outcome] = Batcher(
            lambda commands: database.batch(issue_invoices, commands),
            max_items=MAX_GROUP,
            max_queue=MAX_QUEUE,
            observe=metrics.batches.of("bills"),
            before=settings.simulated_wait,
        )
        stack.push_async_callback(bills.aclose)
        bus = await stack.enter_async_context(Bus(settings))
        await in_background(stack, participant(bus, database, settings, metrics.registry).run())
        health = Health(check=lambda: database.read(can_read), on_drain=[database.hurry])
        deps = Deps(
            database=database,
            bills=bills,
            auth=by_role(operator=settings.operator_token, conductor=settings.conductor_token),
            catalogue=catalogue(settings.base_url),
            metrics=metrics,
            health=health,
            settings=settings,
        )
        await serve(create_app(deps), settings, health)


if __name__ == "__main__":
    uvloop.run(main())
