"""Notes of each message what `once` tells in its block, and that the block has ended.

In the first block of `dead-N` the worker is killed; `later-N` is put off once after its block.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from maildefer.routing import Defer, route, stateless
from workers.journal import Journal

EFFECT_SECONDS = 0.1
journal, effects = Journal("journal"), Journal("effects")


@route("(what)-(number)@(host)", what="[a-z]+", number="[0-9]+")
@stateless
def PAID(message: Any, what: str, **_: str) -> None:
    journal.note("start", message.key, message.attempt)
    with message.once("charge") as charge:
        if charge:
            effects.note("interrupted" if charge.interrupted else "new", message.key)
            time.sleep(EFFECT_SECONDS)
            if what == "dead" and not charge.interrupted:
                os.kill(os.getpid(), signal.SIGKILL)
    effects.note("done" if charge else "known", message.key)
    if what == "later" and message.attempt == 1:
        journal.note("defer", message.key, message.attempt)
        raise Defer("not at the first attempt", after=1)
    journal.note("end", message.key, message.attempt)
