"""Clearing away what crashes left: drafts in `tmp/`, reasons without an entry, ended leases, answered requests and
those that nobody will answer.

By the mount's time and the sweeper's own watching together, since either clock alone may be wrong.
"""

from __future__ import annotations

import os
import stat

from maildefer.maildir import durable, scan
from maildefer.maildir.journal import KEPT_SECONDS as JOURNAL_SECONDS
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName, split_beat
from maildefer.maildir.reasons import reason_name
from maildefer.maildir.system import SYSTEM, System

DRAFT_SECONDS = 36 * 3600.0  # Maildir's own figure
WATCHED_SECONDS = 3600.0
KEPT_SECONDS = (
    7 * 24 * 3600.0
)  # fenced leases, answered requests, orphaned reasons: for whoever asks what happened
SENT_SECONDS = 31 * 24 * 3600.0  # who has taken what: longer than a message is tried for
_MOST = 10_000  # names that are watched in a folder at a time


class Sweeper:
    """The sweeps of one queue; one thread only. Each pass is bounded, so that it never holds up anything else."""

    def __init__(self, layout: Layout, *, system: System = SYSTEM) -> None:
        self._layout = layout
        self._system = system
        self._first_seen: dict[str, float] = {}

    def sweep(self, mount_time: float) -> int:
        """One pass over all folders; returns how many files it removed. Faults of single files are passed over."""
        layout = self._layout
        now = self._system.boottime()
        leases = {beat[0] for name in self._names(layout.leases) if (beat := split_beat(name))}
        over: list[tuple[str, float]] = [
            (f"{layout.tmp}/{name}", DRAFT_SECONDS) for name in self._names(layout.tmp)
        ]
        over += [(f"{layout.fenced}/{name}", KEPT_SECONDS) for name in self._names(layout.fenced)]
        over += [
            (f"{layout.requests_done}/{name}", KEPT_SECONDS) for name in self._names(layout.requests_done)
        ]
        over += [
            (f"{layout.requests}/{name}", DRAFT_SECONDS)
            for name in self._names(layout.requests)
            if name.rpartition(".")[0] not in leases  # nobody is left to answer
        ]
        over += [
            (f"{layout.status}/{name}", DRAFT_SECONDS)
            for name in self._names(layout.status)
            if name.removesuffix(".json") not in leases
        ]
        over += [
            (f"{layout.journal}/{name}", seconds)
            for name in self._names(layout.journal)
            for kind, seconds in JOURNAL_SECONDS.items()
            if name.endswith(f".{kind}")
        ]
        over += [(f"{layout.sent}/{name}", SENT_SECONDS) for name in self._names(layout.sent)]
        over += [(f"{layout.reasons}/{name}", KEPT_SECONDS) for name in self._orphaned_reasons()]
        self._first_seen = {path: self._first_seen.get(path, now) for path, _ in over[: 4 * _MOST]}
        removed = 0
        for path, age in over:
            if now - self._first_seen.get(path, now) >= WATCHED_SECONDS and self._is_older(
                path, mount_time - age
            ):
                try:
                    self._remove(path)
                    removed += 1
                except OSError:  # somebody else's sweep, or a fault that the next pass meets again
                    pass
        return removed

    def _names(self, path: str) -> list[str]:
        names: list[str] = []
        try:
            for name in self._system.listdir(path):
                if len(names) < _MOST:
                    names.append(name)
        except OSError:
            pass
        return [name for name in names if name != "done"]

    def _orphaned_reasons(self) -> list[str]:
        layout = self._layout
        orphans = dict.fromkeys(self._names(layout.reasons))
        for folder in (layout.dead_new, layout.dead_cur, layout.new):  # of which there may be millions
            for entry in map(EntryName.parse, scan.entries(folder, system=self._system) if orphans else ()):
                orphans.pop(reason_name(entry), None)
        return list(orphans)

    def _is_older(self, path: str, than: float) -> bool:
        try:
            return self._system.lstat(path).st_mtime < than
        except OSError:
            return False

    def _remove(self, path: str) -> None:
        if stat.S_ISDIR(self._system.lstat(path).st_mode):  # the draft of a control folder
            for name in self._system.listdir(path):
                self._remove(f"{path}/{name}")
            self._system.rmdir(path)
        else:
            self._system.unlink(path)


def mount_time_offset(layout: Layout, *, system: System = SYSTEM) -> float:
    """The mount's time less our boot clock, in seconds, from the mtime of a file just written. Raises OSError."""
    path = f"{layout.tmp}/.clock-{system.pid()}-{system.token(6)}"
    descriptor = system.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        system.write(descriptor, b".")
        system.fsync(descriptor)
        return system.fstat(descriptor).st_mtime - system.boottime()
    finally:
        system.close(descriptor)
        durable.discard(path, system)
