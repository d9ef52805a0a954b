"""The exchanges on a wire: where each begins, what befalls it, and what that makes of each piece.

An exchange begins when the connecting side sends after the other side has sent, or at first: so it is a
request and its reply in HTTP with keep-alive, and in NATS whatever a client says and what it hears upon it.
Decisions only: whoever owns the sockets asks for one with each piece, and carries it out.
"""

from typing import Literal

from lab.wire.weather import CLEAR, KINDS, Fate, Kind, Weather, fate

RequestMove = Literal["pass", "drop", "reset"]
ReplyMove = Literal["pass", "drop", "reset", "delay", "drip", "cut"]

_REPLY_MOVES: dict[Kind | None, ReplyMove] = {
    None: "pass",
    "delay": "delay",
    "drip": "drip",
    "cut": "cut",
    "lose": "reset",
    "reset": "reset",  # drawn too late to hold the request back: what is left to reset is the reply
    "swallow": "drop",
}


class Draws:
    """The fates of one wire's exchanges, over all its connections, and how many were hit by what.

    `exchanges` and `hit` count from the beginning, whatever the weather; an exchange under way when the
    weather changes is drawn again, and counts once for each weather. `weather_number` is another after each
    change.
    """

    def __init__(self, wire: str) -> None:
        self.weather = CLEAR
        self.weather_number = 0
        self.exchanges = 0
        self.hit: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        self._wire = wire
        self._drawn = 0

    def change(self, weather: Weather) -> None:
        """Draw from this weather from now on, beginning with its first number."""
        self.weather = weather
        self.weather_number += 1
        self._drawn = 0

    def draw(self) -> Fate:
        """The fate of the next exchange."""
        drawn = fate(self.weather, self._wire, self._drawn)
        self._drawn += 1
        self.exchanges += 1
        if drawn.kind is not None:
            self.hit[drawn.kind] += 1
        return drawn


class Talk:
    """The exchanges of one connection; `fate` is that of the exchange under way.

    What came before the connecting side sent anything belongs to no exchange, and passes.
    """

    def __init__(self, draws: Draws) -> None:
        self.fate = Fate()
        self._draws = draws
        self._drawn_for = draws.weather_number
        self._begun = False
        self._answered = True

    def asked(self) -> RequestMove:
        """The connecting side has sent a piece: what to do with it."""
        if self._answered or self._is_stale():
            self._draw()
        self._begun, self._answered = True, False
        if self.fate.kind == "reset":
            return "reset"
        return "drop" if self.fate.kind == "swallow" and not self.fate.passed else "pass"

    def answered(self) -> ReplyMove:
        """The other side has sent a piece: what to do with it."""
        if not self._begun:
            return "pass"
        if self._is_stale():
            self._draw()
        self._answered = True
        return _REPLY_MOVES[self.fate.kind]

    def _is_stale(self) -> bool:
        return self._drawn_for != self._draws.weather_number

    def _draw(self) -> None:
        if self.fate.kind != "swallow":  # whose stream has holes already: it can only end
            self.fate = self._draws.draw()
            self._drawn_for = self._draws.weather_number


def slices(piece: bytes, most: int) -> list[bytes]:
    """A piece in slices of equal length, at most so many, none of them empty."""
    size = max(1, -(-len(piece) // most))
    return [piece[start : start + size] for start in range(0, len(piece), size)]


def cut(reply: bytes, at: float) -> bytes:
    """The first bytes of a reply, never all of them; `at` is a share, 0 <= at < 1."""
    return reply[: int(at * len(reply))]
