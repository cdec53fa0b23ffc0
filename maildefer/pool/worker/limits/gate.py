"""Before the claim: in a queue whose one handler is limited as a whole, a worker without a slot claims nothing.

So what waits there stays in `new/`, and is neither moved nor logged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from maildefer.backoff import backoff_seconds
from maildefer.errors import StorageFault
from maildefer.handling.limits.limit import LimitUse
from maildefer.pool.worker.limits.worker_limits import WorkerLimits

_FIRST_SECONDS, _LONGEST_SECONDS = 0.02, 1.0


class LimitGate:
    """The gate of one queue, as one worker passes it. `hold` keeps an offer for so many seconds."""

    def __init__(
        self,
        limits: WorkerLimits,
        uses: Sequence[LimitUse],
        hold: Callable[[list[str], float], object],
        note_fault: Callable[[StorageFault, str], object],
    ) -> None:
        self.limits = limits
        self.waits = True  # whether a slot of a quick handler is waited for
        self._uses = tuple(uses)
        self._hold = hold
        self._note_fault = note_fault
        self._closed = 0  # how often in a row

    def holds(self, names: list[str]) -> bool:
        """Take the slots for one message; where there are none, hold the offer for a while, longer each time."""
        try:
            seconds = self.limits.take_ahead(self._uses, waits=self.waits, name=names[0])
        except StorageFault as fault:
            self._note_fault(fault, names[0])
            seconds = _LONGEST_SECONDS
        if seconds is None:
            self._closed = 0
            return False
        pause = backoff_seconds(self._closed, first_seconds=_FIRST_SECONDS, longest_seconds=_LONGEST_SECONDS)
        self._closed += 1
        self._hold(names, max(seconds, pause))
        return True

    def leave(self) -> None:
        """Release slots for which no message came."""
        self.limits.release_ahead()
