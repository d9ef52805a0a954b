"""Opens the checkout service's resources and serves: `python -m checkout`."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from checkout.app import create_app
from checkout.clients import ServiceClient, http_transport
from checkout.deps import Deps
from checkout.errors import catalogue
from checkout.journal import Journal
from checkout.metrics import CallMetrics, OrderMetrics
from checkout.orchestration import CALLS, Orchestration
from checkout.passes import Passes
from checkout.resume import Resumer
from checkout.settings import Settings
from checkout.watching import Watchers
from servicekit.auth import Authenticator, Caller, Credential
from servicekit.boot import boot, can_read
from servicekit.metrics import Metrics
from servicekit.server import serve
from servicekit.web import Health

PASSES_END_WITHIN_S = 2.0


async def main() -> None:
    """Run until told to stop."""
    settings = Settings.load()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(boot(Path(__file__).parent, settings))
        metrics = Metrics()
        order_metrics = OrderMetrics(metrics.registry)
        watchers = Watchers(settings.max_waiters)
        journal = Journal(
            database, watchers, lambda kind, n: order_metrics.group_size.labels(kind).observe(n)
        )
        stack.push_async_callback(journal.aclose)
        passes = Passes(journal, settings, order_metrics)
        clients = await _clients(stack, settings, CallMetrics(metrics.registry))
        stack.push_async_callback(passes.aclose, PASSES_END_WITHIN_S)
        orchestration = Orchestration(journal, passes, clients, settings.lease_s)
        resumer = Resumer(
            journal,
            passes,
            {"orchestration": orchestration.perform},
            settings,
            is_failing=lambda: any(client.failing for client in clients.values()),
        )
        for client in clients.values():
            client.on_recovery = resumer.recovered
        if database.dialect == "sqlite":  # nobody else serves this file, so nobody else holds a lease
            await journal.make_all_due(leased_too=True)
        else:
            await _in_background(stack, watchers.poll(journal.refresh))
        await _in_background(stack, resumer.run())
        health = Health(check=lambda: database.read(can_read), on_drain=[watchers.close, database.hurry])
        metrics.refreshers.append(partial(order_metrics.refresh, journal.census))
        deps = Deps(
            journal=journal,
            watchers=watchers,
            styles={"orchestration": orchestration},
            kick_resumer=resumer.kick,
            auth=authenticator(settings),
            catalogue=catalogue(settings.base_url),
            metrics=metrics,
            order_metrics=order_metrics,
            health=health,
            settings=settings,
        )
        await serve(create_app(deps), settings, health)


def authenticator(settings: Settings) -> Authenticator:
    """Who may call: the operator, the callers by their keys, and anybody if there are none (on loopback)."""
    operator = Credential(settings.operator_token.get_secret_value(), Caller("operator", "operator"))
    callers = [
        Credential(key, Caller("caller", f"caller:{name}")) for name, key in settings.callers().items()
    ]
    anonymous = None if callers else Caller("caller", "anonymous")
    return Authenticator([operator, *callers], anonymous)


async def _clients(
    stack: AsyncExitStack, settings: Settings, metrics: CallMetrics
) -> dict[str, ServiceClient]:
    clients = {}
    for name in CALLS:
        transport = await stack.enter_async_context(http_transport(settings.max_in_flight))
        url, token = getattr(settings, f"{name}_url"), getattr(settings, f"{name}_token")
        clients[name] = ServiceClient(name, str(url), token.get_secret_value(), transport, settings, metrics)
    return clients


async def _in_background(stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)


if __name__ == "__main__":
    uvloop.run(main())
