"""The folders of a queue: their paths, and how a queue is made, opened and mended.

A queue is a Maildir with two Maildir++ folders (`.later`, `.dead`) and a control folder (`.maildefer`).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass, field

from maildefer.errors import FormatUnknown, NotAQueue, PermissionRefused, QueueMissing, raise_named
from maildefer.maildir import durable
from maildefer.maildir.control_folder import CONTROL_FOLDERS, make_control, make_with_parents
from maildefer.maildir.control_folder import FORMAT_VERSION as FORMAT_VERSION
from maildefer.maildir.control_folder import Format as Format
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.rights.modes import make_in
from maildefer.maildir.system import SYSTEM, System
from maildefer.untrusted import UntrustedRecord, number, read_record

_LONGEST_TTL_SECONDS = 1e6
_MAILDIR = ("tmp", "new", "cur")
_KNOWN = {*_MAILDIR, ".later", ".dead", ".done", ".maildefer"}
_LOST_AND_FOUND = frozenset(("lost+found",))  # what an empty filesystem holds


@dataclass(frozen=True, slots=True)
class Layout:
    """The absolute paths of one queue. Every listing and rename goes by these, never by a kept descriptor (I10)."""

    path: str
    tmp: str = field(init=False)
    new: str = field(init=False)
    cur: str = field(init=False)
    later_new: str = field(init=False)
    later_cur: str = field(init=False)
    dead_new: str = field(init=False)
    dead_cur: str = field(init=False)
    done_new: str = field(init=False)
    done_cur: str = field(init=False)
    control: str = field(init=False)
    leases: str = field(init=False)
    fenced: str = field(init=False)
    reasons: str = field(init=False)
    tokens: str = field(init=False)
    limits: str = field(init=False)
    rates: str = field(init=False)
    states: str = field(init=False)
    status: str = field(init=False)
    requests: str = field(init=False)
    requests_done: str = field(init=False)
    format: str = field(init=False)
    journal: str = field(init=False)
    paused: str = field(init=False)
    sent: str = field(init=False)
    periodic: str = field(init=False)
    synced: str = field(init=False)

    def __post_init__(self) -> None:
        control = f"{(path := os.path.abspath(self.path))}/.maildefer"
        for name, value in {
            "path": path,
            "tmp": f"{path}/tmp",
            "new": f"{path}/new",
            "cur": f"{path}/cur",
            "later_new": f"{path}/.later/new",
            "later_cur": f"{path}/.later/cur",
            "dead_new": f"{path}/.dead/new",
            "dead_cur": f"{path}/.dead/cur",
            "done_new": f"{path}/.done/new",
            "done_cur": f"{path}/.done/cur",
            "control": control,
            "leases": f"{control}/leases",
            "fenced": f"{control}/fenced",
            "reasons": f"{control}/dead",
            "tokens": f"{control}/tokens",
            "limits": f"{control}/limits",
            "rates": f"{control}/rates",
            "states": f"{control}/states",
            "status": f"{control}/status",
            "requests": f"{control}/requests",
            "requests_done": f"{control}/requests/done",
            "format": f"{control}/format",
            "journal": f"{control}/journal",
            "paused": f"{control}/paused",
            "sent": f"{control}/sent",
            "periodic": f"{control}/periodic",
            "synced": f"{control}/synced",
        }.items():
            object.__setattr__(self, name, value)


def create_queue(path: str, *, format: Format | None = None, system: System = SYSTEM) -> Layout:
    """Make what is missing of the queue at `path`, and open it; any number of hosts may do so at the same time.

    A Maildir of another program is used as it is. `format` is used only for a queue that has none yet.
    Raises NotAQueue, FormatUnknown, MountMissing, and StorageFault's kinds.
    """
    layout = Layout(path)
    try:
        make_with_parents(layout.path, system)
        system = confined_to(layout.path, system)
        try:
            present = set(system.listdir(layout.path))
        except PermissionError:  # a user who may only put entries in, and so makes nothing
            return open_queue(path, system=system)
        if (
            present - _KNOWN - _LOST_AND_FOUND
            and ".maildefer" not in present
            and not present.issuperset(_MAILDIR)
        ):
            raise NotAQueue(layout.path, "it holds other things")
        make_in(layout.path, "tmp", system)
        if (
            ".maildefer" not in present
        ):  # first, so that no host takes a half-made queue for another program's Maildir
            make_control(layout.path, format or Format(), system)
        for name in _MAILDIR[1:]:
            make_in(layout.path, name, system)
        for folder in (".later", ".dead"):
            make_folder(layout, folder, system)
        if not present.issuperset(_KNOWN - {".done"}):
            durable.sync_directory(layout.path, system=system)
    except NotADirectoryError as fault:
        raise NotAQueue(layout.path, "it is a file") from fault
    except FileNotFoundError as fault:  # the path is or goes through a broken link, or was removed meanwhile
        raise _missing(layout.path, system) from fault
    except OSError as fault:
        raise_named(layout.path, fault)
    return open_queue(path, system=system)


def open_queue(path: str, *, system: System = SYSTEM) -> Layout:
    """Open an existing queue. Raises QueueMissing, NotAQueue, FormatUnknown, and StorageFault's kinds.

    A Maildir without a control folder is a queue that no process has used yet: it gets one.
    """
    layout = Layout(path)
    system = confined_to(layout.path, system)
    try:
        present = _listed_maildir(layout, system)
    except PermissionRefused:
        return _open_shared_queue(layout, system)
    if not {".maildefer", ".later", ".dead"} <= present:
        return create_queue(path, system=system)
    read_format(layout, system=system)
    try:
        present = set(system.listdir(layout.control))
    except OSError as fault:
        raise_named(layout.control, fault)
    if not present.issuperset(CONTROL_FOLDERS[:-1]):
        mend(layout, system=system)
    return layout


def _open_shared_queue(layout: Layout, system: System) -> Layout:
    """Open a queue that is shared with this user, who may put entries in and read nothing else of it."""
    for name in _MAILDIR:
        _must_be_directory(layout, name, system)
    read_format(layout, system=system)
    return layout


def list_queue_folder(layout: Layout, system: System) -> set[str]:
    """List the queue's own folder. Raises QueueMissing, NotAQueue, and StorageFault's kinds."""
    try:
        return set(system.listdir(layout.path))
    except FileNotFoundError as fault:
        raise _missing(layout.path, system) from fault
    except NotADirectoryError as fault:
        raise NotAQueue(layout.path, "it is a file") from fault
    except OSError as fault:
        raise_named(layout.path, fault)


def _listed_maildir(layout: Layout, system: System) -> set[str]:
    """List the queue's own folder, after making missing folders again if the queue is ours; it must be a Maildir."""
    present = list_queue_folder(layout, system)
    if ".maildefer" in present and not present.issuperset(_KNOWN - {".done"}):
        mend(layout, system=system)  # without a control folder it may be another program's Maildir
        present |= _KNOWN
    must_be_maildir(layout, present, system)
    return present


def _missing(path: str, system: System) -> QueueMissing:
    """Return the error for a path at which no folder was found."""
    with suppress(OSError):
        if stat.S_ISLNK(system.lstat(path).st_mode):
            return QueueMissing(path, "it is a link to what is not there: make that folder, or mount it")
    return QueueMissing(path)


def _refuse_empty(path: str, present: Set[str]) -> None:
    """Raise QueueMissing for an empty folder. A queue that is being made holds only `tmp` at first."""
    if present <= _LOST_AND_FOUND | {"tmp"}:
        raise QueueMissing(path, "the folder is empty: name it in `queues` to have it made, or mount it")


def must_be_maildir(layout: Layout, present: set[str], system: System) -> None:
    """Raise QueueMissing or NotAQueue unless the folder holds what a Maildir holds."""
    _refuse_empty(layout.path, present)
    if lacking := [name for name in _MAILDIR if name not in present]:
        raise NotAQueue(layout.path, f"it has no {', '.join(lacking)}")
    for name in (*_MAILDIR, ".later/new", ".dead/new"):
        _must_be_directory(layout, name, system)


def _must_be_directory(layout: Layout, name: str, system: System) -> None:
    try:
        system.close(system.open(f"{layout.path}/{name}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    except NotADirectoryError as fault:  # a file, or a link
        raise NotAQueue(layout.path, f"its {name} is no directory of its own") from fault
    except OSError as fault:
        if fault.errno != errno.ENOENT:  # a missing one is made again when it is needed
            raise_named(f"{layout.path}/{name}", fault)


def mend(layout: Layout, *, system: System = SYSTEM) -> bool:
    """Make again the folders that a copy without empty directories, a clean-up or an operator has removed.

    Returns whether any was missing. The control folder must be there: without it the queue is gone, or was never ours.
    Raises QueueMissing, and StorageFault's kinds.
    """
    made, system = False, confined_to(layout.path, system)
    try:
        present = system.listdir(layout.path)
        if ".maildefer" not in present:
            raise QueueMissing(layout.path)
        for name in _MAILDIR:
            made |= name not in present and make_in(layout.path, name, system)
        if made:
            durable.sync_directory(layout.path, system=system)
        for folder in (".later", ".dead"):
            if folder not in present or not set(_MAILDIR) <= set(system.listdir(f"{layout.path}/{folder}")):
                make_folder(layout, folder, system)
                made = True
        present = system.listdir(layout.control)
        if "requests" in present:
            present += [f"requests/{name}" for name in system.listdir(layout.requests)]
        for name in CONTROL_FOLDERS:
            made |= name not in present and make_in(layout.path, f".maildefer/{name}", system)
    except FileNotFoundError as fault:  # removed meanwhile
        raise QueueMissing(layout.path) from fault
    except OSError as fault:
        raise_named(layout.path, fault)
    return made


def read_format(layout: Layout, *, system: System = SYSTEM) -> Format:
    """Read what the hosts have agreed on. Raises FormatUnknown for a newer version and for a damaged file."""
    try:
        found = read_record(layout.format, files=confined_to(layout.path, system))
        if (version := found["version"]) != FORMAT_VERSION:  # whose other values may have other names
            raise FormatUnknown(layout.path, f"the format version {version}")
        beat, ttl = number(found["beat_seconds"]), number(found["ttl_seconds"])
    except (FileNotFoundError, NotADirectoryError) as fault:
        raise FormatUnknown(layout.path, "no format file") from fault
    except OSError as fault:
        raise_named(layout.format, fault)
    except (UntrustedRecord, KeyError) as fault:
        raise FormatUnknown(layout.path, f"a damaged format file ({fault})") from fault
    if not 0 < beat * 3 <= ttl < _LONGEST_TTL_SECONDS:
        raise FormatUnknown(layout.path, f"a TTL of {ttl} s with beats of {beat} s")
    return Format(beat_seconds=beat, ttl_seconds=ttl)


def make_folder(layout: Layout, folder: str, system: System) -> None:
    """Make a Maildir++ folder, which mail readers recognise by its `maildirfolder` file."""
    system = confined_to(layout.path, system)
    make_in(layout.path, folder, system)
    made = [name for name in _MAILDIR if make_in(layout.path, f"{folder}/{name}", system)]
    with suppress(FileExistsError):  # the ordinary case
        system.close(system.open(f"{layout.path}/{folder}/maildirfolder", durable.NEW, durable.FILE_MODE))
    if made:
        durable.sync_directory(f"{layout.path}/{folder}", system=system)


def make_again(layout: Layout, folder: str | None, system: System) -> None:
    """Make a Maildir++ folder that is missing, or without one the whole queue. Raises StorageFault's kinds."""
    try:
        make_folder(layout, folder, system) if folder else create_queue(layout.path, system=system)
    except OSError as fault:
        raise_named(layout.path, fault)
