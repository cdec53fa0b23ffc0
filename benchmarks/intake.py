"""Durable accepts per second over SMTP, beside an aiosmtpd handler that stores with mailbox.Maildir and syncs.

The load is Postfix's smtp-source, on 8 and on 32 connections that are kept open.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from benchmarks import filesystem, native, product
from benchmarks.figures import OURS, Figure, Limit, compare, interleave
from benchmarks.filler import ENTRY_BYTES, RECIPIENT, make_maildir
from benchmarks.places import PYTHON, ROOT

NAIVE = "naive aiosmtpd"
LIMITS = {NAIVE: Limit(bound=2)}


def measure(quick: bool) -> list[Figure]:
    """8 and 32 connections, on ext4."""
    messages, rounds = (400, 3) if quick else (3_200, 7)
    figures = []
    with filesystem.ext4() as base:
        for connections in (8, 32):
            samples = interleave(contenders(base, messages, connections), rounds, note=print)
            figures += compare("intake", f"ext4, {connections} connections", samples, "msg/s", LIMITS)
    return figures


def contenders(base: str, messages: int, connections: int) -> dict[str, Callable[[], float]]:
    """Accepts per second of each."""
    return {
        NAIVE: lambda: _accept(base, messages, connections, naive),
        OURS: lambda: _accept(base, messages, connections, product.intake),
    }


def _accept(
    base: str, messages: int, connections: int, server: Callable[[str], AbstractContextManager[int]]
) -> float:
    program, env = native.smtp_source()
    with filesystem.fresh_directory(base) as directory:
        queue = make_maildir(os.path.join(directory, "queue"))
        with server(queue) as port:
            load = [program, "-d", "-s", str(connections), "-l", str(ENTRY_BYTES)]
            load += ["-f", "sender@example.org", "-t", RECIPIENT]
            target = f"127.0.0.1:{port}"
            subprocess.run([*load, "-m", str(connections), target], env=env, check=True)  # warms it up
            start = time.perf_counter()
            subprocess.run([*load, "-m", str(messages), target], env=env, check=True)
            seconds = time.perf_counter() - start
        accepted = len(os.listdir(os.path.join(queue, "new")))
        if accepted != messages + connections:
            raise RuntimeError(f"{messages + connections} messages sent, {accepted} entries are there")
    return messages / seconds


@contextmanager
def naive(queue: str) -> Iterator[int]:
    """The naive front end; gives its port."""
    command = [PYTHON, "-m", "benchmarks.contenders.naive_smtp", queue]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
