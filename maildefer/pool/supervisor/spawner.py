"""Where the supervisor's own children come from: a slot on the board, a fork, and keeper and scout kept alive."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from maildefer import events
from maildefer.host import captured_output
from maildefer.host.fork_throttle import ForkThrottle
from maildefer.maildir.system import boottime
from maildefer.pool import fork
from maildefer.pool.context import PoolContext
from maildefer.pool.fork import ChildProcess
from maildefer.pool.scoreboard import Header, ProcessKind, S
from maildefer.pool.worker.run import run as run_worker

_STEADY_SECONDS = 60.0


class Spawner:
    """Forks workers, keeper and scout. `close` is what a child must not keep of its parent's."""

    def __init__(self, shared: PoolContext, close: Callable[[], None]) -> None:
        self._board = shared.board
        self._dumps = shared.dumps
        self._close = close
        self._stewards: dict[ProcessKind, ChildProcess] = {}
        self._throttle = ForkThrottle()
        self._numbers = 0

    @property
    def stewards(self) -> list[ChildProcess]:
        return list(self._stewards.values())

    def has(self, kind: ProcessKind) -> bool:
        return kind in self._stewards

    def worker(self, shared: PoolContext, generation: int) -> ChildProcess | None:
        """One more worker; None while no slot is free, or the machine refuses."""
        if (slot := self._free_slot()) is None:
            return None
        self._numbers += 1
        number = self._numbers
        try:
            output = captured_output.make()
        except OSError:  # EMFILE: its output goes where the log goes
            output = -1
        pid = self._fork(ProcessKind.WORKER, slot, lambda: _work(shared, slot, number, output), output)
        if pid is None:
            captured_output.tell_rest(output, {})
            return None
        return ChildProcess(
            pid=pid,
            kind=ProcessKind.WORKER,
            slot=slot,
            number=number,
            generation=generation,
            began=boottime(),
            output=output,
        )

    def steward(self, kind: ProcessKind, shared: PoolContext) -> None:
        """See to it that there is a keeper, or a scout."""
        if kind in self._stewards or self._throttle.wait(boottime()):
            return
        slot = self._board.slots - (
            1 if kind is ProcessKind.KEEPER else 2
        )  # reserved: dead workers wait for the keeper
        main = (lambda: _keep(shared)) if kind is ProcessKind.KEEPER else (lambda: _scout(shared))
        if (pid := self._fork(kind, slot, main)) is not None:
            self._board.words[self._board.slot(slot) + S.PID] = pid
            self._stewards[kind] = ChildProcess(pid=pid, kind=kind, slot=slot, number=0, began=boottime())
            events.emit("child.started", kind=kind.name.lower(), pid=pid)

    def bury(self, pid: int, status: int, *, expected: bool) -> None:
        """A keeper or scout has ended; anything else that was reaped is nobody we know."""
        for kind, child in list(self._stewards.items()):
            if child.pid == pid:
                del self._stewards[kind]
                self._board.clear_slot(child.slot)
                if not expected:
                    code = os.waitstatus_to_exitcode(status)
                    events.emit("child.died", kind=kind.name.lower(), pid=pid, how=fork.how_died(code))
                    self._throttle.note_death(int(boottime() - child.began > _STEADY_SECONDS), boottime())

    def end_liar(self, pid: int, reason: str) -> None:
        """What a keeper or scout said is nonsense: it dies for it. Of anybody else's it is only told."""
        child = next((child for child in self._stewards.values() if child.pid == pid), None)
        if child is None:
            events.emit("child.misbehaved", kind="unknown", pid=pid, reason=reason)
        elif not child.lied:
            child.lied = True
            events.emit("child.misbehaved", kind=child.kind.name.lower(), pid=pid, reason=reason)
            self.kill(child.kind)

    def kill(self, *kinds: ProcessKind) -> None:
        for kind in kinds:
            if (child := self._stewards.get(kind)) is not None:
                try:
                    os.kill(child.pid, signal.SIGKILL)
                except ProcessLookupError:  # ended already
                    pass

    def _free_slot(self) -> int | None:
        """A slot that no process has and whose claims are all taken back."""
        for slot in range(self._board.slots - 2):
            if self._board.words[self._board.slot(slot) + S.KIND] == ProcessKind.FREE:
                return slot
        return None

    def _fork(self, kind: ProcessKind, slot: int, main: Callable[[], int], output: int = -1) -> int | None:
        board = self._board
        board.clear_slot(slot)
        board.words[board.slot(slot) + S.KIND] = kind
        if kind is ProcessKind.WORKER:
            if self._dumps is not None:
                self._dumps.clear(slot)
            board.words[Header.USED] = max(board.words[Header.USED], slot + 1)

        def begin() -> int:
            board.words[board.slot(slot) + S.PID] = os.getpid()
            if kind is ProcessKind.WORKER:
                os.setsid()  # what its handlers start is in its session, unless it makes one of its own
            self._close()
            captured_output.close(but=output)
            signal.signal(signal.SIGUSR1, lambda *_: events.reopen())
            return main()

        try:
            return fork.fork(begin)
        except OSError as fault:  # EAGAIN, ENOMEM: the machine is full; the loop tries again
            board.clear_slot(slot)
            events.emit("fork.failed", kind=kind.name.lower(), error=str(fault))
            return None


def _work(shared: PoolContext, slot: int, number: int, output: int) -> int:
    shared.close_for(ProcessKind.WORKER)
    return run_worker(shared, slot, number, output)


# What only one process of the pool needs is imported in it, and stays out of the supervisor and the workers.


def _keep(shared: PoolContext) -> int:
    from maildefer.pool.keeper import keeper

    shared.close_for(ProcessKind.KEEPER)
    return keeper.run(shared)


def _scout(shared: PoolContext) -> int:
    from maildefer.pool.worker import scout

    shared.close_for(ProcessKind.SCOUT)
    return scout.run(shared)
