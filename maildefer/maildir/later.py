"""Promoting deferred entries when they are due: the due time is in the name, so no entry is opened for it.

Every host's keeper promotes; whose rename comes second finds nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from maildefer.maildir import names, scan
from maildefer.maildir.journal import journal_of
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName
from maildefer.maildir.refusals import IN_A_ROW, Refusals
from maildefer.maildir.system import SYSTEM, System

HEAP = 10_000  # the next due times that are held in memory
_SHARE = 100  # a listing may take a hundredth of the time
LONGEST_RELIST_SECONDS = 60.0


class Promoter:
    """The deferred entries of one queue; one thread only."""

    def __init__(self, layout: Layout, *, refusals: Refusals | None = None, system: System = SYSTEM) -> None:
        self._layout = layout
        self._refusals = Refusals(system=system) if refusals is None else refusals
        self._system = system
        self._heap: list[tuple[int, str]] = []
        self._known: set[str] = set()
        self._relist_at = 0.0

    def hear(self, name: str) -> None:
        """A name that this host has just put into `.later/new/`; beyond twice the heap, the next listing tells."""
        due = EntryName.parse(name).due
        if name in self._known or name in self._refusals:
            return
        if due is not None and len(self._heap) < 2 * HEAP:
            self._known.add(name)
            heapq.heappush(self._heap, (due, name))

    def relist(self) -> None:
        """Read `.later/new/` anew if it is time to: as seldom as the listing is long. Raises OSError.

        What was refused waits for its own pause, as long as it is listed.
        """
        began = self._system.boottime()
        if began < self._relist_at:
            return
        listed = self._listed()
        dues = ((EntryName.parse(name).due or 0, name) for name in listed)  # without a due time: due at once
        self._heap = heapq.nsmallest(HEAP, dues)  # sorted, and so a heap
        self._known = {name for _, name in self._heap}
        took = self._system.boottime() - began
        self._relist_at = began + min(max(took * _SHARE, 1.0), LONGEST_RELIST_SECONDS)

    def _listed(self) -> Iterator[str]:
        found = scan.entries(self._layout.later_new, system=self._system)
        if not len(self._refusals):
            yield from found
            return
        still: set[str] = set()
        for name in found:
            if name in self._refusals:
                still.add(name)
            else:
                yield name
        self._refusals.keep(still)

    def next_due(self) -> int | None:
        """When the next known entry is due, in the mount's time."""
        return self._heap[0][0] if self._heap else None

    def promote(self, mount_time: float) -> list[str]:
        """Move what is due to `new/`; returns the keys. What is refused is tried again later, by itself.

        Raises OSError where many in a row are refused; what was not tried stays known.
        """
        promoted: list[str] = []
        in_a_row = 0
        for name in self._due(mount_time):
            try:
                key = self._move(name)
            except OSError as fault:
                self._refusals.note(name, fault)
                in_a_row += 1
                if in_a_row >= IN_A_ROW:
                    if promoted:
                        break
                    raise
            else:
                self._refusals.forget(name)
                in_a_row = 0
                promoted += [key] if key else []
        return promoted

    def _due(self, mount_time: float) -> Iterator[str]:
        """Those that were refused and whose pause is over come last, since they may be refused again."""
        again = self._refusals.due()
        while self._heap and self._heap[0][0] <= mount_time:
            name = heapq.heappop(self._heap)[1]
            self._known.discard(name)
            yield name
        yield from again

    def _move(self, name: str) -> str:
        """Returns the key; empty where another host has done it, or an operator."""
        entry = names.carried(EntryName.parse(name), "later", self._system)
        back = f"{self._layout.new}/{entry.returned().waiting()}"
        if (journal := journal_of(self._layout, self._system)) is not None:
            journal.moves(entry.key, back)
        try:
            self._system.rename(f"{self._layout.later_new}/{name}", back)
        except FileNotFoundError:
            return ""
        return entry.key
