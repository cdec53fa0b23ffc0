"""The thread of one queue's chores: dead owners' claims, due entries, periodic tasks, requests, status, sweeps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, ClassVar

from maildefer import events
from maildefer.backoff import Backoff
from maildefer.host.identity import is_alive
from maildefer.maildir import journal
from maildefer.maildir.layout import mend
from maildefer.maildir.system import SYSTEM, System
from maildefer.maildir.upkeep.failed_moves import FailedMoves
from maildefer.maildir.upkeep.leases import LeaseHolder
from maildefer.maildir.upkeep.observer import LeaseObserver
from maildefer.maildir.upkeep.promote import Promoter
from maildefer.maildir.upkeep.reclaim import Reclaimer, StateOf
from maildefer.pool.chore_faults import ChoreFaults
from maildefer.pool.context import PoolContext
from maildefer.pool.keeper.chores import Chore, Chores
from maildefer.pool.keeper.heartbeat import Heartbeat
from maildefer.pool.keeper.limited_entries import LimitedEntries
from maildefer.pool.keeper.mount_files import MountFiles
from maildefer.pool.keeper.reclaim_log import log_fence, log_reclaimed_tokens, logged_reclaims
from maildefer.pool.keeper.retention import QueueSweeper
from maildefer.pool.keeper.slot_reclaim import DeadSlots, owner_states
from maildefer.pool.keeper.ticker import Ticker
from maildefer.pool.messages import EntryDeferred, ReloadProgress, SlotReleased
from maildefer.pool.pause import apply_mark
from maildefer.pool.scoreboard import QueueState
from maildefer.pool.scoreboard_views import HeaderView, QueueRecordView

if TYPE_CHECKING:
    from maildefer.maildir.upkeep.token_reclaim import TokenReclaimer

_FOLDERS_EVERY_SECONDS = 60.0
# Chores of which entries fail by themselves:
_BY_ENTRY = ("take back", "fence", "reclaim", "promote", "return", "free tokens")


class Maintenance:
    """Everything that the keeper does for one queue besides beating."""

    mount_files_class: ClassVar = MountFiles

    def __init__(
        self,
        context: PoolContext,
        index: int,
        heartbeat: Heartbeat,
        on_reclaimed: Callable[[int], None],
        *,
        system: System = SYSTEM,
    ) -> None:
        self._context = context
        self._system = system
        self._index = index
        self._record = QueueRecordView(context.board, index)
        self._heartbeat = heartbeat
        self._layout = heartbeat.queue.layout
        self._name = heartbeat.queue.name
        self._from_workers: SimpleQueue[EntryDeferred | SlotReleased] = SimpleQueue()
        self._namesakes: set[str] = set()  # logged already
        self._wake = threading.Event()
        self._is_reloaded = False
        moves = self._failed_moves = {chore: FailedMoves(system=system) for chore in _BY_ENTRY}
        self._dead_slots = DeadSlots(context, index, self._name, on_reclaimed, moves["take back"])
        self._promoter = Promoter(self._layout, refusals=moves["promote"], system=system)
        self._limited = LimitedEntries(self._record, self._promoter, system=system)
        self._sweeper = QueueSweeper(context, index, system)
        self.ticker = Ticker(heartbeat, context.host.label, system)
        self._observer = self._make_observer()
        self._reclaimer = self._make_reclaimer()
        self._mount_files = self.mount_files_class(context, index, heartbeat, system)
        # Below half a TTL: an observer that has not looked for that long begins anew.
        self._fence_backoff = Backoff()
        self._fence_backoff.longest_seconds = 2 * heartbeat.format.beat_seconds
        self._chores = Chores(
            self._name, self._make_chores(), ChoreFaults(context.board, index), system, self._mend
        )
        self.thread = threading.Thread(target=self._run, name=f"maintenance-{self._name}", daemon=True)

    def reclaim_slot(self, slot: int) -> None:
        """Reclaim what a dead worker held, then clear its slot. Called by any thread."""
        self._dead_slots.add_slot(slot)
        self._wake.set()

    def receive_from_worker(self, message: EntryDeferred | SlotReleased) -> None:
        """Note what a worker of this host has reported. Called by any thread."""
        self._from_workers.put(message)
        self._wake.set()

    def note_reload(self, progress: ReloadProgress) -> None:
        """Note how the last reload went, for the status file. Called by any thread."""
        self._mount_files.reload = progress
        self._is_reloaded = True

    def wake(self) -> None:
        self._wake.set()

    def _run(self) -> None:
        heartbeat = self._heartbeat
        while not heartbeat.left.is_set():
            if heartbeat.joined.wait(0.5):
                self._round()
                self._wake.wait(self._until_next())
                self._wake.clear()
            elif self._record.state != QueueState.SERVED:
                self._dead_slots.clear_all()  # no lease, so no claim under it; a new keeper has only not joined yet
        self._mount_files.discard_status()

    def _round(self) -> None:
        if self._is_reloaded:
            self._is_reloaded = False
            journal.look_again(self._layout, anew=True)
        if self._observer.format is not self._heartbeat.format:  # joined anew
            self._observer = self._make_observer()
            self._reclaimer = self._make_reclaimer()
            self._fence_backoff.longest_seconds = 2 * self._heartbeat.format.beat_seconds
            self._chores.make_due()
        self._chores.do_what_is_due()

    def _make_chores(self) -> list[Chore]:
        """Make the chores in the order in which they are done: first what other hosts wait for."""

        def beat() -> float:
            return self._heartbeat.format.beat_seconds

        stuck, files, clock = self._failed_moves, self._mount_files, self._heartbeat.mount_time
        fence = Chore("fence", "fence.failed", self._fence, every=beat, refusals=stuck["fence"])
        fence.backoff = self._fence_backoff
        sweep = Chore(
            "sweep", "sweep.failed", self._sweep, every=lambda: self._sweeper.wait_seconds, at_once=False
        )
        sweep.due = self._system.boottime() + self._sweeper.wait_seconds
        reclaim_slots = Chore(
            "take back", "takeback.failed", self._reclaim_slots, refusals=stuck["take back"]
        )
        reclaim_slots.wanted = self._dead_slots.next_at
        promote = Chore("promote", "promotion.failed", self._promote, refusals=stuck["promote"])
        promote.wanted = self._promote_at
        tick = Chore("tick", "tick.failed", self.ticker.tick, refusals=self.ticker.refusals)
        tick.wanted = self.ticker.next_at
        return [
            reclaim_slots,
            fence,
            Chore("reclaim", "reclaim.failed", self._reclaim, every=beat, refusals=stuck["reclaim"]),
            Chore("clock", "clock.failed", clock.measure, wanted=clock.measure_at),
            promote,
            tick,
            Chore("list deferred", "listing.failed", self._list_deferred, wanted=self._list_deferred_at),
            Chore("return", "return.failed", self._return, every=beat, refusals=stuck["return"]),
            Chore(
                "free tokens", "token.failed", self._reclaim_tokens, every=beat, refusals=stuck["free tokens"]
            ),
            Chore("share", "share.failed", self._share, every=beat),
            Chore(
                "requests",
                "request.failed",
                files.answer_requests,
                every=beat,
                refusals=files.refusals,
            ),
            Chore("pause", "pause.failed", self._apply_pause_mark, every=beat),
            Chore("status", "status.failed", self._write_status, every=beat),
            sweep,
            Chore("folders", "folders.failed", self._mend, every=lambda: _FOLDERS_EVERY_SECONDS),
        ]

    def _fence(self) -> None:
        for lease in self._observer.look(self._heartbeat.last_good_beat):
            log_fence(self._context, self._index, lease)
        for lease, holder in self._observer.beating():
            if lease not in self._namesakes and self._context.host.is_namesake(
                holder.host, holder.boot_id, holder.pid_namespace
            ):
                self._namesakes.add(lease)
                events.emit("host.duplicated", queue=self._name, lease=lease, host=holder.host)

    def _reclaim(self) -> None:
        with logged_reclaims(self._context, self._index) as reclaimed:
            self._reclaimer.scan(reclaimed)
        self._record.scans += 1

    def _return(self) -> None:
        with logged_reclaims(self._context, self._index) as reclaimed:
            self._reclaimer.scan_deferred(reclaimed)

    def _reclaim_tokens(self) -> None:
        if (tokens := self._token_reclaimer()) is not None:
            log_reclaimed_tokens(self._name, tokens.scan(), tokens.overlaps)

    def _share(self) -> None:
        self._limited.forget_past(self._heartbeat.mount_time.now())
        self._mount_files.share(self._observer.others)

    def _apply_pause_mark(self) -> None:
        apply_mark(self._context, self._index, self._system)

    def _write_status(self) -> None:
        journal.look_again(self._layout)  # before others read that all workers keep one
        self._mount_files.write_status()

    def _sweep(self) -> None:
        self._sweeper.do_pass(self._heartbeat.mount_time.now())

    def _reclaim_slots(self) -> None:
        self._dead_slots.reclaim(self._reclaimer, self._token_reclaimer())

    def _promote(self) -> None:
        while not self._from_workers.empty():
            self._limited.receive(self._from_workers.get())
        self._limited.promote_ready()
        for key in self._promoter.promote(self._heartbeat.mount_time.now()):
            if not self._limited.forget(key):
                events.emit("entry.promoted", queue=self._name, key=key)

    def _make_observer(self) -> LeaseObserver:
        return LeaseObserver(
            self._layout,
            self._heartbeat.format,
            lambda: self._heartbeat.lease,
            self._is_known_dead,
            refusals=self._failed_moves["fence"],
            system=self._system,
        )

    def _make_reclaimer(self) -> Reclaimer:
        return Reclaimer(
            self._layout,
            self._observer,
            own=lambda: self._heartbeat.lease,
            look=self._read_scoreboard,
            host=self._context.host.label,
            max_crashes=self._context.settings.max_crashes,
            grace_seconds=self._heartbeat.format.ttl_seconds,
            refusals=self._failed_moves["reclaim"],
            returns=self._failed_moves["return"],
            ended=self._context.ended_claims,
            system=self._system,
        )

    def _token_reclaimer(self) -> TokenReclaimer | None:
        """Make what reclaims tokens, for the queue in which they lie, from the first conversation on; else None."""
        if HeaderView(self._context.board).token_queue != self._index:
            return None
        from maildefer.maildir.upkeep.token_reclaim import (
            TokenReclaimer,  # an application without conversations never needs it
        )

        return TokenReclaimer(
            self._layout,
            self._observer,
            own=lambda: self._heartbeat.lease,
            look=self._read_scoreboard,
            refusals=self._failed_moves["free tokens"],
            system=self._system,
        )

    def _read_scoreboard(self) -> StateOf:
        return owner_states(self._context.board)

    def _is_known_dead(self, holder: LeaseHolder) -> bool:
        """Whether it is dead for sure: its pids are this host's, and neither supervisor nor keeper is alive."""
        if not self._context.host.shares_pids_with(holder.boot_id, holder.pid_namespace):
            return False
        return not is_alive(holder.pid, holder.start_time) and not is_alive(
            holder.keeper_pid, holder.keeper_start_time
        )

    def _until_next(self) -> float:
        """Compute seconds until a chore is due; a death or a defer of this host wakes the thread earlier."""
        wait = self._chores.next_at() - self._system.boottime()
        if HeaderView(self._context.board).draining:
            wait = min(wait, 0.2)
        return max(0.0, wait)

    def _list_deferred(self) -> None:
        self._promoter.relist(
            self._heartbeat.mount_time.now(), least_seconds=self._heartbeat.format.beat_seconds
        )

    def _list_deferred_at(self) -> float:
        """Compute when to list `.later/`, on the boot clock."""
        return self._promoter.lists_at(self._heartbeat.mount_time.now())

    def _promote_at(self) -> float:
        """Compute when to promote, on the boot clock."""
        if not self._from_workers.empty():
            return 0.0
        again = min(self._failed_moves["promote"].next_at(), self._limited.next_at())
        if (due := self._promoter.next_due()) is None:
            return again
        return min(again, self._system.boottime() + due - self._heartbeat.mount_time.now())

    def _mend(self) -> bool:
        return mend(self._layout, system=self._system)
