"""What a job does, the same for all peers: it takes some milliseconds, and notes that it has run."""

from __future__ import annotations

import os
import time
from functools import cache

PLACE = os.environ.get("PEERS_PLACE", "")  # a directory on the disk that is measured
SOCKETS = os.environ.get("PEERS_SOCKETS", "")  # where the servers listen
# Where workers are killed, peers wait some seconds, not minutes or an hour, until they take a process for dead. Else
# they do as they come, so that no figure pays for it.
SHORT_WAITS = bool(os.environ.get("PEERS_SHORT_WAITS"))
NOTE = b"%08d %08d %020d\n"
NOTE_BYTES = len(NOTE % (0, 0, 0))
GATE = 999_999  # such a job notes that it runs, and then waits until the pipe at GATE_NAME has a writer
GATE_NAME = "gate"


def run(number: int, milliseconds: int) -> None:
    """A note has the job's number, the worker's pid, and when the job began, by the monotonic clock."""
    began_ns = time.monotonic_ns()
    if 0 < milliseconds < GATE:
        time.sleep(milliseconds / 1e3)
    os.write(_notes(), NOTE % (number, os.getpid(), began_ns))
    if milliseconds == GATE:
        os.close(os.open(f"{PLACE}/{GATE_NAME}", os.O_RDONLY))


@cache
def _notes() -> int:
    return os.open(f"{PLACE}/notes", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
