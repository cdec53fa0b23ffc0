"""What a message's recipient says that its async handler is to do."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

from maildefer.routing import Defer, Reject
from workers.journal import note


async def act(message: Any, what: str, argument: str) -> None:
    note("start", message)
    await ACTIONS[what](argument)
    note("end", message)


async def _wait(argument: str) -> None:
    """Until the test says so."""
    while not os.path.exists("go"):
        await asyncio.sleep(0.05)


async def _defer(argument: str) -> None:
    await asyncio.sleep(0)
    raise Defer("not now", after=float(argument))


async def _reject(argument: str) -> None:
    raise Reject("never")


async def _fail(argument: str) -> None:
    await asyncio.sleep(0.001)
    raise RuntimeError("it broke")


async def _cancel(argument: str) -> None:
    """Its own task, as by mistake."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(1)


async def _kill(argument: str) -> None:
    """Once others are in flight."""
    await asyncio.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)


async def _hang(argument: str) -> None:
    await asyncio.sleep(3600)


async def _swallow(argument: str) -> None:
    """Goes on whatever anybody does."""
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


async def _block(argument: str) -> None:
    time.sleep(3600)


async def _sleep(argument: str) -> None:
    await asyncio.sleep(float(argument or 0))


async def _fork(argument: str) -> None:
    """A child that comes back from the handler, as after a careless fork."""
    if pid := os.fork():
        os.waitpid(pid, 0)


ACTIONS: dict[str, Callable[[str], Awaitable[None]]] = {
    "quick": _sleep,
    "sleep": _sleep,
    "wait": _wait,
    "defer": _defer,
    "reject": _reject,
    "fail": _fail,
    "cancel": _cancel,
    "kill": _kill,
    "hang": _hang,
    "swallow": _swallow,
    "block": _block,
    "fork": _fork,
}
