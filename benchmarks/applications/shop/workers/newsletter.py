"""A newsletter takes long."""

from __future__ import annotations

import time
from typing import Any

from maildefer.routing import route, stateless


@route("(list)@(host)", list="news.*")
@stateless
def SEND(message: Any, list: str, host: str) -> None:
    time.sleep(2.0)
