"""Being woken when a local writer puts something into a directory; other hosts' writes make no such event."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from maildefer.host.linux import inotify
from maildefer.host.linux.inotify import Inotify

_ARRIVALS = inotify.MOVED_TO | inotify.CREATE
_ENDS = inotify.DELETE_SELF | inotify.MOVE_SELF
_GONE = inotify.IGNORED | inotify.DELETE_SELF | inotify.MOVE_SELF | inotify.UNMOUNT


class DirectoryWatch:
    """One directory, by inotify(7); made anew when the directory was replaced. One thread only."""

    def __init__(self, path: str) -> None:
        self.missing = ""
        """Why there is no watch, where other processes have all of them: names come by polling alone then."""
        self._path = path
        self._inotify: Inotify | None = None
        self._watched = (0, 0)  # device and inode

    def wait(self, timeout_seconds: float) -> set[str]:
        """Sleep so long, or until names arrive, and return these; hints, like every listing. Raises OSError."""
        try:
            watching = self._inotify or self._begin()
        except OSError as fault:
            if fault.errno not in inotify.USED_UP:
                raise
            self.missing = os.strerror(fault.errno)
            time.sleep(timeout_seconds)  # polling does, only later
            return set()
        names: set[str] = set()
        for mask, name in watching.read(timeout_seconds):
            if mask & _GONE:
                self._begin_again()
                break
            if name and not name.startswith("."):
                names.add(name)
        return names

    def touch(self) -> None:
        """Change the directory, so that an NFSv3 client drops a listing that has stayed stale."""
        os.utime(self._path)

    def look_again(self) -> None:
        """Watch the directory that is at the path now: a move with its parents made no event. Raises OSError."""
        found = os.stat(self._path)
        if self._watched != (found.st_dev, found.st_ino):
            self._begin_again()

    def _begin_again(self) -> None:
        """Watch the directory that is at the path now, before it is listed: what comes after that makes an event."""
        self.close()
        with suppress(OSError):  # the next wait raises it
            self._begin()

    def _begin(self) -> Inotify:
        watching = self._inotify = Inotify()
        try:
            watching.watch(self._path, _ARRIVALS | _ENDS)
            found = os.stat(self._path)
            self._watched = found.st_dev, found.st_ino
            self.missing = ""
        except OSError:
            self.close()
            raise
        return watching

    def close(self) -> None:
        """Close the descriptor; the next wait would open another."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
