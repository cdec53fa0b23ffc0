"""For the figures of benchmarks/nfs.py: nothing, and twenty milliseconds."""

from __future__ import annotations

import time
from typing import Any

from maildefer.routing import route, stateless

HANDLING_SECONDS = 0.02


@route("noop@(host)")
@stateless
def NOTHING(message: Any, **_: str) -> None:
    pass


@route("sleep@(host)")
@stateless
def SLEEP(message: Any, **_: str) -> None:
    time.sleep(HANDLING_SECONDS)
