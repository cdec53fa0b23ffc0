"""The host's own runtime directory: what runs here, known without a look at any mount.

Each process that was asked for a pid file (supervisor, receiver, front end, sink) leaves a record here beside its
lock, named for the pid file's path; `stop` and `status` read these first, so a hung mount can't hang them.
"""

from __future__ import annotations

import json
import os
import re
import stat
from binascii import crc32
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from shlex import quote
from typing import Any, Final, Literal

from maildefer import untrusted
from maildefer.errors import MountMissing, UnsafeRuntimeDirectory
from maildefer.host.identity import HostIdentity, is_alive, start_time, this_host
from maildefer.maildir import durable
from maildefer.maildir.system import token
from maildefer.untrusted import UntrustedRecord

DIRECTORY_VARIABLE: Final = "MAILDEFER_RUNTIME_DIR"

Kind = Literal["supervise", "start", "log", "receiver"]

_LIMIT_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeRecord:
    """One running process of this host."""

    pid: int
    start_time: int  # clock ticks after the boot
    kind: Kind
    pidfile: str  # absolute, as asked for; the keeper writes the file itself
    started: float  # unix seconds
    leases: Mapping[str, str] = field(default_factory=dict)  # queue path: lease name
    queues: tuple[str, ...] = ()
    project: str = ""  # its folder
    status_socket: str | None = None  # see `host.status_socket`
    boot_id: str = ""  # filled in by write_record
    pid_namespace: str = ""


def directory(host: HostIdentity | None = None) -> str:
    """This user's and this host identity's directory, made if need be. Raises UnsafeRuntimeDirectory, OSError.

    `MAILDEFER_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/maildefer`, else `/run/maildefer` for root, else
    `/tmp/maildefer-UID`. For root, a session's directory counts only if it is root's: `sudo` may bring a user's along,
    in which that user writes what root would believe.
    In /tmp anybody may have been there first, so every level that is ours must be a directory, no link, owned by us,
    and closed to others.
    """
    base = os.environ.get(DIRECTORY_VARIABLE, "")
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    if not base and session and (os.geteuid() != 0 or _is_roots(session)):
        base = os.path.join(session, "maildefer")
    if not base:
        base = "/run/maildefer" if os.geteuid() == 0 else f"/tmp/maildefer-{os.geteuid()}"
    base = os.path.abspath(base)
    os.makedirs(os.path.dirname(base), exist_ok=True)
    _own(base)
    path = os.path.join(base, (host or this_host()).label)
    _own(path)
    return path


def stem(pidfile: str) -> str:
    """The name that stands for a pid file's absolute path here: its last part, for people, and a hash."""
    path = os.path.abspath(pidfile)  # not realpath: that would look at the mount
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", os.path.basename(path))
    return f"{readable[:40]}-{crc32(os.fsencode(path)):08x}"


def record_path(pidfile: str) -> str:
    return os.path.join(directory(), f"{stem(pidfile)}.json")


def lock_path(pidfile: str) -> str:
    """The file whose flock means "somebody runs with this pid file"; taken by `pidfile_lock`."""
    return os.path.join(directory(), f"{stem(pidfile)}.lock")


def name_holder(descriptor: int) -> None:
    """Write down that this process holds the lock; again after a fork by the one that goes on. Exec changes nothing."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d %d\n" % (os.getpid(), start_time(os.getpid()) or 0), 0)


def socket_path(pidfile: str) -> str:
    """Where a process with this pid file listens for status questions."""
    return os.path.join(directory(), f"{stem(pidfile)}.sock")


def write_record(record: RuntimeRecord, host: HostIdentity | None = None) -> None:
    """Write, or replace, the record of a process, by rename. Called by the process that holds the lock. OSError."""
    host = host or this_host()
    facts = {name: getattr(record, name) for name in RuntimeRecord.__slots__}
    facts.update(leases=dict(record.leases), boot_id=host.boot_id, pid_namespace=host.pid_namespace)
    path = os.path.join(directory(host), f"{stem(record.pidfile)}.json")
    durable.replace_file(path, json.dumps(facts).encode(), f"{path}.{token(8)}", durably=False)


def remove_record(record: RuntimeRecord) -> None:
    """Take the record and the socket away, at a clean end. The lock file stays: unlinking one would split waiters."""
    _remove(record_path(record.pidfile), record)


def records(host: HostIdentity | None = None) -> list[RuntimeRecord]:
    """The processes of this host that run now, oldest first; the records of dead ones are removed on the way.

    Any process of the same user may call this at any time.
    """
    host = host or this_host()
    where = directory(host)
    live: list[RuntimeRecord] = []
    for name in sorted(os.listdir(where)):
        if not name.endswith(".json"):
            continue
        path = os.path.join(where, name)
        record = read_record(path)
        if record is None:
            continue
        # In a runtime directory on a shared mount, another host's pids say nothing here.
        if not host.shares_pids_with(record.boot_id, record.pid_namespace):
            continue
        if is_alive(record.pid, record.start_time):
            live.append(record)
        else:
            _remove(path, record)
    return sorted(live, key=lambda record: record.started)


def must_not_be_away(path: str) -> None:
    """Raise MountMissing where no queue is at that path, and a pool of this host and user has joined one there.

    Whoever would make it anew calls this before: it would be hidden as soon as the mount is back.
    """
    if os.path.lexists(f"{path}/.maildefer"):
        return
    places = {os.path.abspath(path), os.path.realpath(path)}
    with suppress(OSError, UnsafeRuntimeDirectory):
        for record in records():
            if record.kind == "supervise" and not places.isdisjoint(record.leases):
                raise MountMissing(
                    path,
                    f"the pool {record.pid} serves it and waits for it: mount it again; if it was removed on purpose, "
                    f"`maildefer stop --pid {quote(record.pidfile)}` first, to have it made anew",
                )


def read_record(path: str) -> RuntimeRecord | None:
    """The record in that file; None if it is gone or damaged."""
    try:
        facts: dict[str, Any] = untrusted.read_record(path, limit_bytes=_LIMIT_BYTES)
        facts["queues"] = tuple(facts["queues"])
        return RuntimeRecord(**facts)
    except (OSError, UntrustedRecord, TypeError, KeyError):  # removed meanwhile, or no record of ours
        return None


def _is_roots(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and not found.st_mode & 0o022


def _own(path: str) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeRuntimeDirectory(path, "is not a directory")
    if found.st_uid != os.geteuid():
        raise UnsafeRuntimeDirectory(path, f"belongs to user {found.st_uid}")
    if stat.S_IMODE(found.st_mode) & 0o022:
        raise UnsafeRuntimeDirectory(path, f"can be written by others (mode {stat.S_IMODE(found.st_mode):o})")
    if stat.S_IMODE(found.st_mode) & 0o055:  # systemd's RuntimeDirectory= makes 0755: ours alone all the same
        os.chmod(path, 0o700)


def _remove(path: str, record: RuntimeRecord) -> None:
    current = read_record(path)
    if current is None or (current.pid, current.start_time) != (record.pid, record.start_time):
        return  # a successor has written its own meanwhile
    for doomed in (path, record.status_socket):
        try:
            if doomed:
                os.unlink(doomed)
        except FileNotFoundError:  # two readers tidied up at once
            pass
