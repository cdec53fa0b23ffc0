"""Checks free space, free inodes and the backlog of a queue, at most once a second."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import islice

from maildefer.maildir import scan
from maildefer.maildir.layout import Layout

_KNOWN_SECONDS = 1.0


class QueueCapacity:
    """The limits of one queue. Only for the writer, as a check may hang with the mount."""

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
        self._check_at = 0.0

    def shortage(self) -> str | None:
        """What is short, or None. Any thread may call; the push itself reports faults of the storage."""
        now = self._clock()
        if now >= self._check_at:
            self._check_at = now + _KNOWN_SECONDS
            try:
                self._shortage = self._space_shortage() or self._backlog_shortage()
            except OSError:
                self._shortage = None
        return self._shortage

    def _space_shortage(self) -> str | None:
        facts = self._statvfs(self._layout.new)
        free = facts.f_bavail * facts.f_frsize
        if free < self._min_free_bytes:
            return f"{free} bytes free, under the limit of {self._min_free_bytes}"
        if facts.f_files and not facts.f_favail and not facts.f_ffree:
            return "no inode is free"
        return None

    def _backlog_shortage(self) -> str | None:
        if self._max_backlog:
            waiting = sum(1 for _ in islice(scan.entries(self._layout.new), self._max_backlog))
            if waiting == self._max_backlog:
                return f"the backlog has reached its limit of {waiting} entries"
        return None
