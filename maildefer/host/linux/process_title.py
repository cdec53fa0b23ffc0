"""Process titles: what `ps` and `pgrep -f maildefer` show.

Written through /proc/self, which costs nothing; setproctitle costs 1.2 MB a process, all of it private.
"""

from __future__ import annotations

import os
from typing import Final

_ARG_START, _ARG_END = (
    45,
    46,
)  # of what follows the comm in /proc/self/stat: fields 48 and 49, proc_pid_stat(5)
_COMM_BYTES: Final = 15


def set_title(title: str) -> None:
    """Show this process as `maildefer: TITLE`, for instance "worker 3 run/queue". Never raises: it is cosmetic.

    The title takes the place of the command line, and is cut to its length: the environment behind it stays as it is,
    for C libraries point into it.
    """
    text = os.fsencode(f"maildefer: {title}")
    try:
        _replace_command_line(text)
        with open(
            "/proc/self/comm", "wb", buffering=0
        ) as comm:  # what prctl(PR_SET_NAME) sets: `top`, `ps -e`
            comm.write(text[:_COMM_BYTES])
    except (OSError, ValueError):  # no /proc, or a process that may not write to its own memory
        pass


def _replace_command_line(text: bytes) -> None:
    with open("/proc/self/stat", "rb", buffering=0) as file:
        stat = file.read(4096)
    fields = stat[stat.rindex(b")") + 2 :].split()
    start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    if not 0 < start < end:  # 0 where the kernel won't tell
        return
    # At least one NUL at the end: without it the kernel takes the environment for a part of the title.
    padded = text[: end - start - 1].ljust(end - start, b"\0")
    memory = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(memory, padded, start)
    finally:
        os.close(memory)
