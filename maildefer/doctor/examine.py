"""Examines whether a directory is safe for a queue, for `maildefer doctor` and for a pool that starts.

It is safe on a queue in use: all trials are made in a folder of their own below `tmp/`, which is removed again.
All checks touch the mount, and hang if it hangs.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from shlex import quote
from typing import Final

from maildefer.doctor import trials
from maildefer.doctor.findings import Finding, ok, refuse, warn
from maildefer.doctor.front_end import examine_front_end
from maildefer.doctor.judge import judge
from maildefer.doctor.modes import (
    examine_journal,
    examine_permissions,
    examine_replaceable_folders,
    examine_sticky_folders,
)
from maildefer.doctor.one_sync import examine_syncs
from maildefer.errors import (
    FormatUnknown,
    MaildeferError,
    NotAQueue,
    QueueMissing,
    UnsafeMount,
    UnsafeRuntimeDirectory,
)
from maildefer.host import runtime_dir
from maildefer.host.identity import HOST_ID_VARIABLE
from maildefer.host.linux import inotify
from maildefer.host.linux.inotify import Inotify
from maildefer.host.mounts import mount_of, nearest
from maildefer.maildir import scan
from maildefer.maildir.layout import Layout, read_format
from maildefer.maildir.names import split_beat
from maildefer.maildir.rights.folder import TRIAL, Folder, open_folder
from maildefer.maildir.system import SYSTEM
from maildefer.maildir.upkeep.leases import STATUS_LIMIT_BYTES, is_folder, read_holder
from maildefer.units import size
from maildefer.untrusted import UntrustedRecord, number, read_record

_SKEW_SECONDS: Final = 60.0
_FEW_PERCENT: Final = 2
_CLOCK: Final = f"{TRIAL}-clock"
_RACES_AT_START: Final = 50
_NFS: Final = frozenset(("nfs", "nfs4"))


def examine(
    path: str,
    *,
    races: int = trials.RACES,
    user: str = "",
    group: str = "",
    tell: Callable[[str], None] = lambda _: None,
) -> list[Finding]:
    """Run all checks of a queue, or of a directory in which queues will be made. Raises QueueMissing.

    With a user or a group, also check whether a front end that runs as that user could serve the queue; raises
    ConfigurationError if the user or group does not exist.

    `races` is how often two processes compete for one file. They are forked, so it must be 0 if this process has other
    threads. `tell` is called with the name of each trial that takes long.
    """
    path = os.path.abspath(path)
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as fault:
        raise QueueMissing(
            path,
            f"it is made at the first start; `maildefer doctor {quote(os.path.dirname(path))}` looks there",
        ) from fault
    except OSError as fault:  # whether it is there is not for this user to know
        scan.raise_unread(path, fault)
    layout = Layout(path)
    is_queue = all(os.path.isdir(folder) for folder in (layout.tmp, layout.new, layout.cur))
    found = [*judge_mount_at(path), *_space(path), *_runtime_directory(), *_watches(path)]
    if is_queue:
        found += [*_format(layout), *examine_permissions(layout), *examine_journal(layout)]
        found += examine_syncs(layout)
        if user or group:
            found += examine_front_end(layout, user, group)
    place = layout.tmp if is_queue else path
    try:
        below = ("tmp",) if is_queue else ()
        with open_folder(path, *below) as parent, trials.trial_folder(parent) as folder:
            tell("names and syncs")
            found += [trials.try_names(folder), trials.try_sync(folder), _clock(folder)]
            if races:
                tell(f"{races} races for a file")
                found.append(trials.try_race(folder, races))
                tell("what listings show")
                found.append(trials.try_sight(folder))
    except OSError as fault:
        what = fault.strerror or str(fault)
        found.append(refuse("write", f"nothing can be written to {place}: {what}", _remedy(fault)))
    return [*found, *_other_hosts(layout)] if is_queue else found


def _remedy(fault: OSError) -> str:
    if fault.errno == errno.EACCES and os.geteuid() == 0:  # a local filesystem never returns this to root
        return "the server maps root to another user (root_squash): run this as the queue's owner"
    return "see permissions, space and mount"


def judge_mount_at(path: str) -> list[Finding]:
    """Judge only the kind and options of the mount of the nearest existing directory; takes a few microseconds."""
    return list(judge(mount_of(nearest(path))))


def examine_at_join(layout: Layout) -> list[Finding]:
    """Judge a queue's mount, whether this user may remove others' entries, and whether others could mislead root."""
    replaceable = examine_replaceable_folders(layout)
    return [*judge_mount_at(layout.path), *examine_sticky_folders(layout), *replaceable]


def examine_at_start(path: str) -> list[Finding]:
    """Run the checks for a pool that starts, on a queue, or on a directory of queues, which need not exist yet."""
    return examine(path, races=_RACES_AT_START) if os.path.isdir(path) else judge_mount_at(path)


def refuse_unsafe(path: str, findings: Iterable[Finding]) -> None:
    """Raise UnsafeMount, which names every fact and its remedy, if any finding refuses."""
    if bad := [f"{finding.fact}: {finding.remedy}" for finding in findings if finding.verdict == "refuse"]:
        raise UnsafeMount(f"{path} is not safe for a queue: {'; '.join(bad)} (--force if you know better)")


def _space(path: str) -> Iterator[Finding]:
    facts = os.statvfs(path)
    for what, free, total in (
        ("bytes", facts.f_bavail, facts.f_blocks),
        ("inodes", facts.f_favail, facts.f_files),
    ):
        if 0 <= free * 100 < total * _FEW_PERCENT:  # CephFS reports -1 free inodes: it does not count them
            fact = f"{free * 100 / total:.1f} % of {what} are free"
            yield warn("space", fact, "make room: a full disk refuses mail")
            return
    yield ok("space", f"{size(facts.f_bavail * facts.f_frsize)} free")


def _runtime_directory() -> Iterator[Finding]:
    try:
        path = runtime_dir.directory()
    except (UnsafeRuntimeDirectory, OSError) as fault:
        can_not = "the runtime directory can't be made: " if isinstance(fault, OSError) else ""
        remedy = f"set {runtime_dir.DIRECTORY_VARIABLE} to a directory of your own on this host"
        yield refuse("runtime", f"{can_not}{fault}", remedy)
        return
    mount = mount_of(path)
    if mount is not None and mount.kind in _NFS:
        fact = f"{path} is on {mount.kind}, whose locks outlive their holders, and hangs with it"
        remedy = f"set {runtime_dir.DIRECTORY_VARIABLE} to a directory on this host's own disk or memory"
        yield warn("runtime", fact, remedy)
    else:
        yield ok("runtime", path)


def _watches(path: str) -> Iterator[Finding]:
    """Check whether an inotify instance is left: a pool uses one for each queue, and polls without it."""
    try:
        with closing(Inotify()) as watching:
            watching.watch(path, inotify.CREATE)
    except OSError as fault:
        if fault.errno not in inotify.USED_UP:
            return
        fact = f"no watch is left for this user ({fault.strerror}): entries are found up to a second late"
        remedy = "raise fs.inotify.max_user_instances and fs.inotify.max_user_watches (sysctl)"
        yield warn("inotify", fact, remedy)


def _format(layout: Layout) -> Iterator[Finding]:
    if not os.path.isdir(layout.control):
        yield ok("format", "a Maildir that no pool has served yet")
        return
    try:
        found = read_format(layout)
    except (FormatUnknown, NotAQueue) as error:
        yield refuse("format", str(error), "run the same version on all hosts")
    except MaildeferError as error:
        yield refuse("format", str(error), "make the file readable for this user")
    else:
        beats = f"beat {found.beat_seconds:g} s, TTL {found.ttl_seconds:g} s"
        yield ok("format", f"version {found.version}, {beats}")


def _clock(folder: Folder) -> Finding:
    """Compare this host's clock with the mount's, by which deferred entries are due."""
    descriptor = trials.create(folder, _CLOCK)
    try:
        os.write(descriptor, b".")
        os.fsync(descriptor)
        offset = os.fstat(descriptor).st_mtime - SYSTEM.time()
    finally:
        os.close(descriptor)
        folder.unlink(_CLOCK)
    if abs(offset) > _SKEW_SECONDS:
        fact = f"this host's clock and the mount's differ by {offset:.0f} s"
        return warn("clock", fact, "run a time service on both")
    return ok("clock", f"this host's and the mount's differ by {abs(offset):.2f} s")


def _other_hosts(layout: Layout) -> Iterator[Finding]:
    """Report how each live lease's host differs from the mount's clock, by its status file; and hosts of one name."""
    try:
        beats = sorted(beat for name in scan.entries(layout.leases) if (beat := split_beat(name)))
        leases = {name: beat for name, beat in beats if not is_folder(layout, name, beat)}
    except OSError as fault:
        yield refuse("leases", f"{layout.leases} can't be read: {fault.strerror}", "see to its permissions")
        return
    yield from _namesakes(layout, leases)
    for lease in leases:
        offset = _clock_offset(f"{layout.status}/{lease}.json")
        if offset is None:
            yield ok("hosts", f"{lease} serves this queue; its clock is not known")
        elif abs(offset) > _SKEW_SECONDS:
            fact = f"the clock of {lease} and the mount's differ by {offset:.0f} s"
            yield warn("hosts", fact, "run NTP there")
        else:
            differ = f"its clock and the mount's differ by {abs(offset):.2f} s"
            yield ok("hosts", f"{lease} serves this queue; {differ}")


def _namesakes(layout: Layout, beats: dict[str, int]) -> Iterator[Finding]:
    """Warn of machines, or containers, with one name: no message is at risk, but people can't tell them apart."""
    named: dict[str, dict[tuple[str, str], str]] = {}
    for lease, beat in beats.items():
        if (holder := read_holder(layout, lease, beat)) is not None:
            named.setdefault(holder.host, {})[holder.boot_id, holder.pid_namespace] = lease
    for host, machines in named.items():
        if len(machines) > 1:
            leases = " and ".join(machines.values())
            fact = f"{leases} are of different machines, or boots, that are all named {host}"
            own = f"give each a {HOST_ID_VARIABLE} of its own, not the image's"
            yield warn("hosts", fact, f"unless one has just been started anew, {own}")


def _clock_offset(path: str) -> float | None:
    try:
        return number(read_record(path, limit_bytes=STATUS_LIMIT_BYTES)["clock_offset_seconds"])
    except (OSError, UntrustedRecord, KeyError):  # there is no status file yet, or one of another version
        return None
