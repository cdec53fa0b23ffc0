"""Each sends to three, and a task; then it ends as the recipient says, at its first attempt."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from maildefer.mail import MailResponse
from maildefer.routing import Defer, route, stateless
from maildefer.utils import settings
from workers.journal import note
from workers.out import COUNT


@route("sync-(what)@test", what="[a-z]+")
@stateless
def SENDS(message: Any, what: str) -> None:
    _send(message)
    _end(message, what)


@route("async-(what)@test", what="[a-z]+")
@stateless
async def SENDS_LATER(message: Any, what: str) -> None:
    await asyncio.to_thread(_send, message)
    await asyncio.sleep(0.01)
    _end(message, what)


def _send(message: Any) -> None:
    note("start", message)
    for to in ("a@out.test", "b@out.test", "c@out.test"):
        settings.relay.deliver(MailResponse(To=to, From="me@test", Subject=message.key, Body="x"))
    COUNT.defer(message.key)


def _end(message: Any, what: str) -> None:
    if what == "kill" and message.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "defer" and message.attempt == 1:
        raise Defer("not now", after=0.5)
    note("end", message)
