"""Sends three messages for each; then the worker of `dead-N` is killed once, and `later-N` put off once."""

from __future__ import annotations

import os
import signal
from typing import Any

from maildefer import Queue
from maildefer.routing import Defer, route, stateless
from workers.journal import Journal

MESSAGES = 3
journal = Journal("journal")


@route("(what)-(number)@(host)", what="[a-z]+", number="[0-9]+")
@stateless
def SENDS(message: Any, what: str, **_: str) -> None:
    journal.note("start", message.key, message.attempt)
    for number in range(MESSAGES):
        Queue("/mnt/nfs/out").push(f"Subject: {message.key} {number}\n\n", sender="", recipient="sent@test")
    if what == "dead" and message.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "later" and message.attempt == 1:
        journal.note("defer", message.key, message.attempt)
        raise Defer("not at the first attempt", after=1)
    journal.note("end", message.key, message.attempt)
