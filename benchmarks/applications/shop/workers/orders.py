"""Orders take a while, some are deferred, and some can't be understood."""

from __future__ import annotations

import time
from typing import Any

from maildefer.routing import Defer, Reject, retry, route, stateless

STOCK = {"mug": 4, "shirt": 9}


@route("order@(host)")
@stateless
@retry(attempts=1)
def ORDER(message: Any, host: str) -> None:
    time.sleep(0.15)
    STOCK[str(message["Subject"]).split()[-1]]


@route("invoice@(host)")
@stateless
def INVOICE(message: Any, host: str) -> None:
    raise Defer("the bookkeeping is closed", after=3600)


@route("complaint@(host)")
@stateless
def COMPLAINT(message: Any, host: str) -> None:
    raise Reject("complaints are taken by telephone")
