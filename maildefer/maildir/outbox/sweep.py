"""Removes what handlers have sent and nobody will publish: their workers died before it was committed.

Of a claim that a keeper of this host has taken back, that is known at once: no commit finds its name. Else it takes a
month, since a queue that has the entry may be known to other hosts only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from maildefer.maildir.idempotency.effects import unended
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName, unique_of
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.rights.folder import open_folder
from maildefer.maildir.system import SYSTEM, System

KEPT_SECONDS: Final = 31 * 86400.0  # longer than a message is tried
_MOST: Final = 1000  # drafts that are looked at in a pass


class OutboxSweeper:
    """The sweeps of one queue's outbox; one thread only."""

    def __init__(
        self,
        layout: Layout,
        queues: Callable[[], Sequence[Layout]],
        ended: set[str],
        *,
        system: System = SYSTEM,
    ) -> None:
        """`queues` returns all of the project, in which the message may be whose handlers have sent it.

        `ended`: the UNIQUEs of claims that were taken back, see `Reclaimer`.
        """
        self._layout = layout
        self._queues = queues
        self._ended = ended
        self._system = confined_to(layout.path, system)
        self._absent: set[str] = set()  # at the last pass: what moved meanwhile may have been overlooked

    def sweep(self, mount_time: float) -> int:
        """Remove drafts whose claim has ended, and old ones whose claim is in none of the queues, at two looks.

        Returns how many. Raises OSError.
        """
        removed, before = 0, mount_time - KEPT_SECONDS
        with open_folder(self._layout.path, ".maildefer", "outbox", system=self._system) as outbox:
            known = outbox.names()
            for name in known if self._ended else ():
                if name.partition(".")[0] in self._ended:
                    outbox.unlink(name)
                    removed += 1
            known = [name for name in known if name.partition(".")[0] not in self._ended]
            old = [name for name in known[:_MOST] if outbox.lstat(name).st_mtime < before]
            absent = {name.partition(".")[0] for name in old}
            for queue in dict.fromkeys((self._layout, *self._queues())) if absent else ():
                self._system.lstat(queue.control)  # else its mount may be away
                for name in unended(queue, self._system):
                    absent -= {EntryName.parse(name).outputs[:10], unique_of(name)}
            for name in old:
                if name.partition(".")[0] in absent & self._absent:
                    outbox.unlink(name)
                    removed += 1
        self._absent = absent
        return removed
