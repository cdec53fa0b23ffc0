"""Stand-ins for what a pool has beside the filesystem: events, sockets, inotify, shared memory.

They are put in the place of the real ones by `installation`.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

from maildefer.pool.worker.offers import Offers
from tests.simulation.scheduler import Scheduler, Thread

_FOREVER = 1e9
_MOST_OFFERS = 2  # in a socket, whose buffer is kept small


def nothing(**facts: object) -> None:
    """In the place of what a simulated process does not use."""


class Memory(bytearray):
    """In the place of a board's `mmap`, which one process here can do without: slices are bytes."""

    def __new__(cls, descriptor: int, size: int) -> Memory:
        return super().__new__(cls)

    def __init__(self, descriptor: int, size: int) -> None:
        super().__init__(size)

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        return bytes(found) if isinstance(place, slice) else found


class Mailbox:
    """The keeper's or a worker's end of a socket: what is sent is heard at once."""

    def __init__(self, note_deferred: Callable[[dict[str, Any]], object]) -> None:
        self._hear = note_deferred

    def send(self, data: bytes, flags: int = 0) -> int:
        self._hear(json.loads(data.decode()))
        return len(data)


class Event:
    """In the place of `threading.Event`, on simulated time."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_set = False
        self._sleeping: list[Thread] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        if self._sleeping:
            sleeping, self._sleeping = self._sleeping, []
            for thread in sleeping:
                self._scheduler.wake(thread)

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        if not self._is_set:
            thread = self._scheduler.thread
            assert thread is not None
            self._sleeping.append(thread)
            self._scheduler.sleep(_FOREVER if timeout is None else timeout)
            if thread in self._sleeping:
                self._sleeping.remove(thread)
        return self._is_set


class Bell:
    """Sleepers of whom one is woken at a time, as by EPOLLEXCLUSIVE; also by a signal of its own."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._sleeping: deque[Thread] = deque()

    def wait(self, seconds: float = _FOREVER) -> None:
        thread = self._scheduler.thread
        assert thread is not None
        self._sleeping.append(thread)
        try:
            self._scheduler.sleep(seconds)
        finally:
            if thread in self._sleeping:
                self._sleeping.remove(thread)

    def ring(self) -> None:
        if self._sleeping:
            self._scheduler.wake(self._sleeping.popleft())

    def rouse_all(self) -> None:
        self.rouse(list(self._sleeping))

    def rouse(self, threads: list[Thread]) -> None:
        for thread in threads:
            if thread in self._sleeping:
                self._sleeping.remove(thread)
                self._scheduler.wake(thread)


class Channel:
    """Both ends of one queue's offers: bounded, so that it holds up the scout; each message goes to one worker."""

    def __init__(self, bell: Bell, room: Bell) -> None:
        self._bell = bell
        self._room = room
        self._messages: deque[bytes] = deque()

    def send(self, data: bytes) -> int:
        while len(self._messages) >= _MOST_OFFERS:
            self._room.wait()
        self._messages.append(data)
        self._bell.ring()
        return len(data)

    def recv(self, size_bytes: int) -> bytes:
        if not self._messages:
            raise BlockingIOError
        data = self._messages.popleft()
        self._room.ring()
        return data

    def __len__(self) -> int:
        return len(self._messages)


class WaitedOffers(Offers):
    """A worker's end: the real order of priority, waits on simulated time."""

    def __init__(self, channels: list[Channel], bell: Bell) -> None:
        self._sockets: Any = channels
        self._bell = bell
        self._takes = 0
        self._held = {}
        self._note_invalid = lambda: None
        self._held = {}

    def wake_for(self, end: Any) -> None:
        """A channel rouses all."""

    stop_waking_for = wake_for

    def rest(self) -> None:
        self._sockets, self._left = [], self._sockets

    def resume(self) -> None:
        self._sockets, self._left = self._left, []

    def is_any(self) -> bool:
        return any(map(len, self._sockets))

    def wait(self, *, paused: bool, seconds: float | None = None) -> None:
        if paused or not self.is_any():
            self._bell.wait(1.0 if paused else _FOREVER if seconds is None else seconds)


class Arrivals:
    """In the place of inotify: what this host's own processes put into the directory."""

    missing = ""

    def __init__(self, scheduler: Scheduler, touch: Callable[[], None]) -> None:
        self._event = Event(scheduler)
        self._names: set[str] = set()
        self.touch = touch

    def note(self, name: str) -> None:
        self._names.add(name)
        self._event.set()

    def wait(self, timeout_seconds: float) -> set[str]:
        self._event.wait(timeout_seconds)
        self._event.clear()
        names, self._names = self._names, set()
        return names

    def look_again(self) -> None:
        pass
