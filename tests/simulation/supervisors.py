"""A simulated host's supervisor: the real bookkeeping of workers, with simulated signals, forks and deaths."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from maildefer.pool.board import Header, Kind, S
from maildefer.pool.children import Child
from maildefer.pool.workforce import Workforce
from tests.simulation.scheduler import Process
from tests.simulation.workers import SimulatedWorker

if TYPE_CHECKING:
    from tests.simulation.hosts import SimulatedHost


class SimulatedWorkforce(Workforce):
    """Signals go to simulated processes, which are reaped a moment later."""

    def __init__(self, host: SimulatedHost) -> None:
        super().__init__(host.board)
        self.host = host
        self.processes: dict[int, Process] = {}  # that live, by pid
        self._born = 0

    def fork(self) -> None:
        """One more worker, as soon as a slot is free and the throttle allows."""
        host, words, board = self.host, self._words, self._board
        free = [slot for slot in range(board.slots) if words[board.slot(slot) + S.KIND] == Kind.FREE]
        if not free or self.throttle.wait(host.world.now):
            return host.soon(0.5, self.fork)
        process = host.process("worker", host.supervisor)
        self._born += 1
        base = board.slot(free[0])
        board.clear_slot(free[0])
        words[base + S.KIND] = Kind.WORKER
        words[Header.USED] = max(words[Header.USED], free[0] + 1)
        self.processes[process.pid] = process
        self.occupy(
            Child(pid=process.pid, kind=Kind.WORKER, slot=free[0], number=self._born, began=host.world.now)
        )
        worker = SimulatedWorker(host, free[0], process)
        host.world.scheduler.start(process, "work", lambda: self._live(worker, process))
        return None

    def _live(self, worker: SimulatedWorker, process: Process) -> None:
        """Returns only when the worker ends by itself."""
        worker.serve()
        process.alive = False
        self.processes.pop(process.pid, None)
        self.host.oracle.ended(process)
        self._soon_reaped(process.pid, 0)

    def _signal(self, child: Child, signum: signal.Signals) -> None:
        process = self.processes.pop(child.pid, None)
        if process is None:
            return
        process.by_fence = child.killed == "fence"
        self.host.end(process)
        self._soon_reaped(child.pid, int(signum))

    def kill(self, pid: int) -> None:
        """By somebody else: the kernel, an operator, a fault of its own."""
        if pid in self.processes:
            self._signal(self.by_pid[pid], signal.SIGKILL)

    def _soon_reaped(self, pid: int, status: int) -> None:
        self.host.soon(self.host.world.scheduler.random.uniform(0, 0.05), lambda: self._reap(pid, status))

    def _reap(self, pid: int, status: int) -> None:
        if self.bury(self.by_pid[pid], status):
            self.host.tell_keeper()
        self.fork()
