"""The keeper: holds the supervisor's lease in each queue, and gives back what nobody holds any more.

Its main thread listens to the supervisor and to the workers; each queue has two threads of its own.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from functools import partial
from typing import assert_never

from maildefer.host.linux import descendants
from maildefer.host.linux.process_title import set_title
from maildefer.maildir.names import lease_name
from maildefer.maildir.system import SYSTEM, boottime
from maildefer.pool.context import PoolContext
from maildefer.pool.keeper.heartbeat import Heartbeat
from maildefer.pool.keeper.maintenance import Maintenance
from maildefer.pool.keeper.pidfile_writer import PidFileWriter
from maildefer.pool.messages import (
    ChildMisbehaved,
    EntryDeferred,
    FromSupervisor,
    FromWorker,
    InvalidMessage,
    LeaveLeases,
    ReclaimSlots,
    ReloadProgress,
    SlotReclaimed,
    WritePidFile,
    from_supervisor,
    from_worker,
    receive,
    send,
)
from maildefer.pool.scoreboard import Header, ProcessKind, Q, S, State

_END_SECONDS = 5.0
_LOOK_SECONDS = 5.0


def run(shared: PoolContext) -> int:
    """The life of a keeper in its own process; returns the exit code."""
    set_title(f"keeper {' '.join(queue.name for queue in shared.queues)}")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it outlives the drain; the supervisor says when to leave
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.excepthook = _end_with_thread
    return Keeper(shared).serve()


class Keeper:
    """The main thread of a keeper."""

    def __init__(self, shared: PoolContext) -> None:
        self._shared = shared
        self._clerk = PidFileWriter(shared)
        lease = lease_name(shared.host.label, SYSTEM)  # one name for all queues, as long as none is fenced
        self._lifelines = [Heartbeat(shared, i, lease, self._clerk.check) for i in range(len(shared.queues))]
        self._tenders = [Maintenance(shared, i, line, self._free) for i, line in enumerate(self._lifelines)]
        self._leaving = False
        self._looked_at = self._patient_from = 0.0
        self._began = boottime()

    def serve(self) -> int:
        """Run until told to leave, then until every lease is left."""
        for thread in (
            *(line.thread for line in self._lifelines),
            *(tender.thread for tender in self._tenders),
        ):
            thread.start()
        self._clerk.start()
        self._find_dead()
        poll = select.poll()
        orders, deferrals = self._shared.keeper[1], self._shared.deferrals[0]
        poll.register(orders, select.POLLIN)
        poll.register(deferrals, select.POLLIN)
        while not self._leaving:
            poll.poll(self._look_seconds() * 1000)
            received: Iterator[FromSupervisor | InvalidMessage] = receive(orders, from_supervisor)
            for order in received:
                self._obey(order)
            for message in receive(deferrals, partial(from_worker, queues=len(self._tenders))):
                self._hear(message)
            self._mind_supervisor()
        for line in self._lifelines:
            line.left.wait()
        for tender in self._tenders:
            tender.wake()
            tender.thread.join(_END_SECONDS)  # it takes its status file away, if the mount lets it
        self._clerk.close()
        return 0

    def _hear(self, message: FromWorker | InvalidMessage) -> None:
        """Act on a worker's message; where its handlers have broken it, the supervisor ends it."""
        match message:
            case EntryDeferred(queue=index, name=name):
                self._tenders[index].hear(name)
            case InvalidMessage(pid=pid, reason=reason):
                send(self._shared.keeper[1], ChildMisbehaved(pid=pid, reason=reason))
            case _:
                assert_never(message)

    def _obey(self, order: FromSupervisor | InvalidMessage) -> None:
        match order:
            case InvalidMessage(pid=pid, reason=reason):
                send(self._shared.keeper[1], ChildMisbehaved(pid=pid, reason=reason))
            case ReclaimSlots():
                self._find_dead()
            case LeaveLeases():
                self._leaving = True
                for line in self._lifelines:
                    line.leaving.set()
                for tender in self._tenders:
                    tender.wake()
            case WritePidFile():
                self._clerk.write_again()
            case ReloadProgress():
                for tender in self._tenders:
                    tender.note_reload(order)
            case _:
                assert_never(order)

    def _find_dead(self) -> None:
        """All slots that wait to be taken back: also those of before our own start."""
        board = self._shared.board
        for slot in board.worker_slots():
            base = board.slot(slot)
            is_dead = board.words[base + S.STATE] in (State.DEAD_CHARGED, State.DEAD_UNCHARGED)
            if is_dead and board.words[base + S.KIND] == ProcessKind.WORKER:
                self._tenders[min(board.words[base + S.QUEUE], board.queues - 1)].take_back(slot)

    def _free(self, slot: int) -> None:
        """Confirmed: nothing of that dead worker is left in one queue. Tokens and gathered claims may lie in others."""
        board = self._shared.board
        if (queue := board.gathered_in(slot)) is not None:
            self._tenders[queue].take_back(slot)
            return
        home = board.words[Header.TOKENS] - 1
        if board.words[board.slot(slot) + S.TOKENS] and 0 <= home < len(self._tenders):
            self._tenders[home].take_back(slot)
            return
        if board.words[board.slot(slot) + S.STATE] in (State.DEAD_CHARGED, State.DEAD_UNCHARGED):
            board.clear_slot(slot)
            send(self._shared.keeper[1], SlotReclaimed(slot=slot))

    def _mind_supervisor(self) -> None:
        """A supervisor that is stopped or hangs is a frozen host, not a live one: end with it, and with its process.

        Where we were away ourselves, the whole host was: the supervisor gets as long as ever to come back.
        """
        if os.getppid() != self._shared.supervisor:
            os._exit(1)
        board, now = self._shared.board, boottime()
        if (
            now - self._began > self._look_seconds()
        ):  # so that one that dies again and again gives no sign of life
            board.words[Header.KEEPER] = int(now * 1e9)
        agreed = [board.words[board.queue(index) + Q.FORMAT_TTL] for index in range(len(self._lifelines))]
        ttl = max(agreed, default=0) / 1000
        if now - self._looked_at > ttl / 2:
            self._patient_from = now
        self._looked_at = now
        tick = board.words[Header.TICK] / 1e9
        if tick and ttl and now - max(tick, self._patient_from) > ttl:
            for slot in board.workers():
                pid = board.words[board.slot(slot) + S.PID]  # whatever a broken worker has put there
                try:
                    if descendants.is_or_is_below(self._shared.supervisor, pid):
                        os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            os._exit(1)

    def _look_seconds(self) -> float:
        beats = [line.format.beat_seconds for line in self._lifelines]
        return min(_LOOK_SECONDS, *beats) if beats else _LOOK_SECONDS


def _end_with_thread(failure: threading.ExceptHookArgs) -> None:
    """A keeper without one of its threads would look alive and not be: end, and let a successor take over."""
    threading.__excepthook__(failure)
    os._exit(1)
