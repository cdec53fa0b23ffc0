"""Notes for each start its time by the server's clock, and how many run then, by files on the mount.

The guests' own clocks differ.
"""

from __future__ import annotations

import os
import time
from typing import Any

from maildefer.routing import concurrency, rate, route, stateless
from workers.journal import Journal

HANDLING_SECONDS = 0.05
COUNT, STARTS, PERIOD_SECONDS = 2, 30, 5
RUNNING = "/mnt/nfs/running"
journal, starts = Journal("journal"), Journal("limited")


def remove(path: str) -> None:
    while True:
        try:
            return os.unlink(path)
        except FileNotFoundError:  # done, and the reply was lost
            return None
        except (
            InterruptedError
        ):  # of NFS, as the server comes back; Python begins no unlink(2) again by itself
            pass


@route("(what)-(number)@(host)", what="[a-z]+", number="[0-9]+")
@stateless
@concurrency(COUNT, key="host")
@rate(f"{STARTS}/{PERIOD_SECONDS}s", key="host")
def LIMITED(message: Any, **_: str) -> None:
    journal.note("start", message.key, message.attempt)
    os.makedirs(RUNNING, exist_ok=True)
    path = f"{RUNNING}/{os.uname().nodename}.{os.getpid()}"
    with open(path, "wb", buffering=0) as file:
        file.write(b".")
        os.fsync(file.fileno())
        began = os.fstat(file.fileno()).st_mtime
    os.utime(RUNNING)  # else the listing may be an old one
    starts.note(began, len(os.listdir(RUNNING)))
    time.sleep(HANDLING_SECONDS)
    remove(path)
    journal.note("end", message.key, message.attempt)
