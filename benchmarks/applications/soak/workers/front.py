"""Most messages are done at once; some take a while, are parsed, wait once, fail once, or go on to the second queue."""

from __future__ import annotations

import time
from typing import Any

from maildefer.routing import Defer, route, stateless


@route("quick[0-9]*@test")
@stateless
def QUICK(message: Any) -> None:
    return None


@route("slow[0-9]*@test")
@stateless
def SLOW(message: Any) -> None:
    time.sleep(0.02)


@route("parse[0-9]*@test")
@stateless
def PARSE(message: Any) -> None:
    assert message["Subject"], "every message of this load has one"
    message.body()


@route("defer[0-9]*@test")
@stateless
def LATER(message: Any) -> None:
    if message.attempt == 1:
        raise Defer("not now", after=2)


@route("fail[0-9]*@test")
@stateless
def FAIL(message: Any) -> None:
    if message.attempt == 1:
        raise RuntimeError("it fails once")


@route("onward[0-9]*@test")
@stateless
def ONWARD(message: Any) -> str:
    return "workers.back.DONE"
