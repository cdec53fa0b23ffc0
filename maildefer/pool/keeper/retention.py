"""The sweeps of one queue; what is deleted for its age: dead letters, kept messages; folders that have grown."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Final

from maildefer import events
from maildefer.errors import MaildeferError
from maildefer.maildir import reasons, scan
from maildefer.maildir.names import due_of, pushed_at
from maildefer.maildir.system import System
from maildefer.maildir.upkeep.grown import replace_grown
from maildefer.maildir.upkeep.sweep import Sweeper
from maildefer.pool.context import PoolContext
from maildefer.pool.keeper.reclaim_log import recover_pushes

if TYPE_CHECKING:
    from maildefer.maildir.operator.entries import FoundEntry

_MOST_DELETED: Final = 1000  # in a pass, so that it delays no other chore
_MOST_LOOKED_AT: Final = 10_000


class QueueSweeper(Sweeper):
    """The sweeps of one queue of a pool; one thread only."""

    def __init__(self, context: PoolContext, index: int, system: System) -> None:
        queue, ended = context.queues[index], context.ended_claims
        super().__init__(queue.layout, queues=context.all_queues, ended=ended, system=system)
        self._queue = queue
        self._seconds = context.settings.dead_retention.get(queue.name)

    def do_pass(self, mount_time: float) -> None:
        super().do_pass(mount_time)
        for folder in (self._layout.done_new, self._layout.done_cur):
            self._delete_kept(folder, mount_time)
        if self._seconds is not None:
            self._delete_old(mount_time - self._seconds)
        for path, size_bytes in replace_grown(self._layout, system=self._system).items():
            folder = path.removeprefix(f"{self._layout.path}/")
            events.emit("folder.replaced", queue=self._queue.name, folder=folder, size_bytes=size_bytes)
        recover_pushes(self._queue, mount_time, self._system)

    def _delete_kept(self, folder: str, mount_time: float) -> None:
        """Delete what was kept until now, as its name says; what has no due time was put there by others. OSError."""
        names = (
            name for name in scan.entries(folder, system=self._system) if (due_of(name) or inf) <= mount_time
        )
        for name in islice(names, _MOST_DELETED):
            with suppress(OSError):  # as below
                self._system.unlink(f"{folder}/{name}")

    def _delete_old(self, before: float) -> None:
        """Delete what was buried before; by the mount's time. What was pushed later needs no look. Raises OSError."""
        from maildefer.maildir.operator.entries import delete, list_entries  # 300 kB, where it is asked for

        letters = list_entries(self._layout, "dead", system=self._system)
        old = (found for found in letters if (pushed_at(found.key) or 0.0) < before)
        due = [found for found in islice(old, _MOST_LOOKED_AT) if self._buried_at(found) < before]
        for found in due[:_MOST_DELETED]:
            with suppress(MaildeferError):  # another host did it; or the next pass meets the fault again
                delete(self._layout, found, system=self._system)
                events.emit("entry.expired", queue=self._queue.name, key=found.key)

    def _buried_at(self, found: FoundEntry) -> float:
        """The time of its reason's file, else of its own last rename; later than all where it is gone."""
        for path in (reasons.reason_path(self._layout, found.entry), found.path):
            with suppress(OSError):
                facts = self._system.lstat(path)
                return facts.st_mtime if path != found.path else facts.st_ctime
        return inf
