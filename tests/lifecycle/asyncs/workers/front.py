"""Async handlers: of messages to `WHAT@test`, in little time `WHAT@brief`, in batches `WHAT@many`; and a plain one."""

from __future__ import annotations

import os
import signal
from typing import Any

from maildefer.routing import Reject, batch, route, stateless, timeout
from workers.actions import act
from workers.journal import note


@route("(what)(argument)@test")
@stateless
async def HANDLE(message: Any, what: str, argument: str) -> None:
    await act(message, what, argument)


@route("(what)(argument)@brief")
@stateless
@timeout(float(os.environ.get("BRIEF_SECONDS", "0.3")))
async def BRIEF(message: Any, what: str, argument: str) -> None:
    await act(message, what, argument)


@route("(what)(argument)@many")
@stateless
@batch(limit=8, linger=3)  # long enough for a busy machine to push four
async def MANY(messages: list[Any]) -> dict[Any, Exception]:
    note(f"batch{len(messages)}", messages[0])
    for message in messages:
        await act(message, message.captures["what"], message.captures["argument"])
    return {message: Reject("odd") for message in messages if message.captures["argument"] == "0.001"}


@route("(what)(argument)@plain")
@stateless
def PLAIN(message: Any, what: str, argument: str) -> None:
    note("plain", message)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    note("end", message)
