"""`duet deploy`: a service brought to what its code and settings are now, beside the others, which run on.

A service that was not there when `duet up` began is found by its `service.toml`, and gets what the others
have: a token, a database, a user at the broker. The broker itself is never ended: it hears of new rights by
SIGHUP, so that nobody's connection is lost. It refuses a name that no `service.toml` has.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from lab import broker, folder
from lab.control import Deploy
from lab.environment import Behind
from lab.processes import make_programs
from lab.supervisor import Supervisor
from lab.system import BROKER, Mail, System, discover_services

# Of an account that a reload brings, the imports work from the next reload on (measured, nats-server 2.15.1).
RELOADS = 2
RELOAD_PAUSE_S = 0.3


def deployer(system: System, mail: Mail, supervisor: Supervisor, behind: Mapping[str, Behind]) -> Deploy:
    """What the supervisor does for `duet deploy NAME`; `behind` is read each time."""
    return partial(_deploy, system, mail, supervisor, behind)


async def _deploy(
    began_as: System, mail: Mail, supervisor: Supervisor, behind: Mapping[str, Behind], name: str
) -> str:
    system = replace(began_as, services=discover_services())
    ours = system.nats_url is None
    if not (ours and name == BROKER):
        system.service(name)
    if ours and broker.make_files(system):
        for _ in range(RELOADS):
            supervisor.reload(BROKER)
            await asyncio.sleep(RELOAD_PAUSE_S)
    if name == BROKER and ours:
        return f"{BROKER} knows the rights of every service"
    folder.make_tokens(system)
    [program] = [each for each in make_programs(system, mail, behind) if each.name == name]
    # By itself, once its predecessor has let go of the file: two processes must not write one SQLite file.
    migrating = {f"{name.upper()}_MIGRATE": "auto"}
    return await supervisor.deploy(replace(program, environment=program.environment | migrating))
