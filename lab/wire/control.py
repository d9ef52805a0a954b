"""How a program sets and reads the weather of a running `duet up`, over the supervisor's control channel.

It refuses a service that has no wires: checkout, the broker and the mailbox.
"""

from typing import Any, Literal

from lab.control import call
from lab.system import System
from lab.wire.weather import Weather, as_document

Wire = Literal["rest", "broker"]
Wires = Literal["rest", "broker", "both"]
WireState = dict[str, Any]  # by wire, as `Proxy.state` tells it


def set_weather(system: System, name: str, weather: Weather, wire: Wires = "both") -> WireState:
    """Set the weather on a service's wires, and return their state; clear weather on both ends it.

    A service that stands behind no wires yet is started anew behind them, which takes until it takes
    connections again, at most about half a minute; not for clear weather. Raises `LabError` where the
    supervisor refuses.
    """
    told = {"weather": as_document(weather), "wire": wire}
    state: WireState = call(system, "weather", name, told)
    return state


def read_weather(system: System, name: str | None = None) -> WireState:
    """The state of a service's wires, empty where it has none; without a name, of all services by name."""
    state: WireState = call(system, "weather", name)
    return state
