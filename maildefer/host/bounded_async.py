"""`bounded_call` for a process with an event loop, which meanwhile goes on. It has to have no other thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, Final

from maildefer.host.bounded_call import CallFailed, TimedOut, begin_call, end_call, hangs_still, reap

_REAP_SECONDS: Final = 0.1  # it has nothing left to do but end


async def call_bounded(function: Callable[[], Any], seconds: float) -> Any | TimedOut | CallFailed:
    """Run `function` in a forked child; what it returns, or why there is nothing. Raises OSError where none can be had.

    Cancelled, it leaves the child behind as after a time-out.
    """
    loop = asyncio.get_running_loop()
    child, reader = begin_call(function)
    os.set_blocking(reader, False)
    data, ended = bytearray(), asyncio.Event()

    def read() -> None:
        try:
            chunk = os.read(reader, 1 << 20)
        except BlockingIOError:
            return
        data.extend(chunk)
        if not chunk:
            loop.remove_reader(reader)
            ended.set()

    loop.add_reader(reader, read)
    try:
        async with asyncio.timeout(seconds):
            await ended.wait()
    except TimeoutError:
        pass
    finally:
        loop.remove_reader(reader)
        result = end_call(child, reader, bytes(data) if ended.is_set() else None, seconds)
        loop.call_later(_REAP_SECONDS, reap)
    return result


async def call_again(
    function: Callable[[], Any], seconds: float, before: object = None
) -> Any | TimedOut | CallFailed:
    """As `call_bounded`, for what is called again and again; CallFailed where no child can be had.

    While the child of the result `before` hangs in the kernel, where nothing ends it, no other is made beside it.
    """
    if isinstance(before, TimedOut) and hangs_still(before):
        return before
    try:
        return await call_bounded(function, seconds)
    except OSError as fault:
        return CallFailed(fault)
