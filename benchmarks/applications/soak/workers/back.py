"""The second queue's handler."""

from __future__ import annotations

from typing import Any

from maildefer.routing import route, stateless


@route("onward[0-9]*@test")
@stateless
def DONE(message: Any) -> None:
    return None
