"""drain_loop.py QUEUE PROCESSES: the plain Python loop.

The same as `drain.c`, line for line: each process lists `new/` and does just rename, open, read, close, unlink.
It reads with the pool's buffer, since Python would get the MiB of `drain.c` anew for each entry, in 16 µs.
Says "ready" when all processes wait, begins at a line on stdin, exits when the queue is empty.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def drain(index: int, processes: int) -> None:
    """Empties `new/` of the working directory."""
    pid = os.getpid()
    while names := os.listdir("new"):
        first = len(names) * index // processes
        for name in names[first:] + names[:first]:
            claimed = f"cur/{name}.{pid}"
            try:
                os.rename("new/" + name, claimed)
            except FileNotFoundError:
                continue  # another process was first
            fd = os.open(claimed, os.O_RDONLY)
            os.read(fd, 32 << 10)
            os.close(fd)
            os.unlink(claimed)


def run(processes: int, work: Callable[[int, int], None]) -> int:
    """Forks, waits for the line on stdin, lets all begin at once, and returns 0 when every process ended well."""
    waiting, gate = os.pipe()
    children = []
    for index in range(processes):
        child = os.fork()
        if child == 0:
            os.close(gate)
            os.read(waiting, 1)
            work(index, processes)
            os._exit(0)
        children.append(child)
    print("ready", flush=True)
    sys.stdin.readline()
    os.close(gate)  # end of file for all of them at once
    statuses = [os.waitpid(child, 0)[1] for child in children]
    return int(any(statuses))


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    sys.exit(run(int(sys.argv[2]), drain))
