"""Pausing and resuming claims: in all queues of one pool, or, by the mark in a queue, in that queue on all hosts."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from maildefer import events
from maildefer.maildir.operator.pause_mark import MARK, marks
from maildefer.maildir.scan import PRIORITY_MARK
from maildefer.maildir.system import System
from maildefer.pool.context import PoolContext
from maildefer.pool.scoreboard_views import HeaderView, QueueRecordView


def apply_mark(context: PoolContext, index: int, system: System) -> None:
    """Write the queue's marks to the scoreboard: whether it is paused on all hosts, whether entries have priorities.

    For the keeper. Raises StorageFault.
    """
    queue = context.queues[index]
    found = marks(queue.layout, system=system)
    paused = MARK in found
    record = QueueRecordView(context.board, index)
    record.has_priorities = int(PRIORITY_MARK in found)
    if bool(record.paused) == paused:
        return
    record.paused = int(paused)
    record.generation = time.clock_gettime_ns(time.CLOCK_BOOTTIME)  # let workers look again
    if paused:
        events.emit("queue.paused", queue=queue.name, why="an operator has paused it on all hosts")
    else:
        events.emit("queue.resumed", queue=queue.name)


class PoolPause:
    """The pause of one pool, which TSTP begins and CONT ends."""

    def __init__(self, context: PoolContext) -> None:
        self._context = context
        self._header = HeaderView(context.board)

    def pause(self) -> None:
        if not self._header.paused:
            self._header.paused = 1
            with suppress(BlockingIOError):  # a broken worker has read it already
                os.eventfd_read(self._context.not_paused)
            events.emit("pool.paused")

    def resume(self) -> None:
        """Resume, also queues that a fault had paused."""
        for record in self._records():
            record.paused_until = record.pause_code = record.faults = record.unrouted = 0
        if self._header.paused:
            self._header.paused = 0
            with suppress(BlockingIOError):  # a broken worker has written it to its limit
                os.eventfd_write(self._context.not_paused, 1)
            events.emit("pool.resumed")

    def resume_unrouted(self) -> None:
        """Resume queues whose entries had no route, after a reload of the routes."""
        for record in self._records():
            record.paused_until = record.unrouted = 0

    def _records(self) -> list[QueueRecordView]:
        board = self._context.board
        return [QueueRecordView(board, index) for index in range(len(self._context.queues))]
