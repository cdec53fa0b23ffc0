"""A pause between forks when children die at once, as Postfix's master makes one."""

from __future__ import annotations

from maildefer import events
from maildefer.backoff import backoff_seconds

DEATHS = 5
_FIRST_SECONDS, _LONGEST_SECONDS = 1.0, 60.0


class ForkThrottle:
    """Counts deaths in a row before a first settle; five, and forks are a second apart, then up to a minute."""

    def __init__(self) -> None:
        self._deaths = 0
        self._not_before = 0.0

    @property
    def deaths(self) -> int:
        return self._deaths

    def note_death(self, settled: int, now: float) -> None:
        """Note that a child died that the supervisor did not end, after so many settles."""
        if settled:
            self.note_success()
            return
        self._deaths += 1
        if self._deaths >= DEATHS:
            seconds = backoff_seconds(
                self._deaths - DEATHS, first_seconds=_FIRST_SECONDS, longest_seconds=_LONGEST_SECONDS
            )
            self._not_before = now + seconds
            events.emit("pool.throttled", deaths=self._deaths, pause_ms=events.ms(seconds))

    def note_success(self) -> None:
        """Note that a child has done its work."""
        self._deaths = 0
        self._not_before = 0.0

    def wait(self, now: float) -> float:
        """Seconds until the next fork is allowed."""
        return max(0.0, self._not_before - now)
