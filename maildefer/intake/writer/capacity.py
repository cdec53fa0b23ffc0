"""Whether the queue can take more: free space, free inodes, and the backlog, looked at no more than once a second."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import islice

from maildefer.maildir import scan
from maildefer.maildir.layout import Layout

_LOOK_SECONDS = 1.0


class QueueCapacity:
    """The limits of one queue; a look may hang with its mount, so it is for the writer only."""

    def __init__(
        self,
        layout: Layout,
        *,
        min_free_bytes: int,
        max_backlog: int,
        clock: Callable[[], float] = time.monotonic,
        statvfs: Callable[[str], os.statvfs_result] = os.statvfs,
    ) -> None:
        self._layout = layout
        self._min_free_bytes = min_free_bytes
        self._max_backlog = max_backlog
        self._clock = clock
        self._statvfs = statvfs
        self._shortage: str | None = None
        self._look_at = 0.0

    def look(self) -> str | None:
        """What there is too little of, or None. Any thread may call; faults are left to the push itself."""
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            try:
                self._shortage = self._space() or self._backlog()
            except OSError:
                self._shortage = None
        return self._shortage

    def _space(self) -> str | None:
        facts = self._statvfs(self._layout.new)
        free = facts.f_bavail * facts.f_frsize
        if free < self._min_free_bytes:
            return f"{free} bytes free, under the limit of {self._min_free_bytes}"
        if facts.f_files and not facts.f_favail and not facts.f_ffree:
            return "no inode is free"
        return None

    def _backlog(self) -> str | None:
        if self._max_backlog:
            waiting = sum(1 for _ in islice(scan.entries(self._layout.new), self._max_backlog))
            if waiting == self._max_backlog:
                return f"the backlog has reached its limit of {waiting} entries"
        return None
