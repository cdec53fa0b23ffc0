"""Destinations that are down, as one worker keeps their messages from them (`maildir.upkeep.closures`)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Self

from maildefer import events
from maildefer.handling.outcomes import Deferred, Outcome
from maildefer.maildir.layout import Layout
from maildefer.maildir.system import System
from maildefer.maildir.upkeep.closures import LAST_FAILURES, Closures

_LIVELY_SECONDS = 5.0  # one that has answered since is not down: it may have too many connections
_SPREAD = 4  # the last of those that wait is later by a quarter of the time
_AGAIN_SECONDS = 1.0
_MOST_KNOWN = 1000


class DownDestinations:
    """What one message at a time needs; `beside` makes that of another one in the same worker."""

    def __init__(
        self,
        layout: Layout,
        now: Callable[[], float],
        lifetime_seconds: float,
        places: int,
        draw: Callable[[float, float], float],
        system: System,
    ) -> None:
        """`places`: so many messages may be in flight in the worker."""
        self._closures = Closures(layout, now=now, draw=draw, system=system)
        self._lifetime_seconds = lifetime_seconds
        self._draw = draw
        self._system = system
        self._places = places
        self._in_flight: dict[str, int] = {}
        self._counted = ""
        self._answered: dict[str, float] = {}  # by destination: when it last did, on the boot clock
        self._trial = ""
        self._is_late = False

    def beside(self) -> Self:
        other = copy.copy(self)
        other._counted, other._trial, other._is_late = "", "", False
        return other

    def take_place(self, destination: str) -> bool:
        """Take a place in the worker, unless it has as many as are left: so slow ones leave some to others."""
        others, left = self._in_flight.get(destination, 0), self._places - sum(self._in_flight.values())
        if others >= max(left, 1):
            return False
        self._counted, self._in_flight[destination] = destination, others + 1
        return True

    def wait(self, destination: str, age_seconds: float) -> float:
        """For how long a message of that age waits; 0 where its destination is open, may be tried, or it is too old."""
        self._is_late = False
        seconds = self._closures.seconds_closed(destination)
        if seconds is None:
            return 0.0
        failures = self._closures.failures(destination)
        self._is_late = age_seconds >= self._lifetime_seconds and failures >= LAST_FAILURES
        return self._spread(seconds) if seconds and not self._is_late else 0.0

    def begin(self, destination: str) -> float:
        """Begin the trial where one is due; returns for how long the message waits if another process tries it."""
        if not self._is_late and self._closures.seconds_closed(destination) is not None:
            if not self._closures.begin_trial(destination):
                return self._closures.seconds_closed(destination) or _AGAIN_SECONDS
            self._trial = destination
        return 0.0

    def give_up(self) -> None:
        """Let others make a trial for which no message came."""
        if self._trial:
            self._closures.give_up_trial(self._trial)
        self._trial, self._is_late = "", False
        self._count_no_more()

    def end(self, destination: str, outcome: Outcome | None) -> float | None:
        """Note what became of a message; for how long it waits if its destination is down. Raises StorageFault's kinds.

        A destination that has answered is open: whatever it said.
        """
        if self._is_late or outcome is None or getattr(getattr(outcome, "fault", None), "is_untried", False):
            self.give_up()
            return None
        self._count_no_more()
        self._trial, now = "", self._system.boottime()
        if not (isinstance(outcome, Deferred) and outcome.is_down):
            if len(self._answered) >= _MOST_KNOWN:
                self._answered.clear()
            self._answered[destination] = now
            if self._closures.open(destination):
                events.emit("destination.opened", destination=destination)
            return None
        if now - self._answered.get(destination, -_LIVELY_SECONDS) < _LIVELY_SECONDS:
            return self._draw(_LIVELY_SECONDS / 2, _LIVELY_SECONDS)
        seconds, is_own = self._closures.close(destination, outcome.reason)
        if is_own:
            wait_ms = events.ms(seconds)
            events.emit("destination.closed", destination=destination, error=outcome.reason, wait_ms=wait_ms)
        return self._spread(seconds)

    def _count_no_more(self) -> None:
        left = self._in_flight.pop(self._counted, 0) - 1
        if left > 0:
            self._in_flight[self._counted] = left
        self._counted = ""

    def _spread(self, seconds: float) -> float:
        return seconds + self._draw(0.0, seconds / _SPREAD)
