"""Process titles: what `ps` and `pgrep -f maildefer` show.

Written through /proc/self, over the process's own command line: see decision 55, which weighs it against setproctitle.
"""

from __future__ import annotations

import functools
import os
from typing import Final

# Of what follows the comm in /proc/self/stat: fields 48 and 49, proc_pid_stat(5).
_ARG_START, _ARG_END = 45, 46
_COMM_BYTES: Final = 15


def set_title(title: str) -> None:
    """Show this process as `maildefer: TITLE`, for instance "worker 3 run/queue". Raises nothing: it is cosmetic.

    The title replaces the command line, and is cut to its length: the environment behind it stays as it is, since C
    libraries point into it.
    """
    text = os.fsencode(f"maildefer: {title}")
    try:
        start, end = _command_line()
        if 0 < start < end:  # 0 where the kernel does not tell
            # At least one NUL at the end: without it the kernel takes the environment for a part of the title.
            _write("/proc/self/mem", text[: end - start - 1].ljust(end - start, b"\0"), start)
        _write("/proc/self/comm", text[:_COMM_BYTES], 0)  # what prctl(PR_SET_NAME) sets: `top`, `ps -e`
    except (OSError, ValueError):  # no /proc, or a process that may not write to its own memory
        pass


@functools.cache
def _command_line() -> tuple[int, int]:
    """Where the command line begins and ends in this process's memory, and in its forks' memory."""
    descriptor = os.open("/proc/self/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        stat = os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
    fields = stat[stat.rindex(b")") + 2 :].split()
    return int(fields[_ARG_START]), int(fields[_ARG_END])


def _write(path: str, data: bytes, offset: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        if offset:
            os.lseek(descriptor, offset, os.SEEK_SET)
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
