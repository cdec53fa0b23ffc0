"""The mount's time, by which deferred entries are due, kept against the boot clock.

The boot clock cannot be set, so a wall clock that is put right moves no due time meanwhile. A local filesystem goes by
this host's wall clock, and is set with it.
"""

from __future__ import annotations

from maildefer import events
from maildefer.maildir.due import MountOffset, mount_offset
from maildefer.maildir.layout import Layout
from maildefer.maildir.system import System
from maildefer.pool.scoreboard import Scoreboard
from maildefer.pool.scoreboard_views import QueueRecordView

_EVERY_SECONDS = 60.0
_SET_SECONDS = 1.0
_TRIES = 3
_WARNING_SECONDS = 60.0


class MountTime:
    """The time of one queue's mount, on the scoreboard; for the keeper's threads."""

    def __init__(self, board: Scoreboard, index: int, layout: Layout, name: str, system: System) -> None:
        self._board = board
        self._index = index
        self._record = QueueRecordView(board, index)
        self._layout = layout
        self._name = name
        self._system = system
        self._own_seen = self._due = 0.0

    def now(self) -> float:
        return self._board.mount_time(self._index, self._system.time(), self._system.boottime())

    def measure_first(self) -> None:
        """Measure before the first claim, unless a keeper before this one did. Raises OSError."""
        if not self._record.clock_offset:
            self.measure()

    def measure(self) -> None:
        """Measure the mount's clock; warn if ours differs. Raises OSError, and then keeps what was known."""
        board, began = self._board, self._system.boottime()
        own = self._own_offset()
        if not self._record.is_local:
            found = self._measured()
            offset, is_exact = found.least, found.is_exact  # the least, so that none is promoted early
            if is_exact or not self._record.clock_offset:  # else what is known is nearer
                board.set_clock_offset(self._index, offset)
            if is_exact and abs(offset - own) > _WARNING_SECONDS:
                events.emit("clock.differs", queue=self._name, offset_ms=events.ms(offset - own))
        self._own_seen, self._due = own, began + _EVERY_SECONDS

    def _measured(self) -> MountOffset:
        """Measure; again if that took long and nothing is known, as an offset that is seconds off would be kept."""
        found = mount_offset(self._layout, system=self._system)
        for _ in range(_TRIES - 1):
            if found.is_exact or self._record.clock_offset:
                break
            again = mount_offset(self._layout, system=self._system)
            found = again if again.width < found.width else found
        return found

    def measure_at(self) -> float:
        """Compute when to measure, on the boot clock: once a minute, and as soon as our wall clock was set."""
        was_set = abs(self._own_offset() - self._own_seen) > _SET_SECONDS
        return 0.0 if was_set else self._due

    def _own_offset(self) -> float:
        """Compute our wall clock less our boot clock, which changes when the former is set."""
        return self._system.time() - self._system.boottime()
