"""Promoting deferred entries when they are due: the due time is in the name, so no entry is opened for it.

The keeper of every host promotes; if two promote the same entry, the second rename finds nothing.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator

from maildefer.maildir import names, scan
from maildefer.maildir.journal import journal_of
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName
from maildefer.maildir.rights.confined import confined_to, one_round
from maildefer.maildir.system import SYSTEM, System
from maildefer.maildir.upkeep.failed_moves import IN_A_ROW, FailedMoves

HEAP = 10_000  # so many of the next due times are held in memory; twice as many during a listing
_SHARE = 100  # listings may take a hundredth of the time
_BUSY_SHARE = 4  # or a quarter, while more entries are due than are held
LONGEST_RELIST_SECONDS = 60.0


class Promoter:
    """The deferred entries of one queue; one thread only.

    A listing in which very many entries are due pauses after each HEAP of them, so that these are promoted first.
    """

    def __init__(
        self, layout: Layout, *, refusals: FailedMoves | None = None, system: System = SYSTEM
    ) -> None:
        self._layout = layout
        self._refusals = FailedMoves(system=system) if refusals is None else refusals
        self._system = confined_to(layout.path, system)
        self._heap: list[tuple[int, str]] = []
        self._known: set[str] = set()
        self._horizon = math.inf  # entries that are due from then on may have been listed and dropped
        self._listing: Iterator[str] | None = None  # the listing that is being read
        self._began = self._took = 0.0
        self._relist_at = self._early_at = 0.0

    def note_deferred(self, name: str) -> None:
        """Note a name that this host has just put into `.later/new/`."""
        due = names.due_of(name)
        if due is not None and name not in self._known and name not in self._refusals:
            self._note(due, name)

    def relist(self, mount_time: float = -math.inf, *, least_seconds: float = 1.0) -> None:
        """Continue a listing of `.later/new/`, or begin one if it is time: long ones are rarer. Raises OSError.

        At most one listing begins in `least_seconds`. Entries that could not be moved wait for their own pause.
        """
        now = self._system.boottime()
        if now < self.lists_at(mount_time):
            return
        if self._listing is None:
            self._began, self._took, self._horizon = now, 0.0, math.inf
            self._listing = self._listed()
        try:
            complete = self._read_on(self._listing, mount_time)
        except OSError:
            self._listing = None
            raise
        self._took += self._system.boottime() - now
        if complete:
            self._listing = None
            self._early_at = self._began + max(self._took * _BUSY_SHARE, least_seconds)
            self._relist_at = self._began + min(
                max(self._took * _SHARE, least_seconds), LONGEST_RELIST_SECONDS
            )

    def lists_at(self, mount_time: float) -> float:
        """When `relist` has something to do, on the boot clock; never while a known entry is due."""
        if self._heap and self._heap[0][0] <= mount_time:
            return math.inf
        if self._listing is not None:
            return 0.0
        return self._early_at if self._horizon <= mount_time else self._relist_at

    def _read_on(self, listing: Iterator[str], mount_time: float) -> bool:
        """Read names; False if the listing pauses before its end, so that due entries are promoted."""
        due_now = 0
        for name in listing:
            if name not in self._known:
                due = names.due_of(name) or 0  # without a due time: due at once
                self._note(due, name)
                due_now += due <= mount_time
                if due_now >= HEAP:
                    return False
        return True

    def _note(self, due: int, name: str) -> None:
        if due >= self._horizon:  # a later listing finds it in time
            return
        self._known.add(name)
        heapq.heappush(self._heap, (due, name))
        if len(self._heap) > 2 * HEAP:
            self._heap = heapq.nsmallest(HEAP, self._heap)  # sorted, and so a heap
            self._known = {name for _, name in self._heap}
            self._horizon = self._heap[-1][0]

    def _listed(self) -> Iterator[str]:
        gone = set(self._refusals.names())
        for name in scan.entries(self._layout.later_new, system=self._system):
            if name in self._refusals:
                gone.discard(name)
            else:
                yield name
        for name in gone:
            self._refusals.forget(name)

    def next_due(self) -> int | None:
        """When the next known entry is due, by the mount's time."""
        return self._heap[0][0] if self._heap else None

    def promote(self, mount_time: float) -> list[str]:
        """Move entries that are due to `new/`; returns their keys. A failed move is tried again later, by itself.

        Raises OSError if many moves in a row fail; the entries that were not tried stay known.
        """
        promoted: list[str] = []
        in_a_row = 0
        with one_round(self._system):
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

    def promote_now(self, name: str) -> bool:
        """Move an entry to `new/` before it is due, if it is there. Raises OSError."""
        return bool(self._move(name))

    def _due(self, mount_time: float) -> Iterator[str]:
        """Yield due entries; those whose move failed before come last, since it may fail again."""
        again = self._refusals.due()
        while self._heap and self._heap[0][0] <= mount_time:
            name = heapq.heappop(self._heap)[1]
            self._known.discard(name)
            yield name
        yield from again

    def _move(self, name: str) -> str:
        """Move one entry; returns its key, or an empty text if another host or an operator has moved it."""
        entry = names.with_usable_key(EntryName.parse(name), "later", self._system)
        back = f"{self._layout.new}/{entry.promoted().waiting()}"
        if (journal := journal_of(self._layout, self._system)) is not None:
            journal.record_move(entry.key, back)
        try:
            self._system.rename(f"{self._layout.later_new}/{name}", back)
        except FileNotFoundError:
            return ""
        return entry.key
