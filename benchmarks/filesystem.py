"""Directories on the filesystems that the figures are taken on: a journalled ext4 and a tmpfs.

Both are context managers and leave nothing behind, also on Ctrl-C.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.places import CACHE, Unavailable

EXT4_BYTES = 3 << 30  # sparse: 100,000 entries of 2 KiB take 0.5 GiB of it


@contextmanager
def ext4(size_bytes: int = EXT4_BYTES, inode_bytes: int = 8192) -> Iterator[str]:
    """A fresh ext4 with its journal on a loop file; needs root. mkfs's defaults, but an inode for so many bytes."""
    _require_ext4()
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ext4-", dir=CACHE) as base:
        image, point = Path(base, "image"), Path(base, "mount")
        with image.open("wb") as file:
            file.truncate(size_bytes)
        point.mkdir()
        _run(
            *("mkfs.ext4", "-q", "-F", "-i", str(inode_bytes)),
            *("-E", "lazy_itable_init=0,lazy_journal_init=0", str(image)),
        )
        _run("mount", "-o", "loop", str(image), str(point))  # the loop device goes with the last unmount
        try:
            yield str(point)
        finally:
            _unmount(point)


@contextmanager
def tmpfs() -> Iterator[str]:
    """A directory in /dev/shm."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    if not any(fields[1] == "/dev/shm" and fields[2] == "tmpfs" for fields in mounts):
        raise Unavailable("/dev/shm is no tmpfs here")
    base = tempfile.mkdtemp(prefix="maildefer-benchmark-", dir="/dev/shm")
    try:
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


FILESYSTEMS: dict[str, Callable[[], AbstractContextManager[str]]] = {"ext4": ext4, "tmpfs": tmpfs}


@contextmanager
def fresh_directory(base: str) -> Iterator[str]:
    """A directory of its own for one measurement, removed, and forgotten by the disk, before the next one."""
    path = tempfile.mkdtemp(prefix="run-", dir=base)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        settle_disk(base)


def settle_disk(path: str) -> None:
    """Writes back what is dirty on `path`'s filesystem, so that no write-back falls into a measurement."""
    _run("sync", "-f", path)


def _require_ext4() -> None:
    if os.geteuid() != 0:
        raise Unavailable("a loop mount needs root")
    for tool in ("mkfs.ext4", "mount", "umount"):
        if shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
            raise Unavailable(f"{tool} is missing: apt-get install e2fsprogs mount")
    if not os.path.exists("/dev/loop-control"):
        raise Unavailable("this machine has no loop devices")


def _unmount(point: Path) -> None:
    if subprocess.run(["umount", str(point)], capture_output=True).returncode != 0:
        # A process that was interrupted may still sit in it: detach now, the kernel finishes when it goes.
        _run("umount", "-l", str(point))


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"{' '.join(command)}: {error.stderr.strip()}") from error
