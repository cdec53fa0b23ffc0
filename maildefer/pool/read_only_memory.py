"""Memory that a process shares with its children, who only read it: what one of them breaks is no other's."""

from __future__ import annotations

import os


def make(name: str) -> tuple[int, int]:
    """Two descriptors of one file in memory: to write to it, and, for the children, to read it whoever they become.

    By the second nobody but the file's owner can open it to be written to.
    """
    writer = os.memfd_create(name)
    os.fchmod(writer, 0o444)
    return writer, os.open(f"/proc/self/fd/{writer}", os.O_RDONLY | os.O_CLOEXEC)
