"""Stopping and going on with claims: in all queues of one pool, or, by the mark in a queue, in that one everywhere."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from maildefer import events
from maildefer.maildir.operator.pause_mark import is_paused
from maildefer.maildir.system import System
from maildefer.pool.context import PoolContext
from maildefer.pool.scoreboard import Header, Q


def apply_mark(context: PoolContext, index: int, system: System) -> None:
    """Put on the board whether the queue is paused on all hosts. By the keeper. Raises StorageFault's kinds."""
    queue = context.queues[index]
    paused = is_paused(queue.layout, system=system)
    words, base = context.board.words, context.board.queue(index)
    if bool(words[base + Q.PAUSED]) == paused:
        return
    words[base + Q.PAUSED] = int(paused)
    words[base + Q.GENERATION] = time.clock_gettime_ns(time.CLOCK_BOOTTIME)  # let workers look again
    if paused:
        events.emit("queue.paused", queue=queue.name, why="an operator has paused it on all hosts")
    else:
        events.emit("queue.resumed", queue=queue.name)


class PoolPause:
    """What TSTP and CONT do."""

    def __init__(self, context: PoolContext) -> None:
        self._context = context
        self._words = context.board.words

    def pause(self) -> None:
        if not self._words[Header.PAUSED]:
            self._words[Header.PAUSED] = 1
            with suppress(BlockingIOError):  # a broken worker has shut it already
                os.eventfd_read(self._context.gate)
            events.emit("pool.paused")

    def resume(self) -> None:
        """Go on, also with queues that a fault had paused."""
        self.clear(Q.PAUSED_UNTIL, Q.PAUSE_CODE, Q.FAULTS, Q.UNROUTED)
        if self._words[Header.PAUSED]:
            self._words[Header.PAUSED] = 0
            with suppress(BlockingIOError):  # or has opened it as far as it goes
                os.eventfd_write(self._context.gate, 1)
            events.emit("pool.resumed")

    def clear(self, *words: int) -> None:
        """Forget faults, in all queues."""
        for index in range(len(self._context.queues)):
            for word in words:
                self._words[self._context.board.queue(index) + word] = 0
