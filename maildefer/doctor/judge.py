"""Judging a mount by its kind and options alone, without touching it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from typing import Final

from maildefer.doctor.findings import Finding, ok, refuse, warn
from maildefer.host.mounts import Mount

_PROVEN: Final = frozenset(
    "ext2 ext3 ext4 xfs btrfs zfs f2fs bcachefs jfs ceph lustre gpfs fuse.ceph-fuse fuse.glusterfs".split()
)
_NETWORK: Final = frozenset(("nfs", "nfs4"))
_FORGETFUL: Final = frozenset(("tmpfs", "ramfs", "overlay"))
_NO_BARRIERS: Final = frozenset(("nobarrier", "barrier=0"))
_ETAB: Final = "/var/lib/nfs/etab"


def judge(mount: Mount | None, *, etab: str = _ETAB) -> Iterator[Finding]:
    """Judge a mount. Reads this host's own export table if the NFS server is this host."""
    if mount is None:
        fact = "the kernel does not say what filesystem it is"
        yield warn("filesystem", fact, "mount /proc, and run the doctor again")
        return
    where = f"{mount.kind} at {mount.point}"
    if read_only := "ro" in mount.options:
        yield refuse("filesystem", f"{where} is mounted read-only", "mount it read-write")
    if mount.kind in _NETWORK:
        yield from _judge_nfs(mount, where, etab, sound=not read_only)
    elif mount.kind in _FORGETFUL:
        fact = f"{where}: what is written to it is gone after a reboot, or with the container"
        yield warn("filesystem", fact, "put queues on a disk, or on a mount that outlives the host")
    elif mount.kind in _PROVEN:
        if not read_only:
            yield ok("filesystem", where)
    elif mount.kind.startswith("fuse"):
        what = "whether its rename is atomic and its fsync reaches a disk depends on the program behind it"
        remedy = "ask its documentation, or use a filesystem of the kernel"
        yield warn("filesystem", f"{where}: {what}", remedy)
    else:
        remedy = "use NFS with hard mounts, or a local disk"
        yield warn("filesystem", f"{where} has not been tried", remedy)
    if mount.options & _NO_BARRIERS:
        fact = f"{where} is mounted without barriers: a power cut can undo an fsync"
        yield warn("barriers", fact, "mount it with barriers")


def _judge_nfs(mount: Mount, where: str, etab: str, *, sound: bool) -> Iterator[Finding]:
    version = mount.option("vers") or mount.option("nfsvers") or "?"
    what = f"{where}, version {version}, from {mount.source}"
    if mount.options & {"soft", "softerr"}:
        sound = False
        fact = f"{what}: it is a soft mount, whose failed requests may be executed all the same"
        yield refuse("filesystem", fact, "mount it with the option hard")
    if (mount.option("proto") or "").startswith("udp") or "udp" in mount.options:
        sound = False
        fact = f"{what}: over UDP a request may be executed again after its reply"
        yield refuse("filesystem", fact, "mount it with proto=tcp")
    if sound:
        yield ok("filesystem", f"{what}, hard, over {mount.option('proto') or 'tcp'}")
    yield _judge_export(mount, etab)


def _judge_export(mount: Mount, etab: str) -> Finding:
    """Judge whether the server keeps what it confirms; this can be seen only if the server is this host."""
    server, _, export = mount.source.rpartition(":")
    is_here = _is_this_host(mount.option("addr") or server.strip("[]"))
    options = _export_options(export, etab) if is_here else None
    if options is None:
        fact = "unverified: the server's export can't be seen from here; it must say sync, not async"
        return ok("export", fact)
    if "async" in options:
        fact = f"this host exports {export} async: it confirms what is not on disk yet"
        remedy = "export it with the option sync: `exportfs -o sync …`, and in /etc/exports"
        return refuse("export", fact, remedy)
    return ok("export", f"this host exports {export} sync")


def _export_options(export: str, etab: str) -> set[str] | None:
    """Return the options, for all clients, of the longest exported path that holds `export`; None without one."""
    try:
        with open(etab, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.rstrip("\n").partition("\t") for line in file]
    except OSError:
        return None
    holding = [path for path, _, _ in lines if export == path or export.startswith(path.rstrip("/") + "/")]
    if not holding:
        return None
    longest = max(holding, key=len)
    clients = "".join(clients for path, _, clients in lines if path == longest)
    return {option for group in re.findall(r"\(([^)]*)\)", clients) for option in group.split(",")}


def _is_this_host(address: str) -> bool:
    """Whether an address belongs to this host: a socket can then be bound to it."""
    if not address or os.path.sep in address:
        return False
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as trial:
            trial.bind((address, 0))
    except OSError:  # another host's address, or a name, which is not looked up
        return False
    return True
