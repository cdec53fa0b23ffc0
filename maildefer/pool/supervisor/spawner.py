"""Forks of the supervisor's own children, each with a slot on the scoreboard; keeper and scout are kept running."""

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
from maildefer.pool.keeper import keeper
from maildefer.pool.scoreboard import ProcessKind
from maildefer.pool.scoreboard_views import HeaderView, SlotView, free_slots
from maildefer.pool.worker import scout

_STEADY_SECONDS = 60.0


class Spawner:
    """Forks keeper and scout, and prepares workers. `close` closes in a child what is its parent's."""

    def __init__(self, context: PoolContext, close: Callable[[], None]) -> None:
        self._board = context.board
        self._dumps = context.dumps
        self._close = close
        self._keeper_and_scout: dict[ProcessKind, ChildProcess] = {}
        self._throttle = ForkThrottle()
        self._numbers = 0

    @property
    def keeper_and_scout(self) -> list[ChildProcess]:
        return list(self._keeper_and_scout.values())

    def has(self, kind: ProcessKind) -> bool:
        return kind in self._keeper_and_scout

    def prepare_worker(self, generation: int) -> ChildProcess | None:
        """Prepare a slot and a file for one more worker, which a template forks; None while no slot is free."""
        if (slot := next(free_slots(self._board), None)) is None:
            return None
        self._numbers += 1
        try:
            output = captured_output.make()
        except OSError:  # EMFILE: its output goes to the log's descriptor
            output = -1
        header = HeaderView(self._board)
        self._board.clear_slot(slot)
        SlotView(self._board, slot).kind = ProcessKind.WORKER
        if self._dumps is not None:
            self._dumps.clear(slot)
        header.used_slots = max(header.used_slots, slot + 1)
        return ChildProcess(
            pid=0,
            kind=ProcessKind.WORKER,
            slot=slot,
            number=self._numbers,
            generation=generation,
            output=output,
        )

    def forget_worker(self, child: ChildProcess) -> None:
        """Free the slot of a worker that was not forked, or that waits there in vain."""
        self._board.clear_slot(child.slot)
        captured_output.emit_rest(child.output, {})

    def keep_running(self, kind: ProcessKind, context: PoolContext) -> None:
        """Fork a keeper, or a scout, unless there is one; kill a scout that has offered what is no name."""
        header = HeaderView(self._board)
        if kind is ProcessKind.SCOUT and header.invalid_offers:
            header.invalid_offers = 0
            self.kill(kind)
        if kind in self._keeper_and_scout or self._throttle.wait(boottime()):
            return
        # Their slots are reserved: dead workers' slots wait for the keeper.
        slot = self._board.slots - (1 if kind is ProcessKind.KEEPER else 2)
        main = (lambda: _run_keeper(context)) if kind is ProcessKind.KEEPER else (lambda: _run_scout(context))
        if (pid := self._fork(kind, slot, main)) is not None:
            SlotView(self._board, slot).pid = pid
            self._keeper_and_scout[kind] = ChildProcess(
                pid=pid, kind=kind, slot=slot, number=0, began=boottime()
            )
            events.emit("child.started", kind=kind.name.lower(), pid=pid)

    def reap(self, pid: int, status: int, *, expected: bool) -> None:
        """Note the end of a keeper or scout; any other pid is an orphan that was adopted."""
        for kind, child in list(self._keeper_and_scout.items()):
            if child.pid == pid:
                del self._keeper_and_scout[kind]
                self._board.clear_slot(child.slot)
                if not expected:
                    code = os.waitstatus_to_exitcode(status)
                    events.emit("child.died", kind=kind.name.lower(), pid=pid, how=fork.how_died(code))
                    self._throttle.note_death(int(boottime() - child.began > _STEADY_SECONDS), boottime())

    def end_misbehaving(self, pid: int, reason: str) -> None:
        """Kill a keeper or scout that sent an invalid message; one of an unknown sender is only logged."""
        child = next((child for child in self._keeper_and_scout.values() if child.pid == pid), None)
        if child is None:
            events.emit("child.misbehaved", kind="unknown", pid=pid, reason=reason)
        elif not child.misbehaved:
            child.misbehaved = True
            events.emit("child.misbehaved", kind=child.kind.name.lower(), pid=pid, reason=reason)
            self.kill(child.kind)

    def kill(self, *kinds: ProcessKind) -> None:
        for kind in kinds:
            if (child := self._keeper_and_scout.get(kind)) is not None:
                try:
                    os.kill(child.pid, signal.SIGKILL)
                except ProcessLookupError:  # ended already
                    pass

    def _fork(self, kind: ProcessKind, slot: int, main: Callable[[], int]) -> int | None:
        board, child = self._board, SlotView(self._board, slot)
        board.clear_slot(slot)
        child.kind = kind

        def begin() -> int:
            child.pid = os.getpid()
            self._close()
            captured_output.close()
            signal.signal(signal.SIGUSR1, lambda *_: events.reopen())
            events.reopen()  # which may have been asked for since the fork
            return main()

        try:
            return fork.fork(begin)
        except OSError as fault:  # EAGAIN, ENOMEM: the machine is full; the loop tries again
            board.clear_slot(slot)
            events.emit("fork.failed", kind=kind.name.lower(), error=str(fault))
            return None


def _run_keeper(context: PoolContext) -> int:
    context.close_for(ProcessKind.KEEPER)
    return keeper.run(context)


def _run_scout(context: PoolContext) -> int:
    context.close_for(ProcessKind.SCOUT)
    return scout.run(context)
