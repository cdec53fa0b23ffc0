"""Notes each handling's start and end; `later-N` is put off once, and `dead-N` is rejected in the end."""

from __future__ import annotations

import time
from typing import Any

from maildefer.routing import Defer, Reject, route, stateless
from workers.journal import Journal

HANDLING_SECONDS = 0.03
journal = Journal("journal")


@route("(what)-(number)@(host)", what="[a-z]+", number="[0-9]+")
@stateless
def NOTE(message: Any, what: str, **_: str) -> None:
    journal.note("start", message.key, message.attempt)
    time.sleep(HANDLING_SECONDS)
    if what == "later" and message.attempt == 1:
        journal.note("defer", message.key, message.attempt)
        raise Defer("not at the first attempt", after=1)
    journal.note("end", message.key, message.attempt)
    if what == "dead":
        raise Reject("as it was asked for")
