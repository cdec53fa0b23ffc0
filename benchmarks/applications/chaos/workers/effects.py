"""An async handler, and one whose effect happens once."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from maildefer.routing import route, stateless
from workers.notes import MEAN_SECONDS, note, note_when_settled, work


@route("async@test")
@stateless
async def ASYNC(message: Any) -> None:
    note("start", message.key, "async")
    await asyncio.sleep(random.expovariate(1 / MEAN_SECONDS))
    note("end", message.key, "async")
    note_when_settled(message.key)


@route("once@test")
@stateless
def ONCE(message: Any) -> None:
    note("start", message.key, "once")
    try:
        with message.once("effect") as first:
            if first:
                note("effect", message.key, "again" if first.interrupted else "first")
                work()
        note("done", message.key)
    except BaseException:  # another attempt has begun it
        note("failed", message.key)
        raise
    note("end", message.key)
