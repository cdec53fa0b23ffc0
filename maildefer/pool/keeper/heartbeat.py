"""The thread that keeps one queue's lease alive, and does nothing else.

Each queue has its own, so that a hung mount or a long sweep of one queue delays no beat of another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from maildefer import events
from maildefer.backoff import Backoff
from maildefer.errors import LeaseFenced, MaildeferError, QueueMissing, StorageFault, UnsafeMount
from maildefer.host.identity import start_time
from maildefer.maildir import doubt, durable
from maildefer.maildir.layout import Format, create_queue, open_queue, read_format
from maildefer.maildir.names import lease_name
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.system import SYSTEM, System
from maildefer.maildir.upkeep.leases import Lease, LeaseHolder, fence
from maildefer.pool.context import PoolContext
from maildefer.pool.keeper.mount_time import MountTime
from maildefer.pool.keeper.reclaim_log import recover_pushes
from maildefer.pool.messages import JoinFailed, LeaseJoined, LeaseLost, MountRefused, send
from maildefer.pool.pause import apply_mark
from maildefer.pool.scoreboard import QueueState
from maildefer.pool.scoreboard_views import QueueRecordView

_JOIN_RETRY_SECONDS = 1.0
_LONGEST_JOIN_RETRY_SECONDS = 15.0
_DROP_POLL_SECONDS = 0.02


class Heartbeat:
    """Joins, beats, joins anew when fenced, leaves. `check(index)` raises UnsafeMount for an unsafe mount."""

    def __init__(
        self,
        context: PoolContext,
        index: int,
        first_lease: str,
        check: Callable[[int], None],
        *,
        system: System = SYSTEM,
    ) -> None:
        self.queue = context.queues[index]
        self.format = Format()
        self.leaving = threading.Event()
        self.joined = threading.Event()
        self.left = threading.Event()
        self.last_good_beat = 0.0
        self._context = context
        self._system = confined_to(self.queue.layout.path, system)  # of this thread's own
        self._index = index
        self._lease_name = first_lease
        self._earlier_lease = ""  # our lease before this one
        self._check = check
        self._record = QueueRecordView(context.board, index)
        self.mount_time = MountTime(context.board, index, self.queue.layout, self.queue.name, system)
        self._was_joined = bool(context.board.lease(index))  # by us, or by a keeper before us
        self._beat_fails = False
        self._is_missing = False  # the queue's directory
        self.thread = threading.Thread(target=self._run, name=f"beat-{self.queue.name}", daemon=True)

    @property
    def lease(self) -> str:
        """The name of the current lease; the thread of the chores reads it too."""
        return self._lease_name

    def _run(self) -> None:
        while not self.leaving.is_set():
            if (lease := self._join()) is None:
                break
            self._keep_beating(lease)
        self.left.set()

    def _join(self) -> Lease | None:
        """Try to join until that succeeds, or the keeper leaves; a queue whose directory is gone is not made again."""
        last_error = ""
        longest = _JOIN_RETRY_SECONDS if self._was_joined else _LONGEST_JOIN_RETRY_SECONDS
        backoff = Backoff(first_seconds=_JOIN_RETRY_SECONDS, longest_seconds=longest)
        while not self.leaving.is_set():
            try:
                return self._try_to_join()
            except LeaseFenced:  # the keeper before us had it
                events.emit("lease.lost", queue=self.queue.name, lease=self._lease_name)
                self._drop_claims()
            except UnsafeMount as fault:
                send(self._context.keeper[1], MountRefused(why=str(fault)))
                self.leaving.wait()
            except (MaildeferError, OSError) as fault:
                if str(fault) != last_error:
                    last_error = str(fault)
                    event = "queue.vanished" if isinstance(fault, QueueMissing) else "join.failed"
                    self._is_missing = isinstance(fault, QueueMissing)
                    events.emit(event, queue=self.queue.name, error=last_error)
                    send(self._context.keeper[1], JoinFailed(why=last_error))
                self.leaving.wait(backoff.note_failure(self._system.boottime()))
        return None

    def _try_to_join(self) -> Lease:
        layout, record = self.queue.layout, self._record
        self._check(self._index)  # first, so that a mount's own fault is named rather than what comes of it
        if self._was_joined:
            open_queue(layout.path, system=self._system)
        else:
            create_queue(layout.path, system=self._system)
        self.format = read_format(layout, system=self._system)
        apply_mark(self._context, self._index, self._system)  # before the first claim
        self._fence_earlier_lease()
        self.mount_time.measure_first()
        with suppress(OSError):  # a sweep tries again, and tells
            recover_pushes(self.queue, self.mount_time.now(), self._system)
        served = record.state == QueueState.SERVED
        sent = self._system.boottime()
        if served and self._context.board.lease(self._index):
            self._lease_name = self._context.board.lease(self._index)
            lease = Lease.take_over(layout, self._lease_name, self._holder(), system=self._system)
        else:
            lease = self._join_anew()
            self._context.board.set_lease(self._index, self._lease_name)
        record.ttl_seconds = self.format.ttl_seconds
        self.last_good_beat = sent
        if not served:
            self._publish(sent)
        record.state = QueueState.SERVED
        self._was_joined = True
        self.joined.set()
        if self._is_missing:
            self._is_missing = False
            events.emit("queue.joined", queue=self.queue.name)
        events.emit("lease.joined", queue=self.queue.name, lease=self._lease_name)
        send(self._context.keeper[1], LeaseJoined(queue=self._index))
        return lease

    def _fence_earlier_lease(self) -> None:
        """Fence our earlier lease where it is still there: nothing beats it, so no host need wait for its silence."""
        if not self._earlier_lease:
            return
        beat = doubt.live_leases(self.queue.layout, self._system).get(self._earlier_lease)
        if beat is not None:
            fence(self.queue.layout, self._earlier_lease, beat, system=self._system)
        self._earlier_lease = ""

    def _join_anew(self) -> Lease:
        """Join; one that failed may have been done, or be done later, so its name is not used again (I4)."""
        try:
            return Lease.join(self.queue.layout, self._lease_name, self._holder(), system=self._system)
        except StorageFault:
            self._lease_name = lease_name(self._context.host.label, self._system)
            raise

    def _keep_beating(self, lease: Lease) -> None:
        """Beat, with a full interval between a beat's reply and the next beat, on which observers rely."""
        self._beat_fails, sent = False, 0.0
        while not self.leaving.wait(self.format.beat_seconds):
            # After a failure, what succeeds may be what was sent first, and carried out then (I8).
            if not self._beat_fails:
                sent = self._system.boottime()
            try:
                is_ours = lease.renew()
            except LeaseFenced:
                events.emit("lease.lost", queue=self.queue.name, lease=lease.name)
                self._drop_claims()
                return
            except StorageFault as fault:
                self._log_failing(fault)
                if not self._has_leases():
                    self._drop_claims()
                    return
                continue
            self._beat_fails = False
            if is_ours:
                self._publish(sent)
        try:
            lease.leave()
            durable.discard(f"{self.queue.layout.status}/{lease.name}.json", self._system)
            events.emit("lease.left", queue=self.queue.name, lease=lease.name)
        except StorageFault as fault:
            self._log_failing(fault)

    def _has_leases(self) -> bool:
        try:
            self._system.lstat(self.queue.layout.leases)
        except FileNotFoundError:  # removed, with the queue or without
            return False
        except OSError:  # a mount in trouble: other hosts go by our silence
            return True
        return True

    def _publish(self, sent: float) -> None:
        """Allow claims until half the TTL after the beat was *sent* (I8)."""
        self.last_good_beat = sent
        self._record.beat = sent
        self._record.beats += 1
        self._record.claim_until = sent + self.format.ttl_seconds / 2

    def _drop_claims(self) -> None:
        """End claims under a lost lease: allow none, wait for the workers on its claims to die, take a new name."""
        self._record.claim_until = 0.0
        self._record.state = QueueState.FENCED
        self.joined.clear()
        send(self._context.keeper[1], LeaseLost(queue=self._index))
        while not self.leaving.is_set() and self._is_any_held():
            self.leaving.wait(_DROP_POLL_SECONDS)
        self._record.state = QueueState.ABSENT
        self._earlier_lease = self._lease_name
        self._lease_name = lease_name(self._context.host.label, self._system)

    def _is_any_held(self) -> bool:
        board = self._context.board
        return any(board.holds_under(slot, self._index) for slot in board.workers())

    def _holder(self) -> LeaseHolder:
        context = self._context
        return LeaseHolder(
            host=context.host.label,
            boot_id=context.host.boot_id,
            pid_namespace=context.host.pid_namespace,
            pid=context.supervisor,
            start_time=start_time(context.supervisor) or 0,
            keeper_pid=self._system.pid(),
            keeper_start_time=start_time(self._system.pid()) or 0,
        )

    def _log_failing(self, fault: StorageFault) -> None:
        if not self._beat_fails:
            self._beat_fails = True
            events.emit("beat.failed", queue=self.queue.name, error=str(fault))
