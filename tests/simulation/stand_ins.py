"""Stand-ins for what a pool has beside the filesystem: sockets, events, /proc, the `time` module, the log."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any
from unittest.mock import patch

from maildefer import events
from maildefer.maildir import doubt, names
from maildefer.maildir.system import System
from maildefer.pool import lifeline, serving, settle, snapshot, tender, worker
from tests.simulation.scheduler import Process, Scheduler, Thread

_FOREVER = 1e9
Listed = Callable[[str, str, System], bool]


class Mailbox:
    """The keeper's or a worker's end of a socket: what is sent is heard at once."""

    def __init__(self, hear: Callable[[dict[str, Any]], object]) -> None:
        self._hear = hear

    def send(self, data: bytes, flags: int = 0) -> int:
        self._hear(json.loads(data))
        return len(data)


class Event(threading.Event):
    """An event on simulated time."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._sleeping: list[Thread] = []

    def set(self) -> None:
        super().set()
        sleeping, self._sleeping = self._sleeping, []
        for thread in sleeping:
            self._scheduler.wake(thread)

    def wait(self, timeout: float | None = None) -> bool:
        if not self.is_set():
            thread = self._scheduler.thread
            assert thread is not None
            self._sleeping.append(thread)
            self._scheduler.sleep(_FOREVER if timeout is None else timeout)
            if thread in self._sleeping:
                self._sleeping.remove(thread)
        return self.is_set()


class Time:
    """The `time` module, as the process that runs now has it."""

    CLOCK_BOOTTIME = time.CLOCK_BOOTTIME

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def _client(self) -> Any:
        assert self._scheduler.thread is not None
        return self._scheduler.thread.process.client

    def time(self) -> float:
        return float(self._client().time())

    def sleep(self, seconds: float) -> None:
        self._client().sleep(seconds)

    def boottime(self) -> float:
        return float(self._client().boottime())

    def clock_gettime(self, clock: int) -> float:
        return self.boottime()

    def clock_gettime_ns(self, clock: int) -> int:
        return int(self.boottime() * 1e9)


@contextmanager
def installed(
    scheduler: Scheduler,
    processes: dict[int, Process],
    heard: Callable[[str, dict[str, Any]], None],
    looked: Callable[[Listed], Listed],
) -> Iterator[None]:
    """Put these in the place of the real ones, for the modules that don't get a `System`."""
    clock = Time(scheduler)

    def alive(pid: int, start: int) -> bool:
        process = processes.get(pid)
        return process is not None and process.alive

    with ExitStack() as stack:
        put = stack.enter_context
        for module in (worker, serving, settle):
            put(patch.object(module, "time", clock))
        for holder in (serving, snapshot):
            put(patch.object(holder, "boottime", clock.boottime))
        put(patch.object(lifeline, "start_time", lambda pid: 1))
        put(patch.object(tender, "alive", alive))
        put(patch.object(events, "emit", lambda event, **facts: heard(event, facts)))
        put(patch.object(doubt, "listed", looked(doubt.listed)))
        put(patch.object(names, "_count", count()))
        yield
