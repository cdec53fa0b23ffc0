"""Promoting deferred entries when they are due: the due time is in the name, so no entry is opened for it.

Every host's keeper promotes; whose rename comes second finds nothing.
"""

from __future__ import annotations

import heapq

from maildefer.maildir import names, scan
from maildefer.maildir.journal import journal_of
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName
from maildefer.maildir.system import SYSTEM, System

HEAP = 10_000  # the next due times that are held in memory
_SHARE = 100  # a listing may take a hundredth of the time
LONGEST_RELIST_SECONDS = 60.0


class Promoter:
    """The deferred entries of one queue; one thread only."""

    def __init__(self, layout: Layout, *, system: System = SYSTEM) -> None:
        self._layout = layout
        self._system = system
        self._heap: list[tuple[int, str]] = []
        self._known: set[str] = set()
        self._relist_at = 0.0

    def hear(self, name: str) -> None:
        """A name that this host has just put into `.later/new/`; beyond twice the heap, the next listing tells."""
        due = EntryName.parse(name).due
        if due is not None and name not in self._known and len(self._heap) < 2 * HEAP:
            self._known.add(name)
            heapq.heappush(self._heap, (due, name))

    def relist(self) -> None:
        """Read `.later/new/` anew if it is time to: as seldom as the listing is long. Raises OSError."""
        began = self._system.boottime()
        if began < self._relist_at:
            return
        listed = scan.entries(self._layout.later_new, system=self._system)
        dues = ((EntryName.parse(name).due or 0, name) for name in listed)  # without a due time: due at once
        self._heap = heapq.nsmallest(HEAP, dues)  # sorted, and so a heap
        self._known = {name for _, name in self._heap}
        took = self._system.boottime() - began
        self._relist_at = began + min(max(took * _SHARE, 1.0), LONGEST_RELIST_SECONDS)

    def next_due(self) -> int | None:
        """When the next known entry is due, in the mount's time."""
        return self._heap[0][0] if self._heap else None

    def promote(self, mount_time: float) -> list[str]:
        """Move what is due to `new/`; returns the keys. Raises OSError; what was not moved stays known."""
        promoted = []
        while self._heap and self._heap[0][0] <= mount_time:
            name = self._heap[0][1]
            entry = names.carried(EntryName.parse(name), "later", self._system)
            back = f"{self._layout.new}/{entry.returned().waiting()}"
            if (journal := journal_of(self._layout, self._system)) is not None:
                journal.moves(entry.key, back)
            try:
                self._system.rename(f"{self._layout.later_new}/{name}", back)
                promoted.append(entry.key)
            except FileNotFoundError:  # another host did it, or an operator
                pass
            heapq.heappop(self._heap)
            self._known.discard(name)
        return promoted
