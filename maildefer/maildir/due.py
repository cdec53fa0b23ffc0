"""When an entry is due: the mount's time, the due time of a push, and what becomes of an entry that is seen too early.

The mount's time is the mtime of a file that was just written, kept against the boot clock, which nobody sets. So a due
time does not depend on the wall clock of the host that pushes.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from maildefer.errors import raise_named
from maildefer.maildir import durable, names
from maildefer.maildir.journal import journal_of
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName
from maildefer.maildir.rights.confined import confined_to, unconfined
from maildefer.maildir.rights.modes import is_shared_at
from maildefer.maildir.system import SYSTEM, System

LATEST: Final = 4133980800  # the end of the year 2100, in Unix seconds
PAST_SECONDS: Final = 60.0  # an `at` may be as long ago, and is now
_KEPT_SECONDS: Final = 60.0
_SET_SECONDS: Final = 1.0
_SLOW_SECONDS: Final = 1.0


class MountOffset(NamedTuple):
    """The mount's time less this host's boot clock is between the two, in seconds."""

    least: float
    most: float

    @property
    def width(self) -> float:
        return self.most - self.least

    @property
    def is_exact(self) -> bool:
        """Whether measuring took so little that the offset may be kept for a while."""
        return self.width <= _SLOW_SECONDS


def mount_offset(layout: Layout, *, system: System = SYSTEM) -> MountOffset:
    """Measure the mount's time by the mtime of a new file in `tmp/`. Raises OSError."""
    system = confined_to(layout.path, system)
    path = f"{layout.tmp}/.clock-{system.pid()}-{system.token(8)}"
    descriptor = system.open(path, durable.NEW, 0o600)
    try:
        before = system.boottime()
        system.write(descriptor, b".")
        system.fsync(descriptor)
        written = system.fstat(descriptor).st_mtime
        return MountOffset(written - system.boottime(), written - before)
    finally:
        system.close(descriptor)
        durable.discard(path, system)


class MountClock:
    """The time of a queue's mount for a process that pushes; any thread. It is never behind, so no entry is due early.

    It is measured at the first use, and again after a minute, or as soon as this host's wall clock was set, since a
    local filesystem goes by that.
    """

    def __init__(self, layout: Layout, system: System = SYSTEM) -> None:
        self._layout = layout
        self._system = system
        self._lock = threading.Lock()
        self._offset = self._own = 0.0
        self._until = -math.inf

    def now(self) -> float:
        """The mount's time in Unix seconds. Raises OSError."""
        system = self._system
        with self._lock:
            boot = system.boottime()
            own = system.time() - boot
            if boot >= self._until or abs(own - self._own) > _SET_SECONDS:
                measured = mount_offset(self._layout, system=system)
                self._own, self._offset = own, measured.most
                self._until = boot + _KEPT_SECONDS if measured.is_exact else boot
            return system.boottime() + self._offset


def _report_nothing(path: str) -> None:
    """Do nothing: the function that is called before `report_pushes_with` sets another."""


_report: Callable[[str], object] = _report_nothing


def report_pushes_with(report: Callable[[str], object]) -> None:
    """Have this process report by its path each entry that it puts into `.later/`, from a push or a reschedule."""
    global _report
    _report = report


def report_push(path: str) -> None:
    """Report the entry at this path, if it is one in `.later/`."""
    if "/.later/new/" in path:
        _report(path)


_clocks: dict[str, MountClock] = {}  # of this process, by the queue's path
os.register_at_fork(after_in_child=_clocks.clear)  # a lock may be held in the parent


def clock_of(layout: Layout, system: System = SYSTEM) -> MountClock:
    """Return this process's clock of the queue's mount; a model of a filesystem gets one of its own."""
    if unconfined(system) is not SYSTEM:
        return MountClock(layout, system)
    return _clocks.get(layout.path) or _clocks.setdefault(layout.path, MountClock(layout))


def due_time(now: float, *, after: object = None, at: object = None) -> int | None:
    """Return when an entry is due, in whole Unix seconds; None for one that is due now.

    `after` is in seconds, `at` a datetime with its zone, `now` the mount's time. Raises TypeError, ValueError.
    """
    if after is not None and at is not None:
        raise ValueError(f"after={after!r} and at={at}: give one of them")
    if after is not None:
        when = now + _seconds(after, LATEST - now)
    elif at is not None:
        when = _moment(at, now)
    else:
        return None
    return math.ceil(when) if when > now else None


def _seconds(after: object, most: float) -> float:
    if isinstance(after, bool) or not isinstance(after, int | float):
        raise TypeError(f"after={after!r}: give seconds, as a number")
    if not 0 <= after < math.inf:
        raise ValueError(f"after={after!r}: give seconds, zero or more")
    if after >= most:
        raise ValueError(f"after={after!r}: that is beyond the year 2100: give fewer seconds")
    return float(after)


def _moment(at: object, now: float) -> float:
    from datetime import datetime  # front ends and keepers, which import this module, need none

    if not isinstance(at, datetime):
        raise TypeError(f"at={at!r}: give a datetime with its zone, or seconds as `after`")
    if at.utcoffset() is None:
        raise ValueError(f"at={at}: give it with its zone, such as datetime.now(UTC) + timedelta(hours=1)")
    when = at.timestamp()
    if when >= LATEST:
        raise ValueError(f"at={at}: that is beyond the year 2100: give an earlier time")
    if when < now - PAST_SECONDS:
        raise ValueError(f"at={at}: that is past, by the clock of the queue's mount: give a time to come")
    return when


def postpone(name: str, entry: EntryName, layout: Layout, *, host: str, system: System = SYSTEM) -> None:
    """Move an entry that was put into `new/` and is not due to `.later/`, uncharged and without a claim.

    Any process may do this at any time: whoever is second finds nothing, since the name changes (I4). Raises
    StorageFault's kinds.
    """
    if is_shared_at(layout.path, system):
        entry = names.with_unique(entry, "", host, system)
    later = f"{layout.later_new}/{entry.returned().waiting()}"
    if (journal := journal_of(layout, system)) is not None:
        journal.record_move(entry.key, later)
    try:
        system.rename(f"{layout.new}/{name}", later)
    except FileNotFoundError:  # another process was first; or `.later/` is missing, and a keeper makes it
        pass
    except OSError as fault:
        raise_named(layout.later_new, fault)
