"""The status of a queue as the mount shows it now: its entries, and the hosts that serve it; for the command line.

It touches the mount, and hangs with it: call it through `bounded`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from maildefer.control.requests import LiveLease, read_leases
from maildefer.host.identity import HostIdentity, is_alive, this_host
from maildefer.maildir import scan
from maildefer.maildir.layout import Layout, read_format
from maildefer.maildir.names import pushed_at
from maildefer.maildir.operator import entries, pause_mark
from maildefer.maildir.operator.inspection import look_into_queue
from maildefer.maildir.operator.pause_mark import PauseMark
from maildefer.maildir.upkeep.closures import Closures
from maildefer.untrusted import objects

_TOLD_EVERY_SECONDS: Final = 60.0  # at the latest: see the keeper's status files
_TURN_NAMES: Final = 1000  # names of a folder before the next one has its turn
_MOST_DOWN: Final = 100  # destinations that are told of by name: domains are whatever somebody sends to


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingHost:
    """One host's pool in this queue, by its own account in its status file, which may be a few seconds old."""

    lease: str
    beat: int
    workers: int = 0
    busy: int = 0
    rate: float | None = None  # messages a second, of the whole pool
    status: dict[str, Any] = field(default_factory=dict)
    told_seconds: float | None = None  # the status file's age
    gone: bool = False  # its processes were this host's, and have ended
    # None: it beats, as far as is known; for longer than the TTL otherwise.
    silent_seconds: float | None = None
    silent: bool = False  # that, or gone: others will fence it

    @property
    def busy_workers(self) -> list[dict[str, Any]]:
        return _busy(_workers(self.status))


@dataclass(frozen=True, slots=True, kw_only=True)
class DownDestination:
    """A destination of mail that is down: `is_server` where the settings name it, else it is a recipient's domain."""

    destination: str
    seconds: float  # since it was found down
    words: str  # what it said last, or what happened instead
    is_server: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryCounts:
    """Counts of entries; `complete` is False where time ran out before all were counted."""

    queue: str
    waiting: int
    oldest_seconds: float | None  # since the push of the oldest that waits, as far as keys tell
    claimed: int
    deferred: int
    later: int  # of these, those that no handler has had yet: pushed for later, or waiting for a limit
    dead: int
    complete: bool
    partial: tuple[entries.Folder, ...]  # of which there are more than was counted
    serving: tuple[ServingHost, ...]  # by live leases: of those that are silent, too, until they are fenced
    pause: PauseMark | None = None  # of the queue, on all hosts
    free_bytes: int | None = None  # of its filesystem; None where it does not say
    filesystem: int = 0  # its number, the same of all queues on it; 0 where it does not say
    down_destinations: int = 0  # known to the settings' first queue, of mail to all servers
    down: tuple[
        DownDestination, ...
    ] = ()  # these, those first that were tried most often, as far as they are few


def read_queue_status(queue: str, seconds: float) -> EntryCounts:
    """Count a queue's entries for at most `seconds`.

    Raises QueueMissing, NotAQueue, FormatUnknown and StorageFault's kinds.
    """
    layout = look_into_queue(queue)
    ttl = read_format(layout).ttl_seconds
    serving = tuple(_serving(lease, ttl) for lease in read_leases(queue))
    count = _EntryCounter(layout, time.monotonic() + seconds)
    free_bytes, filesystem = _room(layout.path)
    closures, now = Closures(layout, now=time.time), time.time()
    try:
        closed = [one for one in closures.closed(touch=False) if not one.is_left(now)]
        records = map(closures.record_of, closed[:_MOST_DOWN])
        down = [
            DownDestination(
                destination=one.name,
                seconds=round(now - one.since_seconds, 1),
                words=one.words,
                is_server=one.is_server,
            )
            for one in records
        ]
        count.count_all()
    except OSError as fault:
        scan.raise_unread(layout.path, fault)
    return EntryCounts(
        queue=layout.path,
        waiting=count.numbers["waiting"],
        oldest_seconds=None if count.oldest is None else max(0.0, round(time.time() - count.oldest, 1)),
        claimed=count.numbers["claimed"],
        deferred=count.numbers["deferred"],
        later=count.later,
        dead=count.numbers["dead"],
        complete=not count.partial,
        partial=tuple(folder for folder in entries.FOLDERS if folder in count.partial),
        serving=serving,
        pause=pause_mark.read_pause_mark(layout),
        free_bytes=free_bytes,
        filesystem=filesystem,
        down_destinations=len(closed),
        down=tuple(down),
    )


def _room(path: str) -> tuple[int | None, int]:
    try:
        facts = os.statvfs(path)
    except OSError:
        return None, 0
    return facts.f_bavail * facts.f_frsize if facts.f_blocks else None, facts.f_fsid


class _EntryCounter:
    """Counts all folders at once, a part of each in turn, so that a long one leaves no other uncounted."""

    def __init__(self, layout: Layout, deadline: float) -> None:
        self._deadline = deadline
        self._parts: list[tuple[entries.Folder, Iterator[str]]] = [
            ("dead", scan.entries(layout.dead_new)),
            ("dead", scan.entries(layout.dead_cur)),
            ("deferred", scan.entries(layout.later_new)),
            ("deferred", scan.entries(layout.later_cur)),
            ("claimed", scan.entries(layout.cur)),
            ("waiting", scan.entries(layout.new)),
        ]
        self.numbers: dict[entries.Folder, int] = dict.fromkeys(entries.FOLDERS, 0)
        self.later = 0
        self.oldest: float | None = None  # of those that wait
        self.partial: set[entries.Folder] = set()  # what time did not suffice for

    def count_all(self) -> None:
        """Count until all is counted, or time is over. Raises OSError."""
        parts = self._parts
        while parts:
            parts = [part for part in parts if self._count_some(*part)]
            if time.monotonic() > self._deadline:
                break
        self.partial = {folder for folder, _ in parts}
        if "claimed" in self.partial:  # what mail readers have left in cur/ counts as waiting
            self.partial.add("waiting")

    def _count_some(self, folder: entries.Folder, names: Iterator[str]) -> bool:
        """Count some more names; returns whether there may be more."""
        some = list(islice(names, _TURN_NAMES))
        if folder == "claimed":
            waiting = [name for name in some if not entries.is_claimed(name)]
            self.numbers["claimed"] += len(some) - len(waiting)
            self._note_waiting(waiting)
        elif folder == "waiting":
            self._note_waiting(some)
        else:
            self.numbers[folder] += len(some)
            if folder == "deferred":
                self.later += sum(1 for name in some if ",a=" not in name)
        return len(some) == _TURN_NAMES

    def _note_waiting(self, names: list[str]) -> None:
        self.numbers["waiting"] += len(names)
        if names and (pushed := _oldest(names)) is not None and (self.oldest is None or pushed < self.oldest):
            self.oldest = pushed


def _oldest(names: list[str]) -> float | None:
    """The earliest push by these names: ours begin with its time, in as many digits; other names are parsed."""
    if (pushed := pushed_at(first := min(names))) is not None and len(first.partition(".")[0]) == 10:
        return pushed
    return min((pushed for name in names if (pushed := pushed_at(name)) is not None), default=None)


def _is_gone(facts: dict[str, object], host: HostIdentity) -> bool:
    """Whether a lease's supervisor and keeper are proved dead: they were this host's, and have ended."""
    if not host.shares_pids_with(str(facts.get("boot_id")), str(facts.get("pid_namespace"))):
        return False
    pids = [(facts.get(f"{who}pid"), facts.get(f"{who}start_time")) for who in ("", "keeper_")]
    return all(isinstance(p, int) and isinstance(s, int) and not is_alive(p, s) for p, s in pids)


def _serving(lease: LiveLease, ttl_seconds: float) -> ServingHost:
    """The host of a lease; its status file may be of another version, so what is unknown in it is passed over."""
    workers = _workers(lease.status)
    rate = lease.status.get("rate_per_second")
    gone, silent = _is_gone(lease.facts, this_host()), _silent_seconds(lease, ttl_seconds)
    return ServingHost(
        lease=lease.name,
        beat=lease.beat,
        workers=len(workers),
        busy=len(_busy(workers)),
        rate=float(rate) if isinstance(rate, int | float) else None,
        status=lease.status,
        told_seconds=None if lease.told_seconds is None else round(lease.told_seconds, 1),
        gone=gone,
        silent_seconds=silent,
        silent=gone or silent is not None,
    )


def _silent_seconds(lease: LiveLease, ttl_seconds: float) -> float | None:
    """The seconds since its last beat, or, where the mount does not show when that was, since its last status file."""
    since, limit = lease.beaten_seconds, ttl_seconds
    if since is None:
        since, limit = lease.told_seconds, ttl_seconds + _TOLD_EVERY_SECONDS
    return None if since is None or since <= limit else round(since, 1)


def _workers(status: dict[str, Any]) -> list[dict[str, Any]]:
    return objects(status.get("workers"))


def _busy(workers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [worker for worker in workers if worker.get("state") in ("busy", "handling")]
