"""Fresh filesystems in files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MAKE: Final = {
    "ext4": (64 << 20, ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]),
    "xfs": (320 << 20, ["mkfs.xfs", "-q", "-f"]),
    "btrfs": (160 << 20, ["mkfs.btrfs", "-q", "-f"]),
}
PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@contextmanager
def disk(kind: str, home: Path, size_bytes: int) -> Iterator[Path]:
    """A mounted filesystem of this kind, of which nothing stays."""
    point = home / f"{kind}-mount"
    point.mkdir()
    if kind == "tmpfs":
        _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(point))
    else:
        image = home / f"{kind}-image"
        with open(image, "wb") as file:
            file.truncate(size_bytes)
        _run(*MAKE[kind][1], str(image))
        _run("mount", "-t", kind, "-o", "loop", str(image), str(point))
    try:
        yield point
    finally:
        # Somebody who was killed may still be leaving it.
        if subprocess.run(["umount", str(point)]).returncode != 0:
            _run("umount", "-l", str(point))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, env={**os.environ, "PATH": PATH})
