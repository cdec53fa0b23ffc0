"""A simulated supervisor's workers: the real bookkeeping, with simulated forks, signals and deaths."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from maildefer.pool.fork import ChildProcess
from maildefer.pool.messages import ReclaimSlots
from maildefer.pool.scoreboard import Header, ProcessKind, SlotWord
from maildefer.pool.supervisor.workers import WorkerTable
from tests.simulation.batches import SimulatedBatchWorker
from tests.simulation.scheduler import Process
from tests.simulation.workers import SimulatedWorker

if TYPE_CHECKING:
    from tests.simulation.supervisors import SimulatedSupervisor


class SimulatedWorkforce(WorkerTable):
    """Signals go to simulated processes, which are reaped a moment later."""

    def __init__(self, supervisor: SimulatedSupervisor) -> None:
        super().__init__(supervisor.board)
        self._supervisor = supervisor
        self.processes: dict[int, Process] = {}  # that live, by pid
        self._workers: dict[int, SimulatedWorker] = {}
        self._born = 0

    def fork(self) -> None:
        """One more worker, as soon as a slot is free and the throttle allows."""
        supervisor, words, board = self._supervisor, self._board.words, self._board
        if supervisor.draining.has_begun:
            return None
        free = [
            slot for slot in range(board.slots) if words[board.slot(slot) + SlotWord.KIND] == ProcessKind.FREE
        ]
        now = supervisor.client.boottime()
        if not free or self.throttle.wait(now):
            return supervisor.soon(0.5, self.fork)
        process = supervisor.child("worker")
        self._born += 1
        base = board.slot(free[0])
        board.clear_slot(free[0])
        words[base + SlotWord.KIND] = ProcessKind.WORKER
        words[Header.USED] = max(words[Header.USED], free[0] + 1)
        self.processes[process.pid] = process
        self.add_worker(
            ChildProcess(pid=process.pid, kind=ProcessKind.WORKER, slot=free[0], number=self._born, began=now)
        )
        kind = SimulatedBatchWorker if supervisor.world.fault_rates.batches else SimulatedWorker
        worker = self._workers[process.pid] = kind(supervisor, free[0], process)
        supervisor.world.scheduler.start(process, "work", lambda: self._live(worker, process))
        return None

    def _live(self, worker: SimulatedWorker, process: Process) -> None:
        """Returns only when the worker ends by itself."""
        worker.serve()
        process.alive = False
        self._supervisor.locks.end(process.pid)
        self.processes.pop(process.pid, None)
        self._supervisor.oracle.ended(process)
        self._soon_reaped(process.pid, 0)

    def _signal(self, child: ChildProcess, signum: signal.Signals) -> None:
        process = self.processes.get(child.pid)
        if process is None:
            return
        if signum == signal.SIGTERM:
            self._workers[child.pid].note_stop()
            return
        if signum == signal.SIGABRT:
            self._supervisor.oracle.timed_out(process)
        self.end(process, int(signum))

    def end(self, process: Process, status: int = int(signal.SIGKILL)) -> None:
        """By a signal of the supervisor's, or of somebody else: the kernel, an operator, a fault of its own."""
        if self.processes.pop(process.pid, None) is not None:
            self._supervisor.host.end(process)
            self._soon_reaped(process.pid, status)

    def _soon_reaped(self, pid: int, status: int) -> None:
        supervisor = self._supervisor
        supervisor.soon(supervisor.world.scheduler.random.uniform(0, 0.05), lambda: self._reap(pid, status))

    def _reap(self, pid: int, status: int) -> None:
        # Nobody can tell who has sent a KILL, where two have been sent.
        spared = status == signal.SIGKILL and self.by_pid[pid].killed in ("fence", "drain")
        self._supervisor.oracle.processes[pid].spared = spared
        if self.reap(self.by_pid[pid], status):
            self._supervisor.send_to_keeper(ReclaimSlots())
        self.fork()
