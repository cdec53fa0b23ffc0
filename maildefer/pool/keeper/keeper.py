"""The keeper: holds the supervisor's lease in each queue, and reclaims what dead owners held.

Its main thread receives messages of the supervisor and the workers; each queue has two threads of its own.
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
    PeriodicTable,
    ReclaimSlots,
    ReloadProgress,
    SlotReclaimed,
    SlotReleased,
    WritePidFile,
    from_supervisor,
    from_worker,
    receive,
    send,
)
from maildefer.pool.scoreboard_views import HeaderView, QueueRecordView, SlotView

_END_SECONDS = 5.0
_CHECK_SECONDS = 5.0


def run(context: PoolContext) -> int:
    """Run a keeper in its own process; returns the exit code."""
    set_title(f"keeper {' '.join(queue.name for queue in context.queues)}")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it outlives the drain; the supervisor says when to leave
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.excepthook = _end_with_thread
    return Keeper(context).serve()


class Keeper:
    """The main thread of a keeper."""

    def __init__(self, context: PoolContext) -> None:
        self._context = context
        self._pidfile_writer = PidFileWriter(context)
        lease = lease_name(context.host.label, SYSTEM)  # one name for all queues, as long as none is fenced
        self._heartbeats = [
            Heartbeat(context, i, lease, self._pidfile_writer.check_mount) for i in range(len(context.queues))
        ]
        self._maintenance = [
            Maintenance(context, i, heartbeat, self._note_reclaimed)
            for i, heartbeat in enumerate(self._heartbeats)
        ]
        self._leaving = False
        self._checked_at = self._silence_counts_from = 0.0
        self._began = boottime()

    def serve(self) -> int:
        """Run until asked to leave, then until every lease is left."""
        for thread in (
            *(heartbeat.thread for heartbeat in self._heartbeats),
            *(maintenance.thread for maintenance in self._maintenance),
        ):
            thread.start()
        self._pidfile_writer.start()
        self._reclaim_dead_slots()
        poll = select.poll()
        orders, deferrals = self._context.keeper[1], self._context.deferrals[0]
        poll.register(orders, select.POLLIN)
        poll.register(deferrals, select.POLLIN)
        while not self._leaving:
            poll.poll(self._check_seconds() * 1000)
            received: Iterator[FromSupervisor | InvalidMessage] = receive(orders, from_supervisor)
            for order in received:
                self._carry_out(order)
            reports: Iterator[FromWorker | InvalidMessage] = receive(
                deferrals, partial(from_worker, queues=len(self._maintenance))
            )
            for message in reports:
                self._receive_from_worker(message)
            self._check_supervisor()
        for heartbeat in self._heartbeats:
            heartbeat.left.wait()
        for maintenance in self._maintenance:
            maintenance.wake()
            maintenance.thread.join(_END_SECONDS)  # it removes its status file, if the mount lets it
        self._pidfile_writer.close()
        return 0

    def _receive_from_worker(self, message: FromWorker | InvalidMessage) -> None:
        """Act on a worker's message; where its handlers have broken it, the supervisor ends it."""
        match message:
            case EntryDeferred(queue=index) | SlotReleased(queue=index):
                self._maintenance[index].receive_from_worker(message)
            case InvalidMessage(pid=pid, reason=reason):
                send(self._context.keeper[1], ChildMisbehaved(pid=pid, reason=reason))
            case _:
                assert_never(message)

    def _carry_out(self, order: FromSupervisor | InvalidMessage) -> None:
        match order:
            case InvalidMessage(pid=pid, reason=reason):
                send(self._context.keeper[1], ChildMisbehaved(pid=pid, reason=reason))
            case ReclaimSlots():
                self._reclaim_dead_slots()
            case LeaveLeases():
                self._leaving = True
                for heartbeat in self._heartbeats:
                    heartbeat.leaving.set()
                for maintenance in self._maintenance:
                    maintenance.wake()
            case WritePidFile():
                self._pidfile_writer.write_again()
            case ReloadProgress():
                for maintenance in self._maintenance:
                    maintenance.note_reload(order)
            case PeriodicTable(queue=index, tasks=tasks):
                for maintenance in self._maintenance[index : index + 1]:
                    maintenance.ticker.use_table(tasks)
                    maintenance.wake()
            case _:
                assert_never(order)

    def _reclaim_dead_slots(self) -> None:
        """Have all dead slots reclaimed, also those of before our own start."""
        board = self._context.board
        for slot in board.worker_slots():
            child = SlotView(board, slot)
            if child.is_dead and child.is_worker:
                self._maintenance[min(child.queue, board.queues - 1)].reclaim_slot(slot)

    def _note_reclaimed(self, slot: int) -> None:
        """Note that nothing of a dead worker is left in one queue; tokens and gathered claims may lie in others."""
        board = self._context.board
        if (queue := board.gathered_in(slot)) is not None:
            self._maintenance[queue].reclaim_slot(slot)
            return
        child, home = SlotView(board, slot), HeaderView(board).token_queue
        if child.tokens and home is not None and home < len(self._maintenance):
            self._maintenance[home].reclaim_slot(slot)
            return
        if child.is_dead:
            board.clear_slot(slot)
            send(self._context.keeper[1], SlotReclaimed(slot=slot))

    def _check_supervisor(self) -> None:
        """End when the supervisor is gone, or hangs for a TTL: a host whose supervisor is stopped counts as frozen.

        Where this thread did not run either, the whole host was stopped: the supervisor gets a whole TTL from then on.
        """
        if os.getppid() != self._context.supervisor:
            os._exit(1)
        board, header, now = self._context.board, HeaderView(self._context.board), boottime()
        if now - self._began > self._check_seconds():  # one that dies again and again gives no sign of life
            header.keeper_seen = now
        ttl = max(self._agreed_ttls(), default=0.0)
        if now - self._checked_at > ttl / 2:
            self._silence_counts_from = now
        self._checked_at = now
        tick = header.tick
        if tick and ttl and now - max(tick, self._silence_counts_from) > ttl:
            for slot in board.workers():
                pid = SlotView(board, slot).pid  # whatever a broken worker has put there
                try:
                    if descendants.is_or_is_below(self._context.supervisor, pid):
                        os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            os._exit(1)

    def _check_seconds(self) -> float:
        """So that no two looks are half a TTL apart, also before this keeper has joined where another one had."""
        beats = [heartbeat.format.beat_seconds for heartbeat in self._heartbeats]
        return min((_CHECK_SECONDS, *beats, *(ttl / 3 for ttl in self._agreed_ttls() if ttl)))

    def _agreed_ttls(self) -> list[float]:
        """Return the TTLs of the queues that a keeper of this pool has joined, in seconds; 0 for the others."""
        board = self._context.board
        return [QueueRecordView(board, index).ttl_seconds for index in range(len(self._heartbeats))]


def _end_with_thread(failure: threading.ExceptHookArgs) -> None:
    """End the process: without one of its threads it would look alive and not be. Another keeper takes over."""
    threading.__excepthook__(failure)
    os._exit(1)
