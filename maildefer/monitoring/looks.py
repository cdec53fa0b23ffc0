"""What the process asks and looks at, each in a child with a time limit: one look for all who want it at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Generic, TypeVar

from maildefer.control.local_processes import LocalStatus, ask_process
from maildefer.host import runtime_dir
from maildefer.host.bounded_async import call_bounded

T = TypeVar("T")
_ASK_SECONDS: Final = 0.8  # orchestrators wait for a second
_FRESH_SECONDS: Final = 0.5


class SharedLook(Generic[T]):
    """A look that is shared by all who want it at a time, and by those who want it soon after. Event loop only."""

    def __init__(self, look: Callable[[], Awaitable[T]], fresh_seconds: float) -> None:
        self._look = look
        self._fresh_seconds = fresh_seconds
        self._task: asyncio.Task[T] | None = None
        self._until = 0.0

    async def result(self) -> T:
        """Return what the look under way finds, or the last one, or a new one."""
        now = asyncio.get_running_loop().time()
        if self._task is None or (self._task.done() and now >= self._until):
            self._task = asyncio.ensure_future(self._take())
        return await asyncio.shield(self._task)  # whose client may leave, while others wait

    async def _take(self) -> T:
        found = await self._look()
        self._until = asyncio.get_running_loop().time() + self._fresh_seconds
        return found


def process_look(pidfile: str) -> SharedLook[object]:
    """Make the look at the process with that pid file: a LocalStatus, or what came instead of an answer."""
    ask = partial(_ask, pidfile)
    return SharedLook(lambda: call_bounded(ask, _ASK_SECONDS + 0.1), _FRESH_SECONDS)


def _ask(pidfile: str) -> LocalStatus | None:
    record = runtime_dir.read_record(runtime_dir.record_path(pidfile))
    return None if record is None else ask_process(record, _ASK_SECONDS)
