"""Entries in `.later/` that wait for a limit, as the workers of this host have reported.

When a worker releases a slot of the limit, the oldest of them is promoted at once, so that slots are used as soon as
they are free. Where none is released here, another host may have released one: the oldest is promoted to try it, after
a second, and later the more rarely the longer it lasts. An entry that has a turn for a rate is promoted
then: its due time is the next whole second, in which the slots of a rate of `5/s` would be free for nothing. They are
counted for `status`, and not logged one by one.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

from maildefer.maildir.names import EntryName, due_of
from maildefer.maildir.system import SYSTEM, System
from maildefer.maildir.upkeep.promote import Promoter
from maildefer.pool.messages import EntryDeferred, SlotReleased
from maildefer.pool.scoreboard_views import QueueRecordView

_MOST = 20_000
_LATE_SECONDS = 5.0
_LOOK_SECONDS, _LONGEST_TRY_SECONDS = 1.0, 15.0
_TRY_SHARE = 4  # what has lasted for a minute is tried every 15 s
_MOST_TRIES = 20  # of limits, at a look
_STEP_MS = 50  # turns within it are promoted together


@dataclass(slots=True)
class _Waiting:
    """What waits for one limit."""

    names: list[str]  # a heap, so oldest first
    since: float  # the last release here, on the boot clock
    tried: float

    def is_to_be_tried(self, now: float) -> bool:
        pause = min((now - self.since) / _TRY_SHARE, _LONGEST_TRY_SECONDS)
        return bool(self.names) and now - self.tried >= max(pause, _LOOK_SECONDS)


class LimitedEntries:
    """Those of one queue; used by the thread of its chores."""

    def __init__(self, record: QueueRecordView, promoter: Promoter, *, system: System = SYSTEM) -> None:
        self._system = system
        self._record = record
        self._promoter = promoter
        self._waiting: dict[int, _Waiting] = {}  # by the limit's number
        self._look_at = 0.0
        self._turns: list[tuple[int, str]] = []  # a heap
        self._keys: set[str] = set()

    def receive(self, message: EntryDeferred | SlotReleased) -> None:
        """Note an entry that was deferred; or promote the oldest that waits for the limit. Raises OSError."""
        match message:
            case EntryDeferred(name=name, limit=limit, turn_ms=turn):
                self._promoter.note_deferred(name)
                if limit and len(self._keys) < _MOST:
                    if turn:
                        heapq.heappush(self._turns, (-(-turn // _STEP_MS) * _STEP_MS, name))
                    else:
                        now = self._system.boottime()
                        waiting = self._waiting.setdefault(limit, _Waiting([], now, now))
                        heapq.heappush(waiting.names, name)
                    self._keys.add(EntryName.parse(name).key)
            case SlotReleased(limit=limit):
                if (released := self._waiting.get(limit)) is not None:
                    released.since = released.tried = self._system.boottime()
                    self._promote_oldest(released)
        self._record.limited = len(self._keys)

    def promote_ready(self) -> None:
        """Promote those whose turn for a rate it is, and the oldest of limits of which nothing was heard for a while.

        Raises OSError; what failed is promoted when it is due.
        """
        now = self._system.boottime()
        if now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            for waiting in [one for one in self._waiting.values() if one.is_to_be_tried(now)][:_MOST_TRIES]:
                waiting.tried = now
                self._promote_oldest(waiting)
        while self._turns and self._turns[0][0] / 1000 <= now:  # as `next_at` has it
            name = heapq.heappop(self._turns)[1]
            self._keys.discard(EntryName.parse(name).key)
            self._promoter.promote_now(name)
        self._record.limited = len(self._keys)

    def next_at(self) -> float:
        """When `promote_ready` has something to do, on the boot clock."""
        turn = self._turns[0][0] / 1000 if self._turns else math.inf
        return min(turn, self._look_at) if self._waiting else turn

    def forget(self, key: str) -> bool:
        """Whether the entry of that key, which was promoted, had waited for a limit."""
        if key not in self._keys:
            return False
        self._keys.remove(key)
        self._record.limited = len(self._keys)
        return True

    def forget_past(self, mount_time: float) -> None:
        """Forget entries that other hosts must have promoted by now."""
        mount_time -= _LATE_SECONDS
        for limit, waiting in list(self._waiting.items()):
            past = [name for name in waiting.names if (due_of(name) or 0) <= mount_time]
            if past:
                self._keys -= {EntryName.parse(name).key for name in past}
                waiting.names = sorted(name for name in waiting.names if (due_of(name) or 0) > mount_time)
            if not waiting.names:
                del self._waiting[limit]
        self._record.limited = len(self._keys)

    def _promote_oldest(self, waiting: _Waiting) -> None:
        while waiting.names:
            name = heapq.heappop(waiting.names)
            self._keys.discard(EntryName.parse(name).key)
            if self._promoter.promote_now(name):
                break
