"""The wires inside the supervisor: which services stand behind proxies, and at which ports.

A service behind its wires listens at a hidden port and is told of the broker at another, where its proxies
stand; its public port and URL stay what they were. It stays there until `duet up` ends: clear weather passes
everything on. It refuses a broker over TLS, whose names a proxy would break.
"""

import asyncio
import random
import socket
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from lab.control import Deploy
from lab.environment import Behind
from lab.errors import FAILED, LabError
from lab.system import BROKER, CONDUCTOR, HOST, System, discover_services
from lab.wire.proxy import Proxy
from lab.wire.talk import Draws
from lab.wire.weather import CLEAR, Weather, in_words, read_weather

WIRES = ("rest", "broker")
HIDDEN_PORTS = range(10_000, 20_000)  # below those that systems give to outgoing connections
TRIES = 200
OPEN_WITHIN_S = 12.0  # a service's start; with the end of its predecessor within a request's 30 s
NATS_PORT = 4222


class Placed:
    """The services of one system that stand behind wires; `behind` tells how each is started."""

    def __init__(self, system: System, notice: Callable[[str], None]) -> None:
        self.behind: dict[str, Behind] = {}
        self._system = system
        self._notice = notice
        self._proxies: dict[str, dict[str, Proxy]] = {}
        self._placing = asyncio.Lock()

    def place(self, name: str) -> None:
        """Put proxies before a service that is (re)started next; raise `LabError` where it has no wires."""
        public = self._wireable(name)
        here, far = self._hidden_ports()
        url = urlsplit(self._system.broker_url)
        login, at, _ = url.netloc.rpartition("@")
        self.behind[name] = Behind(here, f"nats://{login}{at}{HOST}:{far}")
        upstreams = {
            "rest": (public, (HOST, here)),
            "broker": (far, (url.hostname or HOST, url.port or NATS_PORT)),
        }
        self._proxies[name] = {
            wire: Proxy(port, upstream, Draws(f"{name} {wire}"), self._notice)
            for wire, (port, upstream) in upstreams.items()
        }
        for proxy in self._proxies[name].values():
            proxy.start()

    def place_all(self) -> None:
        """Put proxies before every service that has wires."""
        for service in self._system.services:
            if service.name != CONDUCTOR:
                self.place(service.name)

    def process_ended(self, name: str) -> None:
        """A process has ended: what stands before it refuses connections at once."""
        for service, proxies in self._proxies.items():
            if name == service:
                proxies["rest"].close_door()
            if name == BROKER:
                proxies["broker"].close_door()

    async def weather(self, deploy: Deploy, name: str | None, arguments: Any) -> dict[str, Any]:
        """What the control channel's verb `weather` does: set it where arguments say so, and tell the state.

        Raises `LabError` for what is no weather, a service without wires, and one that cannot be started
        anew behind its wires now.
        """
        if name is None:
            return {service: self._state(service) for service in self._proxies}
        if not arguments:
            self._wireable(name)
            return self._state(name)
        weather, wires = _read(arguments)
        if name not in self._proxies:
            self._wireable(name)
            if weather == CLEAR:
                return {}
            await self._place_now(deploy, name)
        for wire in wires:
            self._proxies[name][wire].draws.change(weather)
        self._notice(f"{name}'s weather on {' and '.join(wires)}: {in_words(weather)}")
        return self._state(name)

    async def end(self) -> None:
        """Take all proxies away."""
        await asyncio.gather(*(proxy.end() for both in self._proxies.values() for proxy in both.values()))

    async def _place_now(self, deploy: Deploy, name: str) -> None:
        """Start a running service anew behind its wires, and return once it takes connections."""
        async with self._placing:
            if name in self._proxies:
                return
            self.place(name)
            try:
                await deploy(name)
            except LabError:
                del self.behind[name]
                await asyncio.gather(*(proxy.end() for proxy in self._proxies.pop(name).values()))
                raise
            try:
                async with asyncio.timeout(OPEN_WITHIN_S):
                    await self._proxies[name]["rest"].opened.wait()
            except TimeoutError:
                raise LabError(
                    f"{name} was started anew behind its wires, and takes no connections yet: "
                    f"look into {self._system.log_file(name)}, and ask again",
                    FAILED,
                ) from None

    def _state(self, name: str) -> dict[str, Any]:
        return {wire: proxy.state() for wire, proxy in self._proxies.get(name, {}).items()}

    def _wireable(self, name: str) -> int:
        """The public port of a service that can stand behind wires; raise `LabError` for any other name."""
        services = {service.name: service for service in discover_services() if service.name != CONDUCTOR}
        if name not in services:
            raise LabError(f"{name} has no wires: give one of {', '.join(services)}")
        url = urlsplit(self._system.broker_url)
        if url.scheme != "nats" or "," in url.netloc:
            raise LabError(
                f"{name} cannot stand behind wires: its broker is one over TLS, whose names a proxy "
                "would break, or several; start the system on one broker at nats://host:port"
            )
        return self._system.port_base + services[name].port_offset

    def _hidden_ports(self) -> tuple[int, int]:
        """Two free ports that no service of the system has or was promised."""
        taken = {proxy.port for both in self._proxies.values() for proxy in both.values()}
        taken |= {behind.port for behind in self.behind.values()}
        taken |= set(range(self._system.port_base, self._system.port_base + 40))
        found: list[int] = []
        for port in random.sample(HIDDEN_PORTS, TRIES):
            if port not in taken and _is_free(port):
                found.append(port)
            if len(found) == len(WIRES):
                return found[0], found[1]
        raise LabError(f"no two free ports from {HIDDEN_PORTS.start} to {HIDDEN_PORTS.stop - 1}", FAILED)


def _read(arguments: Any) -> tuple[Weather, tuple[str, ...]]:
    if not isinstance(arguments, Mapping):
        raise LabError("that is no weather")
    wire = arguments.get("wire", "both")
    if wire not in (*WIRES, "both"):
        raise LabError(f"there is no wire {wire}: give {', '.join(WIRES)} or both")
    return read_weather(arguments.get("weather")), WIRES if wire == "both" else (wire,)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
