"""A handler that takes some time, and writes down when it begins and when it has ended."""

from __future__ import annotations

import os
import random
import time
from typing import Any

from maildefer.routing import route, stateless

MEAN_SECONDS = float(os.environ.get("CHAOS_HANDLER_SECONDS", "0.01"))
# One file for each process, since what counts in the end is on what a killed process was.
JOURNAL = os.path.join("journal", f"{os.getpid()}-{time.monotonic_ns()}")


@route("(name)@test", name=".+")
@stateless
def START(message: Any, name: str = "") -> None:
    _note("start", message.key)
    if ",t=" in message.key and float(message.key.partition(".")[0]) > time.time():  # pushed for later
        _note("early", message.key)
    time.sleep(random.expovariate(1 / MEAN_SECONDS))
    _note("end", message.key)


def _note(word: str, key: str) -> None:
    """One write for each line, so that a killed process leaves whole lines only."""
    descriptor = os.open(JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, f"{word} {key}\n".encode())
    finally:
        os.close(descriptor)
