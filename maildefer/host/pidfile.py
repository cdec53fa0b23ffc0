"""Pid files: the first line a bare pid, for everybody's scripts; the second, JSON that says whose pid it is.

A pid file may lie on a mount that many hosts share, and may outlive its process by years, so whoever means to signal
the pid asks `verify` first.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Final, Literal, TypeGuard, assert_never

from maildefer.errors import NotRunning, PidFileUnusable
from maildefer.host import identity
from maildefer.host.identity import HostIdentity, is_alive, pid_exists
from maildefer.maildir import durable
from maildefer.maildir.rights.modes import Rights
from maildefer.maildir.system import token
from maildefer.untrusted import UntrustedRecord, read_plain, record_in

Verdict = Literal["running", "stale", "unproven", "other-host", "unverified"]

_LIMIT_BYTES: Final = 1 << 20
_LONGEST_LEASE: Final = 200
_READABLE: Final = Rights(file_mode=0o644)
_PID_MAX: Final = 1 << 22  # PID_MAX_LIMIT of Linux
_CLOCK_SLACK_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PidFile:
    """The contents of a pid file. Another program's holds a pid only; then everything else is empty."""

    pid: int
    start_time: int = 0  # clock ticks after the boot
    host: str = ""  # the label
    boot_id: str = ""
    pid_namespace: str = ""
    kind: str = ""  # "supervise", "start", "log"
    lease: str | None = None
    queues: tuple[str, ...] = ()
    started: float = 0.0  # unix seconds by the writer's clock
    owner: int | None = field(default=None, compare=False)  # whose the file is that was read

    @property
    def foreign(self) -> bool:
        """Whether another program wrote it."""
        return not self.boot_id

    def same_process(self, other: PidFile) -> bool:
        """Whether both mean one and the same process, whatever has become of its lease."""
        return _process_of(self) == _process_of(other)


def for_process(
    pid: int,
    host: HostIdentity,
    *,
    kind: str,
    start_time: int | None = None,
    lease: str | None = None,
    queues: tuple[str, ...] = (),
    started: float = 0.0,
) -> PidFile:
    """What to write for a live process of this host. Queue paths are made absolute by the caller."""
    return PidFile(
        pid=pid,
        start_time=start_time or identity.start_time(pid) or 0,
        host=host.label,
        boot_id=host.boot_id,
        pid_namespace=host.pid_namespace,
        kind=kind,
        lease=lease,
        queues=queues,
        started=started or time.time(),
    )


def write(path: str, pidfile: PidFile) -> None:
    """Write by one rename, so that a reader sees the old one or the new one whole; makes the directory.

    Raises OSError. One writer at a time and host, which the lock on the pid file's path sees to.
    """
    facts = {name: getattr(pidfile, name) for name in _FIELDS}
    text = f"{pidfile.pid}\n{json.dumps(facts)}\n"
    directory = os.path.dirname(path) or "."
    os.makedirs(directory, exist_ok=True)
    draft = os.path.join(directory, f".{os.path.basename(path)[:150]}.{token(8)}")
    data = text.encode("utf-8", "surrogateescape")
    durable.replace_file(path, data, draft, durably=False, rights=_READABLE)


def read(path: str) -> PidFile:
    """Read a pid file of ours or of another program. Raises NotRunning if there is none, PidFileUnusable."""
    try:
        data, facts = read_plain(path, limit_bytes=_LIMIT_BYTES)
    except UntrustedRecord as fault:
        raise PidFileUnusable(path, str(fault)) from fault
    except FileNotFoundError:
        why = "nothing was started with it, or it has ended"
        raise NotRunning(f"there is no pid file {path}: {why}") from None
    except OSError as fault:
        raise PidFileUnusable(path, f"can't be read ({fault.strerror})") from fault
    return replace(parse(path, data), owner=facts.st_uid)


def parse(path: str, data: bytes) -> PidFile:
    """What a pid file's bytes say; `path` is for the errors' text."""
    first, _, rest = data.partition(b"\n")
    number = first.strip()
    if not number:
        raise PidFileUnusable(path, "is empty")
    if not (number.isascii() and number.isdigit()):
        raise PidFileUnusable(path, f"does not begin with a pid but with {number[:40]!r}")
    if len(number) > 10 or not 0 < int(number) <= _PID_MAX:
        raise PidFileUnusable(path, f"names {number[:20].decode()}, which no process can have")
    pid = int(number)
    try:
        return _ours(pid, record_in(rest))
    except (ValueError, KeyError):  # another program's: the pid is all there is
        return PidFile(pid=pid)


def verify(pidfile: PidFile, host: HostIdentity) -> Verdict:
    """Whether the pid may be signalled here: only "running" says so.

    "stale" is a process of this host that has ended. "other-host" means that only that host knows.
    "unproven" is one of this host from before it was booted, or one of a clone of it: its leases tell.
    "unverified" is another program's file with a live pid, of which nobody can tell whose it is.
    """
    if pidfile.foreign:
        return "unverified" if pid_exists(pidfile.pid) else "stale"
    if host.shares_pids_with(pidfile.boot_id, pidfile.pid_namespace):
        return "running" if is_alive(pidfile.pid, pidfile.start_time) else "stale"
    if pidfile.host == host.label and not _of_a_clone(pidfile):
        return "unproven"
    return "other-host"


def choose_path(
    default_path: str, host: HostIdentity, is_a_clones: Callable[[PidFile], bool] = lambda pidfile: False
) -> str:
    """Where this host's pid file goes when none was asked for: not on top of another host's.

    NAME.pid, else NAME-HOST.pid, else (a clone, of the same label) NAME-HOST-BOOT.pid. `is_a_clones` is asked of a file
    that may be a clone's, or ours from before this boot.
    """
    stem, suffix = os.path.splitext(default_path)
    named = stem if stem.endswith(f"-{host.label}") else f"{stem}-{host.label}"
    boot = "".join(c for c in host.boot_id if c.isalnum())[-8:]
    for path in (default_path, f"{named}{suffix}"):
        if not _belongs_to_another_host(path, host, is_a_clones):
            return path
    return f"{named}-{boot}{suffix}"


def remove(path: str, pidfile: PidFile) -> bool:
    """Remove the file if it still means that process; says whether it did. Raises OSError.

    Between the look and the unlink another could slip in its own, but only under the same host's lock on this path.
    """
    try:
        if not read(path).same_process(pidfile):
            return False
        os.unlink(path)
    except (NotRunning, PidFileUnusable, FileNotFoundError):  # gone already, or no longer ours
        return False
    return True


_FIELDS: Final = [one.name for one in fields(PidFile) if one.compare]
_process_of: Final = attrgetter("pid", "start_time", "host", "boot_id", "pid_namespace")


def _ours(pid: int, facts: dict[str, object]) -> PidFile:
    lease, started, queues = facts["lease"], facts["started"], facts["queues"]
    begun = facts["start_time"]
    if facts["pid"] != pid or type(begun) is not int or not isinstance(queues, list):
        raise ValueError
    if not isinstance(started, int | float) or not facts["boot_id"]:
        raise ValueError
    if lease is not None and not _is_name(lease):
        raise ValueError
    if not all(isinstance(queue, str) and queue.startswith("/") and "\0" not in queue for queue in queues):
        raise ValueError
    return PidFile(
        pid=pid,
        start_time=begun,
        host=str(facts["host"]),
        boot_id=str(facts["boot_id"]),
        pid_namespace=str(facts["pid_namespace"]),
        kind=str(facts["kind"]),
        lease=lease,
        queues=tuple(queues),
        started=float(started),
    )


def _is_name(lease: object) -> TypeGuard[str]:
    """Whether this may be a lease name: files of a queue are named for it, and must stay in their folder."""
    return isinstance(lease, str) and 0 < len(lease) <= _LONGEST_LEASE and not {"/", "\0"} & set(lease)


def _of_a_clone(pidfile: PidFile) -> bool:
    """Whether a file with our label but another boot id was written since this host's boot, so not by this host."""
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return pidfile.started > booted + _CLOCK_SLACK_SECONDS


def _belongs_to_another_host(path: str, host: HostIdentity, is_a_clones: Callable[[PidFile], bool]) -> bool:
    try:
        found = read(path)
        verdict = verify(found, host)
    except (NotRunning, PidFileUnusable):  # free, or nobody's
        return False
    match verdict:
        case "other-host":
            return True
        case "unproven":
            return is_a_clones(found)
        case "running" | "stale" | "unverified":
            return False
        case _:
            assert_never(verdict)
