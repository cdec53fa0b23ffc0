"""What the process asks and looks at, each in a child with a time limit: one look for all who want it at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Final

from maildefer.control.local_processes import LocalStatus, ask_process
from maildefer.control.queue_status import EntryCounts, read_queue_status
from maildefer.host import runtime_dir
from maildefer.host.bounded_async import call_again
from maildefer.host.bounded_call import CallFailed, TimedOut

Found = LocalStatus | EntryCounts | TimedOut | CallFailed | None
_ASK_SECONDS: Final = 0.8  # orchestrators wait for a second
_ASK_EVERY_SECONDS: Final = 0.5
_COUNT_SECONDS: Final = 10.0
_COUNT_EVERY_SECONDS: Final = 15.0
_REST: Final = 20.0  # of the time that a look at a queue takes: a million entries are listed for a second
_PATIENCE_SECONDS: Final = 1.5


class SharedLook:
    """A look that is shared by all who want it at a time, and by those who want it soon after. Event loop only."""

    def __init__(self, look: Callable[[], Found], seconds: float, every_seconds: float) -> None:
        """`look` is called in a child, for so many seconds at most."""
        self._look = look
        self._seconds = seconds
        self._every_seconds = every_seconds
        self._task: asyncio.Task[Found] | None = None
        self._next = 0.0
        self._last: Found = None

    async def result(self, patience_seconds: float | None = None) -> Found:
        """Return what the look under way finds, or a new one, or the last one where that is soon enough.

        What takes longer than one is patient goes on, for those who come later: they get what was found before it.
        """
        if self._task is None or (self._task.done() and asyncio.get_running_loop().time() >= self._next):
            self._task = asyncio.ensure_future(self._take())
        await asyncio.wait({self._task}, timeout=patience_seconds)
        return self._last

    async def _take(self) -> Found:
        began = asyncio.get_running_loop().time()
        self._last = await call_again(self._look, self._seconds, self._last)
        now = asyncio.get_running_loop().time()
        self._next = now + max(self._every_seconds, _REST * (now - began) * (self._every_seconds > 1))
        return self._last


class Looks:
    """Looks at the process with a pid file, and at its queues."""

    def __init__(self, pidfile: str) -> None:
        self.process = SharedLook(partial(_ask, pidfile), _ASK_SECONDS + 0.1, _ASK_EVERY_SECONDS)
        self._queues: dict[str, SharedLook] = {}

    async def queues(self, paths: tuple[str, ...]) -> dict[str, Found]:
        """Look at all of them at once; None for one of which nothing is known yet."""
        self._queues = {path: self._queues.get(path) or _queue_look(path) for path in paths}
        found = await asyncio.gather(*(one.result(_PATIENCE_SECONDS) for one in self._queues.values()))
        return dict(zip(self._queues, found, strict=True))


def queue_name(path: str, process: Found) -> str:
    """The name of a queue as the settings have it, where it is below the project's folder."""
    project = process.record.project if isinstance(process, LocalStatus) else ""
    return os.path.relpath(path, project) if project and path.startswith(f"{project}/") else path


def _queue_look(path: str) -> SharedLook:
    return SharedLook(partial(_count, path), _COUNT_SECONDS + 2, _COUNT_EVERY_SECONDS)


def _count(path: str) -> EntryCounts:
    os.nice(10)
    return read_queue_status(path, _COUNT_SECONDS)


def _ask(pidfile: str) -> LocalStatus | None:
    record = runtime_dir.read_record(runtime_dir.record_path(pidfile))
    return None if record is None else ask_process(record, _ASK_SECONDS)
