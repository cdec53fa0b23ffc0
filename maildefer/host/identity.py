"""Who this host is, and whether a process of it still lives.

A host, here, is whatever can see the same processes: the boot id and the pid namespace together.
Host names and machine ids are not trusted for that (containers share boot ids but not pids, clones share names);
they only make the label that people read in lease names, keys and pid files.

`MAILDEFER_HOST_ID` overrides the name, so that several hosts can be tried on one machine, or clones be told apart. The
kernel's boot id counts beside it, since a variable may come with an image, to many hosts at once.
"""

from __future__ import annotations

import os
import re
from binascii import crc32
from dataclasses import dataclass
from typing import Final

from maildefer.maildir import journal_file

HOST_ID_VARIABLE: Final = "MAILDEFER_HOST_ID"

_LABEL_BYTES: Final = 20
_STATE, _START_TIME = 0, 19  # of what follows the comm in /proc/PID/stat, proc_pid_stat(5): fields 3 and 22
_DEAD: Final = (b"Z", b"X", b"x")  # a zombie has done all it will ever do


@dataclass(frozen=True, slots=True, kw_only=True)
class HostIdentity:
    """One host's identity. `label` is for names; `boot_id` and `pid_namespace` decide whether pids mean anything."""

    label: str
    boot_id: str
    pid_namespace: str

    def shares_pids_with(self, boot_id: str, pid_namespace: str) -> bool:
        """Whether a pid written down under these two may be looked up here."""
        return bool(boot_id) and self.boot_id == boot_id and self.pid_namespace == pid_namespace

    def is_namesake(self, label: str, boot_id: str, pid_namespace: str) -> bool:
        """Whether these are another machine's, or container's, which has our name; or our own before its last boot."""
        return label == self.label and not self.shares_pids_with(boot_id, pid_namespace)


def this_host() -> HostIdentity:
    """The host this process runs on. Reads a few files of /proc, never the mount; safe in any process."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:  # no /proc, or a kernel without namespaces: then there is only one
        namespace = ""
    boot_id = _line("/proc/sys/kernel/random/boot_id")
    if chosen := os.environ.get(HOST_ID_VARIABLE, ""):
        name, boot_id = label(chosen, chosen), f"id:{chosen}:{boot_id}"
    else:
        node = os.uname().nodename
        # Not the boot id: the label, and the pid files and logs named for it, should outlive a reboot. The namespace
        # tells containers of one host apart.
        name = label(node, f"{node}\n{_line('/etc/machine-id')}\n{namespace}")
    return HostIdentity(label=name, boot_id=boot_id, pid_namespace=namespace)


journal_file.name_host_with(lambda: this_host().label)  # in each process that may push or settle


def label(name: str, identity: str) -> str:
    """At most 20 bytes of [a-z0-9-] from `name`, then '-' and six hex digits of a hash of `identity`."""
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower())[:_LABEL_BYTES].strip("-") or "host"
    # crc32, as hashlib costs 4.7 MB a process. It need not resist anybody: who may write here may do anything.
    return f"{readable}-{crc32(os.fsencode(identity)) & 0xFFFFFF:06x}"


def start_time(pid: int) -> int | None:
    """When `pid` began, in clock ticks since the boot; None if there is no such process, or only its zombie."""
    fields = stat_fields(pid)
    return None if fields is None or fields[_STATE] in _DEAD else int(fields[_START_TIME])


def is_alive(pid: int, start_time: int) -> bool:
    """Whether that very process still runs: same pid, same start time, and not a zombie.

    Where /proc hides other users' processes (`hidepid`), a pid that exists counts as alive: its death can't be proved.
    """
    fields = stat_fields(pid)
    if fields is None:
        return _hidden(pid)
    return fields[_STATE] not in _DEAD and int(fields[_START_TIME]) == start_time


def pid_exists(pid: int) -> bool:
    """Whether any process has that pid just now."""
    return start_time(pid) is not None or _hidden(pid)


def stat_fields(pid: int) -> list[bytes] | None:
    """What follows the comm in /proc/PID/stat, proc_pid_stat(5); None if there is no such process."""
    if pid <= 0:
        return None
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(4096)
    except (FileNotFoundError, ProcessLookupError):  # no such process, or it ended while we read
        return None
    # The comm may hold blanks and parentheses; nothing after it does, so the last one closes it.
    return text[text.rindex(b")") + 2 :].split()


def _hidden(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return False  # ours, so /proc would have shown it: it has ended between the two looks


def _line(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip()
    except OSError:  # minimal containers have no machine id
        return ""
