"""Opens the warehouse service's resources and serves: `python -m warehouse_svc`."""

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import uvloop

from servicekit.auth import by_role
from servicekit.batching import Batcher
from servicekit.boot import boot, can_read, in_background
from servicekit.bus import Bus
from servicekit.metrics import Metrics
from servicekit.server import serve
from servicekit.web import Health
from warehouse_svc.app import Deps, create_app
from warehouse_svc.consumer import participant
from warehouse_svc.errors import catalogue
from warehouse_svc.settings import Settings
from warehouse_svc.shipments import Prepared, PrepareShipment, prepare_shipments

MAX_GROUP = 100
MAX_QUEUE = 2_000


async def main() -> None:
    """Run until told to stop."""
    settings = Settings.load()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(boot(Path(__file__).parent, settings))
        metrics = Metrics()
        prepare = partial(prepare_shipments, rules=settings.stock_rules)
        shipments: Batcher[PrepareShipment, Prepared] = Batcher(
            lambda commands: database.batch(prepare, commands),
            max_items=MAX_GROUP,
            max_queue=MAX_QUEUE,
            observe=metrics.batches.of("shipments"),
            before=settings.simulated_wait,
        )
        stack.push_async_callback(shipments.aclose)
        bus = await stack.enter_async_context(Bus(settings))
        await in_background(stack, participant(bus, database, settings, metrics.registry).run())
        health = Health(check=lambda: database.read(can_read), on_drain=[database.hurry])
        deps = Deps(
            database=database,
            shipments=shipments,
            auth=by_role(operator=settings.operator_token, conductor=settings.conductor_token),
            catalogue=catalogue(settings.base_url),
            metrics=metrics,
            health=health,
            settings=settings,
        )
        await serve(create_app(deps), settings, health)


if __name__ == "__main__":
    uvloop.run(main())
