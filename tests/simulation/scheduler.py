"""Threads of many processes on simulated time, one at a time, handed over where they sleep or call the filesystem.

Nothing here is random but the seed: two runs of one seed are the same, call by call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

_NEVER = float("inf")
_MOST_STEPS = 200_000
_DOOM = object()


@dataclass(slots=True, eq=False)
class Process:
    """What lives, freezes and dies as one."""

    name: str
    pid: int
    family: Process | None = None  # the supervisor that it belongs to, or None
    leases: Callable[[], dict[str, str]] = dict  # a supervisor's, by queue, as its board has them
    client: Any = field(default=None, repr=False)
    alive: bool = True
    spared: bool = False  # killed for a fence or a drain, which is not its message's fault
    stopping: bool = False  # was told to end
    frozen_since: float = 0.0
    frozen_until: float = 0.0
    # A supervisor: since when its keeper, frozen itself before, looks after it again.
    minded_from: float = 0.0
    threads: list[Thread] = field(default_factory=list, repr=False)


@dataclass(slots=True, eq=False)
class Thread:
    name: str
    process: Process
    let: greenlet = field(repr=False)
    turn: int = 0  # which of its wake-ups counts
    sending: Any = field(default=None, repr=False)  # a request that is under way


class Scheduler:
    """Runs whatever is due first; `random` is the only source of chance in a schedule."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.steps = 0
        self.thread: Thread | None = None  # that runs now
        self._queue: list[tuple[float, int, Thread | None, int, Callable[[], object] | None]] = []
        self._count = 0
        self._limit = _NEVER
        self._until: Callable[[], bool] | None = None
        self._main = getcurrent()

    def start(self, process: Process, name: str, life: Callable[[], object], *, after: float = 0.0) -> Thread:
        """A thread of `process`; its end is no more than that, whatever it raises ends the whole schedule."""
        thread = Thread(name, process, greenlet(life, self._main))
        process.threads.append(thread)
        self._wake(thread, self.now + after)
        return thread

    def at(self, when: float, action: Callable[[], object]) -> None:
        """Something that just happens at a time, outside all processes."""
        self._count += 1
        heappush(self._queue, (when, self._count, None, 0, action))

    def sleep(self, seconds: float) -> None:
        """Called in a thread: hand over, and go on so much later; at once, where nobody else is due before."""
        thread = self.thread
        assert thread is not None
        when, queue = self.now + seconds, self._queue
        if when < self._limit and (not queue or when < queue[0][0]) and thread.process.frozen_until <= when:
            self.now = when
            self.steps += 1
            if self.steps > _MOST_STEPS:
                raise RuntimeError("the schedule does not end")
            return
        self._count += 1
        thread.turn += 1
        heappush(queue, (when, self._count, thread, thread.turn, None))
        following = self._following() if thread.process.alive else self._main
        if following is not thread.let and following.switch() is _DOOM:
            raise GreenletExit

    def _following(self) -> greenlet:
        """Who runs next: another thread, handed over to at once, where that is all `run` would do; else itself."""
        queue, main, until = self._queue, self._main, self._until
        while True:
            when, _, thread, turn, _ = queue[0]
            if (
                thread is None
                or when >= self._limit
                or self.steps >= _MOST_STEPS
                or not thread.let  # it begins, on the stack that all begin on
                or (until is not None and until())
            ):
                return main
            heappop(queue)
            if turn != thread.turn:
                continue
            if when > self.now:
                self.now = when
            self.steps += 1
            if not thread.process.alive:
                continue
            if thread.process.frozen_until > self.now:
                self._wake(thread, thread.process.frozen_until)
                continue
            self.thread = thread
            return thread.let

    def wake(self, thread: Thread) -> None:
        """End its sleep now."""
        self._wake(thread, self.now)

    def _wake(self, thread: Thread, when: float) -> None:
        self._count += 1
        thread.turn += 1
        heappush(self._queue, (when, self._count, thread, thread.turn, None))

    def run(self, until: Callable[[], bool] | None, *, limit: float = _NEVER) -> bool:
        """Go on until `until()`; False when simulated time reaches the limit, or nothing is left to do.

        `until` only looks: threads that hand over to one another ask it too.
        """
        queue = self._queue
        self._limit, self._until = limit, until
        while until is None or not until():
            if not queue or queue[0][0] >= limit:
                self.now = max(self.now, limit) if limit < _NEVER else self.now
                return False
            when, _, thread, turn, action = heappop(queue)
            if thread is not None and turn != thread.turn:
                continue  # its sleep was ended before
            if when > self.now:
                self.now = when
            self.steps += 1
            if self.steps > _MOST_STEPS:
                raise RuntimeError("the schedule does not end")
            if thread is None:
                assert action is not None
                action()
            elif thread.process.alive:
                if thread.process.frozen_until > self.now:
                    self._wake(thread, thread.process.frozen_until)
                else:
                    self.thread = thread
                    try:
                        thread.let.switch()
                    finally:
                        self.thread = None
        return True

    def run_to(self, limit: float) -> None:
        """All that happens before a time."""
        self.run(None, limit=limit)

    def kill(self, process: Process) -> None:
        """At once, wherever its threads are; what their `finally` clauses would do must have no effect any more."""
        process.alive = False
        before = self.thread
        for thread in process.threads:
            if thread.let is not getcurrent() and not thread.let.dead:
                self.thread = thread
                thread.let.parent = getcurrent()
                if thread.let:
                    thread.let.switch(_DOOM)  # a throw costs much more
                else:  # it has not begun
                    thread.let.throw(GreenletExit)
        self.thread = before
        process.threads.clear()
