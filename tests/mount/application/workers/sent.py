"""Notes which message each entry was sent for."""

from __future__ import annotations

from typing import Any

from maildefer.routing import route, stateless
from workers.journal import Journal

sent = Journal("sent")


@route("sent@test")
@stateless
def SENT(message: Any) -> None:
    sent.note(message.key, message["Subject"])
