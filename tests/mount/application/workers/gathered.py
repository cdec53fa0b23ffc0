"""A batch with one call at a time on all hosts; it notes of each call how many run then, by files on the mount."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

from maildefer.routing import batch, route, stateless
from workers.journal import Journal

HANDLING_SECONDS = 0.1
RUNNING = "/mnt/nfs/running"
journal, calls = Journal("journal"), Journal("calls")


@route("(what)-(number)@(host)", what="[a-z]+", number="[0-9]+")
@stateless
@batch(limit=10, linger=0.2, exclusive=True)
def GATHERED(messages: list[Any]) -> None:
    for message in messages:
        journal.note("start", message.key, message.attempt)
    os.makedirs(RUNNING, exist_ok=True)
    path = f"{RUNNING}/{os.uname().nodename}.{os.getpid()}"
    with open(path, "wb", buffering=0) as file:
        file.write(b".")
        os.fsync(file.fileno())
    os.utime(RUNNING)  # else the listing may be an old one
    calls.note(len(messages), len(os.listdir(RUNNING)))
    time.sleep(HANDLING_SECONDS)
    with suppress(FileNotFoundError):  # done, and the reply was lost
        os.unlink(path)
    for message in messages:
        journal.note("end", message.key, message.attempt)
