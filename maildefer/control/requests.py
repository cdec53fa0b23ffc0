"""Asking supervisors of any host for something, through the mount: a file named for their lease.

A keeper sees the requests of its lease within a beat, and consumes each by a rename into `requests/done/`.
These functions touch the mount, and hang with it: call them through `bounded`.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from typing import Final, Literal

from maildefer.errors import QueueMissing, raise_named
from maildefer.host.identity import this_host
from maildefer.maildir import durable
from maildefer.maildir.doubt import live_leases
from maildefer.maildir.layout import Layout
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.rights.modes import rights_in
from maildefer.maildir.scan import raise_unread
from maildefer.maildir.system import token
from maildefer.maildir.upkeep.leases import STATUS_LIMIT_BYTES, is_folder
from maildefer.untrusted import UntrustedRecord, read_record

Verb = Literal["stop", "pause", "resume", "reload"]

_AS_ONE_SECONDS: Final = 0.5  # what sets both times of a file sets them so close to one another
_SUPERVISOR: Final = ("host", "boot_id", "pid_namespace", "pid", "start_time")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveLease:
    """A lease that is neither fenced nor left, and what its supervisor reports of itself."""

    queue: str
    name: str
    beat: int
    facts: dict[str, object] = field(default_factory=dict)  # the lease file: host, boot id, pids
    status: dict[str, object] = field(default_factory=dict)  # the status file; empty if there is none yet
    told_seconds: float | None = None  # how old that is, as far as this host's clock agrees with the mount's
    # Since the last beat, by the mount's time; None where it does not show.
    beaten_seconds: float | None = None

    @property
    def pool(self) -> tuple[str, ...]:
        """The pool that holds it, equal in all queues: the supervisor's process, or else the lease's name."""
        process = [self.facts.get(name) for name in _SUPERVISOR]
        return (self.name,) if None in process else tuple(map(str, process))


def file_request(queue_path: str, lease: str, verb: Verb) -> str:
    """File a request for one lease; the same one again replaces it. Returns its path.

    Raises QueueMissing, and StorageFault's kinds. Nobody need be there to read it: a lease name never comes back, so
    a request that is left over can reach nobody else.
    """
    layout = Layout(queue_path)
    host = this_host()
    facts = {"verb": verb, "lease": lease, "from": host.label, "pid": os.getpid(), "time": time.time()}
    draft = f"{layout.tmp}/.request-{host.label}-{os.getpid()}-{token(8)}"
    path = f"{layout.requests}/{lease}.{verb}"
    try:
        rights, system = rights_in(layout.path), confined_to(layout.path)
        data = json.dumps(facts).encode() + b"\n"
        durable.replace_file(path, data, draft, durably=False, rights=rights, system=system)
    except FileNotFoundError as fault:
        raise QueueMissing(layout.path) from fault
    except OSError as fault:
        raise_named(path, fault)
    return path


def withdraw_request(queue_path: str, lease: str, verb: Verb) -> None:
    """Remove a request whose lease ended before its keeper read it."""
    layout = Layout(queue_path)
    try:
        confined_to(layout.path).unlink(f"{layout.requests}/{lease}.{verb}")
    except FileNotFoundError:  # it was read, which is the ordinary case
        pass


def read_leases(queue_path: str) -> list[LiveLease]:
    """The live leases of a queue with their status, by name. Raises QueueMissing, and StorageFault's kinds.

    Only names are believed (I10): whether a lease beats, two calls an interval apart tell.
    """
    layout = Layout(queue_path)
    names = live_names(queue_path)
    now = _mount_time(layout)
    return [
        LiveLease(
            queue=layout.path,
            name=name,
            beat=beat,
            # A beat between the listing and this look renames it, once.
            facts=_facts(f"{layout.leases}/{name}.{beat}") or _facts(f"{layout.leases}/{name}.{beat + 1}"),
            status=_facts(f"{layout.status}/{name}.json"),
            told_seconds=_age(f"{layout.status}/{name}.json"),
            beaten_seconds=_since_beat(layout, name, beat, now),
        )
        for name, beat in sorted(names.items())
    ]


def live_names(queue_path: str) -> dict[str, int]:
    """Each live lease's name and its beat. Raises QueueMissing, and StorageFault's kinds."""
    layout = Layout(queue_path)
    try:
        # Twice: a listing may miss a lease that beats meanwhile.
        system = confined_to(layout.path)
        names = live_leases(layout, system) | live_leases(layout, system)
        return {name: beat for name, beat in names.items() if not is_folder(layout, name, beat)}
    except FileNotFoundError as fault:
        if os.path.isdir(layout.cur):  # a Maildir that nobody has served yet
            return {}
        raise QueueMissing(layout.path) from fault
    except OSError as fault:
        raise_unread(layout.leases, fault)


def _mount_time(layout: Layout) -> float:
    """The mount's time, by its server: the listing just now has touched the folder, where this user may."""
    try:
        return os.lstat(layout.leases).st_mtime if os.access(layout.leases, os.W_OK) else time.time()
    except OSError:
        return time.time()


def _since_beat(layout: Layout, name: str, beat: int, now: float) -> float | None:
    """The seconds since the last beat, by the change time of the lease's file, which each beat's rename sets.

    None before the first beat, and on filesystems where a rename sets none: it is then that of the writing.
    """
    for number in (beat, beat + 1):
        try:
            facts = os.lstat(f"{layout.leases}/{name}.{number}")
        except OSError:  # a beat has renamed it
            continue
        return max(0.0, now - facts.st_ctime) if facts.st_ctime - facts.st_mtime > _AS_ONE_SECONDS else None
    return None


def _age(path: str) -> float | None:
    try:
        return max(0.0, time.time() - os.lstat(path).st_mtime)
    except OSError:  # not written yet
        return None


def _facts(path: str) -> dict[str, object]:
    try:
        return read_record(path, limit_bytes=STATUS_LIMIT_BYTES)
    except (OSError, UntrustedRecord):  # renamed by a beat, not written yet, or none of ours
        return {}
