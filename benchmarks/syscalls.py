"""System calls per message, of the worker and of the scout, over a drain: `strace -c`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import filesystem, processes
from benchmarks.drain import maildir_empty, refuse_unhandled
from benchmarks.figures import Figure
from benchmarks.filler import fill, make_maildir
from benchmarks.places import Unavailable
from benchmarks.product import Pool, wait_until


def measure(quick: bool) -> list[Figure]:
    """One worker, so that all messages are its own."""
    if shutil.which("strace") is None:
        raise Unavailable("strace is missing: apt-get install strace")
    entries = 1_000 if quick else 5_000
    with filesystem.tmpfs() as base:
        counts = counted(base, entries)
    return [
        Figure(
            benchmark="syscalls",
            case=f"drain, {role}",
            name=name,
            unit="calls/msg",
            samples=[calls / entries],
        )
        for role, table in counts.items()
        for name, calls in sorted(table.items(), key=lambda item: -item[1])
    ]


def counted(base: str, entries: int) -> dict[str, dict[str, int]]:
    """Calls by role and name."""
    queue = make_maildir(os.path.join(base, "queue"))
    with Pool(queue, workers=1) as pool:
        pool.pause()
        fill(queue, entries)
        roles = processes.by_role(pool.pid)
        tables = {role: os.path.join(base, role) for role in ("worker", "scout") if role in roles}
        with ExitStack() as stack:
            for role, table in tables.items():
                stack.enter_context(traced(roles[role][0], table))
            pool.resume()
            wait_until(lambda: maildir_empty(queue), 300, "drained under strace", poll_seconds=0.05)
        refuse_unhandled(queue)
        return {role: parse(Path(table).read_text()) for role, table in tables.items()}


@contextmanager
def traced(pid: int, table: str) -> Iterator[None]:
    """Counts the system calls of `pid`; the table is written at the end."""
    command = ["strace", "-c", "-f", "-p", str(pid), "-o", table]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    try:
        if "attached" not in (said := tracer.stderr.readline()):
            raise Unavailable(f"strace can't attach: {said.strip()}")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
        tracer.stderr.close()


def parse(table: str) -> dict[str, int]:
    """Calls by name, from strace's table: share, seconds, µs a call, calls, [errors,] name."""
    counts = {}
    for line in table.splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
            counts[fields[-1]] = int(fields[3])
    return counts
