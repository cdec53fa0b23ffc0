"""The control folder of a queue, `.maildefer`: what all hosts agree on, and how it is made by one rename."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from maildefer.errors import MountMissing
from maildefer.maildir import durable
from maildefer.maildir.rights.confined import unconfined
from maildefer.maildir.rights.folder import Folder, open_folder
from maildefer.maildir.rights.modes import PLAIN, give_folder, make_directory, make_in, rights_in
from maildefer.maildir.rights.recording import give_journal_rights
from maildefer.maildir.system import SYSTEM, System

FORMAT_VERSION = 1
CONTROL_FOLDERS = (
    *("leases", "fenced", "dead", "tokens", "states", "status", "idempotency"),
    *("requests", "requests/done"),
)
_JOURNAL = ("journal",)  # where a record is a copy into memory (decision 89)
_MAPPED = frozenset("ext2 ext3 ext4 xfs f2fs tmpfs".split())
FSTAB = "/etc/fstab"
UNITS = ("/etc/systemd/system", "/run/systemd/system")
_UNIT_ESCAPES = re.compile(r"^\.|[^a-zA-Z0-9:_.]").sub
CONTROL_DRAFT = ".maildefer-"  # the beginning of the name, in `tmp/`, of a control folder that is being made


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """Values on which all hosts must agree. The TTL is three beats and twice an NFS client's longest retry pause."""

    version: int = FORMAT_VERSION
    beat_seconds: float = 5.0
    ttl_seconds: float = 45.0


def make_control(queue: str, format: Format, system: System) -> None:
    """Make the control folder in `tmp/` and rename it into place; the host that loses the race uses the winner's."""
    draft = f"{CONTROL_DRAFT}{system.pid()}-{system.token(6)}"
    path = f"{queue}/tmp/{draft}"
    keeps_journal = unconfined(system) is SYSTEM and may_map(queue)
    for name in ("", *CONTROL_FOLDERS, *(_JOURNAL if keeps_journal else ())):
        make_in(queue, f"tmp/{draft}/{name}".rstrip("/"), system)
    text = json.dumps(
        {"version": format.version, "beat_seconds": format.beat_seconds, "ttl_seconds": format.ttl_seconds}
    )
    rights = rights_in(queue, system)
    durable.write_new(f"{path}/format", text.encode() + b"\n", rights=rights.of_format(), system=system)
    durable.sync_directory(path, system=system)
    try:
        system.rename(path, f"{queue}/.maildefer")
        if rights.gives:
            for place in (".maildefer", ".maildefer/idempotency"):
                give_folder(queue, place, rights)
        if keeps_journal:
            with suppress(OSError):  # a new queue has no `new/` yet, and its journal is as it should be
                give_journal_rights(queue)
    except OSError as fault:
        try:
            with open_folder(queue, "tmp", system=system) as tmp:
                with tmp.folder(draft) as made:
                    clear_control(made)
                tmp.rmdir(draft)
        except OSError:  # it was renamed, and the reply was lost; otherwise a sweep removes it
            pass
        if fault.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT):
            raise


def clear_control(draft: Folder) -> None:
    """Remove from a control folder that is being made whatever was made there so far."""
    draft.remove(["format"])
    with suppress(OSError), draft.folder("requests") as requests:
        requests.rmdir("done")
    for name in (*CONTROL_FOLDERS[:-1], *_JOURNAL):
        with suppress(OSError):
            draft.rmdir(name)


def is_nfs(path: str) -> bool:
    """Whether the path is on an NFS mount, as far as the kernel tells."""
    return _filesystem_of(path).startswith("nfs")


def may_map(path: str) -> bool:
    """Whether room that was allocated there can be written to in memory: else a full disk kills who does (SIGBUS).

    Where data is copied on write it is written to new blocks, which may be lacking.
    """
    return _filesystem_of(path) in _MAPPED


def _filesystem_of(path: str) -> str:
    with suppress(OSError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            with open(f"/proc/self/fdinfo/{descriptor}") as facts:
                number = next((line.split()[1] for line in facts if line.startswith("mnt_id:")), "")
        finally:
            os.close(descriptor)
        with open("/proc/self/mountinfo", errors="surrogateescape") as lines:  # proc_pid_mountinfo(5)
            for fields in map(str.split, lines):
                if fields[0] == number:
                    return fields[fields.index("-") + 1]
    return ""


def make_with_parents(path: str, system: System) -> None:
    """Make a queue's own folder durably, unless it is there. Raises OSError; MountMissing if it is no queue yet."""
    if unconfined(system) is SYSTEM and not os.path.lexists(f"{path}/.maildefer"):
        must_be_mounted(path)
    _make_with_parents(path, system)


def must_be_mounted(path: str) -> None:
    """Raise MountMissing if the path is below a mount point at which nothing is mounted.

    Points are those of fstab(5), and of units that an administrator has put into systemd's folders.

    A queue that is made there is hidden as soon as the mount comes, with all that was pushed.
    """
    place = os.path.realpath(path)
    above = [place[:end] for end, letter in enumerate(place) if letter == "/" and end]
    try:
        told = _points_of_fstab() | _points_of_units(above)
        if not told.keys().isdisjoint(above):
            with open("/proc/self/mountinfo", errors="surrogateescape") as file:  # proc_pid_mountinfo(5)
                mounted = {_unescaped(line.split(" ")[4]) for line in file}
            for point in above:
                if point in told and point not in mounted:
                    why = f"{told[point]} has a mount for {point}, and nothing is mounted there"
                    raise MountMissing(path, why, point=point)
    except OSError:
        return


def _points_of_fstab() -> dict[str, str]:
    with suppress(FileNotFoundError), open(FSTAB, errors="surrogateescape") as file:
        lines = [line.split() for line in file if not line.lstrip().startswith("#")]
        points = [fields[1] for fields in lines if len(fields) > 2 and fields[1][0] == "/"]
        return {os.path.realpath(_unescaped(point)): FSTAB for point in points}
    return {}


def _points_of_units(above: Sequence[str]) -> dict[str, str]:
    """Return which of these folders have a unit, whose name is theirs: systemd.mount(5). A masked one is no file."""
    units = {
        f"{folder}/{_UNIT_ESCAPES(_escaped, point[1:])}.mount": point for folder in UNITS for point in above
    }
    return {point: unit for unit, point in units.items() if os.path.isfile(unit)}


def _escaped(match: re.Match[str]) -> str:
    return "-" if match[0] == "/" else "".join(f"\\x{byte:02x}" for byte in os.fsencode(match[0]))


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _make_with_parents(path: str, system: System) -> None:
    try:
        made = make_directory(path, PLAIN.folder_mode, system)
    except FileNotFoundError:
        _make_with_parents(os.path.dirname(path), system)
        made = make_directory(path, PLAIN.folder_mode, system)
    if made:  # the folder that holds it must survive a power cut too (I1)
        durable.sync_directory(os.path.dirname(path), system=system)
