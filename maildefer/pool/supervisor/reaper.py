"""Reaps the supervisor's children, each by those who know what its death means; orphans that it adopted too."""

from __future__ import annotations

import os
from dataclasses import dataclass

from maildefer.pool import messages
from maildefer.pool.context import PoolContext
from maildefer.pool.fork import ChildProcess
from maildefer.pool.frontend.frontends import FrontEnds
from maildefer.pool.scoreboard_views import HeaderView
from maildefer.pool.supervisor.spawner import Spawner
from maildefer.pool.supervisor.templates import Templates
from maildefer.pool.supervisor.workers import EX_CONFIG, WorkerTable


@dataclass(frozen=True, slots=True, kw_only=True)
class CannotWork:
    """Why the pool ends, and with which exit code, rather than fork for ever."""

    reason: str
    exit_code: int


class Reaper:
    """Takes exit statuses, and tells whether the pool can work."""

    def __init__(
        self,
        context: PoolContext,
        workers: WorkerTable,
        front_ends: FrontEnds,
        templates: Templates,
        spawner: Spawner,
    ) -> None:
        self._context = context
        self._workers = workers
        self._front_ends = front_ends
        self._templates = templates
        self._spawner = spawner
        self._failures: list[
            tuple[int, int | None]
        ] = []  # exit codes; how many workers were to start, None: all

    def reap_children(self) -> None:
        """Reap all that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:  # none left
                return
            if pid == 0:
                return
            self._reap(pid, status)

    def why_end(self, wanted: int) -> CannotWork | None:
        """Say why to end the pool, where so many workers are wanted, after what has died since the last call."""
        for child, status in self._templates.take_ended():  # before they were known
            self._reap_worker(child, status)
        failures, self._failures = self._failures, []
        for code, count in failures:
            if reason := self._workers.why_none_comes_up(code, wanted if count is None else count):
                return CannotWork(reason=reason, exit_code=EX_CONFIG if code == EX_CONFIG else 1)
        reason = self._front_ends.why_none_comes_up()
        return CannotWork(reason=reason, exit_code=EX_CONFIG) if reason else None

    def _reap(self, pid: int, status: int) -> None:
        if (worker := self._workers.by_pid.get(pid)) is not None:
            self._reap_worker(worker, status)
        elif self._front_ends.note_death(pid, status):
            return
        elif (code := self._templates.note_death(pid, status)) is not None:
            self._workers.failed_starts += 1
            self._failures.append((code, 1))
        else:
            draining = bool(HeaderView(self._context.board).draining)
            self._spawner.reap(pid, status, expected=draining)

    def _reap_worker(self, child: ChildProcess, status: int) -> None:
        if self._workers.reap(child, status):
            messages.send(self._context.keeper[0], messages.ReclaimSlots())
            self._failures.append((os.waitstatus_to_exitcode(status), None))
