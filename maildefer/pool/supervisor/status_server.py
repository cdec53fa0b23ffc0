"""The supervisor's status: for `maildefer status` through its socket, and for the service manager."""

from __future__ import annotations

import socket

from maildefer.host import status_socket
from maildefer.host.systemd import Notifier
from maildefer.maildir.system import boottime
from maildefer.pool import status_record
from maildefer.pool.context import PoolContext
from maildefer.pool.counts.record import counts_record
from maildefer.pool.scoreboard_views import HeaderView
from maildefer.pool.status_record import Rates
from maildefer.pool.supervisor.workers import WorkerTable


class StatusServer:
    """Answers from memory only, so that a hung mount does not matter."""

    def __init__(self, context: PoolContext, workers: WorkerTable, listening: socket.socket) -> None:
        self._context = context
        self._workers = workers
        self._socket = listening
        self._rates = Rates(context.board)
        self._ready = False
        self._had_workers_at = boottime()  # or this began
        self.notifier = Notifier()
        self.trouble = ""  # what keeps the pool from a queue

    @property
    def descriptor(self) -> int:
        return self._socket.fileno()

    def answer(self, **more: object) -> None:
        """Answer the requests that wait now, so that a client that keeps asking does not hold up the loop."""
        for _ in range(status_socket.MOST_WAITING):
            try:
                connection, _ = self._socket.accept()
            except OSError:  # no request waits
                return
            status = status_record.pool_record(
                self._context,
                trouble=self.trouble or None,
                rate_per_second=self._rates.per_second(),
                without_workers_seconds=round(boottime() - self._had_workers_at, 1),
                **counts_record(self._context.counts, [queue.name for queue in self._context.queues]),
                **more,
            )
            status_socket.answer_status(connection, status)

    def report(self, now: float) -> None:
        """Note the rate, and report to the service manager: ready, alive, one line of status."""
        self._rates.note(now)
        if any(map(self._workers.is_ready, self._workers.by_pid.values())):
            self._had_workers_at = now
            if not self._ready:
                self._ready = True
                self.notifier.ready()
        if self.notifier.enabled:
            if self._ready and not self._workers.any_overdue():
                self.notifier.watchdog()
            self.notifier.status(self.trouble or self._line())

    def close(self) -> None:
        self._socket.close()

    def _line(self) -> str:
        header = HeaderView(self._context.board)
        state = "draining" if header.draining else "paused" if header.paused else "serving"
        return f"{state}: {len(self._workers)} workers, {self._workers.handled()} messages handled by them"
