"""A handler that takes some time, of plain messages and of those that are pushed in other ways."""

from __future__ import annotations

import time
from typing import Any

from maildefer.routing import route, stateless
from workers.notes import note, work


@route("(what)@test", what="chaos|(?:unique|request)-[a-z0-9-]+")
@stateless
def START(message: Any, what: str = "") -> None:
    note("start", message.key, what)
    if ",t=" in message.key and float(message.key.partition(".")[0]) > time.time():  # pushed for later
        note("early", message.key)
    work()
    note("end", message.key)
