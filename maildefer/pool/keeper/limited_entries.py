"""Entries in `.later/` that wait for a limit, as the workers of this host have reported.

When a worker releases a slot of the limit, the oldest of them is promoted at once, so that slots are used as soon as
they are free; their due times are for what this host does not know of. An entry that has a turn for a rate is promoted
then: its due time is the next whole second, in which the slots of a rate of `5/s` would be free for nothing. They are
counted for `status`, and not logged one by one.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator

from maildefer.maildir.names import EntryName, due_of
from maildefer.maildir.system import SYSTEM, System
from maildefer.maildir.upkeep.promote import Promoter
from maildefer.pool.messages import EntryDeferred, SlotReleased
from maildefer.pool.scoreboard_views import QueueRecordView

_MOST = 20_000
_LATE_SECONDS = 5.0
_STEP_MS = 50  # turns within it are promoted together


class LimitedEntries:
    """Those of one queue; used by the thread of its chores."""

    def __init__(self, record: QueueRecordView, promoter: Promoter, *, system: System = SYSTEM) -> None:
        self._system = system
        self._record = record
        self._promoter = promoter
        self._names: dict[int, deque[str]] = {}  # by the limit's number, oldest first
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
                        self._names.setdefault(limit, deque()).append(name)
                    self._keys.add(EntryName.parse(name).key)
            case SlotReleased(limit=limit):
                for name in self._oldest(limit):
                    self._keys.discard(EntryName.parse(name).key)
                    if self._promoter.promote_now(name):
                        break
        self._record.limited = len(self._keys)

    def promote_turns(self) -> None:
        """Promote those whose turn for a rate it is. Raises OSError; what failed is promoted when it is due."""
        now = self._system.boottime() * 1000
        while self._turns and self._turns[0][0] <= now:
            name = heapq.heappop(self._turns)[1]
            self._keys.discard(EntryName.parse(name).key)
            self._promoter.promote_now(name)
        self._record.limited = len(self._keys)

    def next_turn(self) -> float:
        """When `promote_turns` has something to do, on the boot clock."""
        return self._turns[0][0] / 1000 if self._turns else math.inf

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
        for limit, waiting in list(self._names.items()):
            past = [name for name in waiting if (due_of(name) or 0) <= mount_time]
            if past:
                self._keys -= {EntryName.parse(name).key for name in past}
                self._names[limit] = deque(name for name in waiting if (due_of(name) or 0) > mount_time)
            if not self._names[limit]:
                del self._names[limit]
        self._record.limited = len(self._keys)

    def _oldest(self, limit: int) -> Iterator[str]:
        waiting = self._names.get(limit)
        while waiting:
            yield waiting.popleft()
