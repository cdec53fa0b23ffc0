"""What kind of filesystem a path lies on, and how it is mounted: /proc/self/mountinfo, proc_pid_mountinfo(5)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

_LOCAL: Final = frozenset("ext2 ext3 ext4 xfs btrfs f2fs zfs tmpfs overlay bcachefs".split())
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of mountinfo; `options` are those of the mount and of the filesystem together."""

    point: str
    kind: str
    source: str
    options: frozenset[str]

    def option(self, name: str) -> str | None:
        """The value of `name=value`."""
        return next((o.partition("=")[2] for o in self.options if o.startswith(f"{name}=")), None)


def mount_of(path: str) -> Mount | None:
    """The mount that an existing path is on; None if the kernel does not tell. Raises OSError if there is no path."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as facts:
            number = next((line.split()[1] for line in facts if line.startswith("mnt_id:")), None)
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            return next((parse(line) for line in lines if line.split(" ", 1)[0] == number), None)
    finally:
        os.close(descriptor)


def nearest(path: str) -> str:
    """The path, or the nearest directory above it that is there."""
    path = os.path.abspath(path)
    while path != "/" and not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def is_local(path: str) -> bool:
    """Whether every other writer to a path, which need not be there yet, goes through this kernel. Raises OSError."""
    mount = mount_of(nearest(path))
    return mount is not None and mount.kind in _LOCAL


def parse(line: str) -> Mount:
    """`36 35 98:0 /root /point rw,noatime shared:1 … - nfs4 server:/export rw,hard,proto=tcp`."""
    before, _, after = line.rstrip("\n").partition(" - ")
    fields = before.split(" ")
    kind, source, options = (*after.split(" ", 2), "", "")[:3]
    # Of `ro` and `rw`, the mount's own counts for it, and the filesystem's `ro` for all its mounts; so does what ext4
    # says after an error, in newer kernels.
    merged = {*fields[5].split(","), *options.split(",")} - {""}
    if not merged.isdisjoint({"ro", "emergency_ro"}):
        merged = merged - {"rw"} | {"ro"}
    return Mount(point=_plain(fields[4]), kind=kind, source=_plain(source), options=frozenset(merged))


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
