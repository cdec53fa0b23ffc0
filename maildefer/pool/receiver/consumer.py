"""Consuming a queue from any Python program, without a supervisor: under a lease that a small child process holds.

with Queue("run/posts").consumer() as consumer:
    for claim in consumer:
        handle(claim.message)
        claim.ack()
"""

from __future__ import annotations

import os
import subprocess
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol

from maildefer.errors import (
    ClaimLost,
    EntryMalformed,
    EntryTooLarge,
    QueueError,
    StorageFault,
    UnsafeMount,
    UseAfterFork,
)
from maildefer.handling.project.queue_paths import project_outboxes
from maildefer.host.linux.directory_watch import DirectoryWatch
from maildefer.host.linux.readiness import await_readable
from maildefer.maildir import scan
from maildefer.maildir.claims import Claim
from maildefer.maildir.layout import Layout
from maildefer.maildir.system import SYSTEM, boottime
from maildefer.message.request import MailRequest, received
from maildefer.pool import worker_deaths
from maildefer.pool.keeper.standalone import StandaloneKeeper
from maildefer.pool.messages import EntryDeferred, LeaveLeases, ReclaimSlots, send
from maildefer.pool.scoreboard import GATHERED_PLACES, PLACES, ProcessKind, QueueState, State
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.scoreboard_views import HeaderView, QueueRecordView, SlotView
from maildefer.pool.worker.claim_slots import GatheredSlots
from maildefer.pool.worker.queue_view import QueueView

JOIN_SECONDS = 60.0
LEAVE_SECONDS = 10.0
_POLL_SECONDS = 1.0
_SILENT_POLL_SECONDS = 0.1


class HasLayout(Protocol):
    """A `Queue`, for `handoff`."""

    @property
    def layout(self) -> Layout: ...


class ConsumedClaim(Claim):
    """A claim with its message. See `Claim` for settling it."""

    __slots__ = ("_consumer", "_data", "_message")

    _data: bytes
    _message: MailRequest
    _consumer: Consumer

    @property
    def data(self) -> bytes:
        """The entry's bytes, envelope block and all."""
        return self._data

    @property
    def message(self) -> MailRequest:
        """The message; each part of it is parsed when it is first asked for."""
        try:
            return self._message
        except AttributeError:  # the first look
            path = self._claimer.layout.path
            self._message = received(self._data, self.key, self.attempt, path, path)
            return self._message

    def defer(self, seconds: float, *, failed: bool = False) -> str:
        name = super().defer(seconds, failed=failed)
        self._consumer.report_deferred(name)
        return name

    def handoff(self, other: Layout | HasLayout, *, outputs: str = "") -> None:
        """Move the entry to another queue. Raises QueueMissing; OSError EXDEV for a queue on another filesystem."""
        super().handoff(other if isinstance(other, Layout) else other.layout, outputs=outputs)


class Consumer:
    """Claims of one queue under a lease of one's own; a context manager, and an iterator that blocks.

    Used by the process that made it only (UseAfterFork elsewhere). One thread claims; each claim may be settled in
    another one. Up to 32 claims may be held. At the end, those still held go back: after an exception each is
    charged as a crash, so that a message that breaks its program is buried one day.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        max_bytes: int = 64 << 20,
        max_crashes: int = 5,
        poll_seconds: float = _POLL_SECONDS,
        batches: bool = False,
    ) -> None:
        """With `batches`, a thousand claims may be in hand."""
        self._layout = layout
        self._max_bytes = max_bytes
        self._poll_seconds = poll_seconds
        self._keeper = StandaloneKeeper.prepare(layout.path, max_crashes=max_crashes)
        context = self._keeper.context
        self._pid = os.getpid()
        board = context.board
        HeaderView(board).used_slots = 1
        self._slot = SlotView(board, 0)
        self._slot.kind, self._slot.pid, self._slot.state = ProcessKind.WORKER, self._pid, State.BUSY
        self._slot.started = boottime()
        self._board = board
        self._record = QueueRecordView(board, 0)
        own = ScoreboardSlot(board, 0)
        self._gathered_slots = (
            GatheredSlots(board, 0, own, 0, GatheredSlots.all_places(board, 0)) if batches else None
        )
        self._view = QueueView(layout.path, layout, 0, board, self._gathered_slots or own, context.host.label)
        self._most_claims = GATHERED_PLACES if batches else PLACES
        self._view.claimer.kind = ConsumedClaim
        self._names: Iterator[str] = iter(())
        self._listing = scan.Listing(layout.new, lambda: bool(self._record.has_priorities), boottime)
        self._watch: DirectoryWatch | None = None
        self._closed = False
        _forget_in_children(self)

    def __enter__(self) -> Consumer:
        """Join the queue: returns once the lease is durable. Raises UnsafeMount, QueueError."""
        self._keeper.start()
        deadline, why = boottime() + JOIN_SECONDS, "no answer from the mount"
        while boottime() < deadline:
            if self._record.state == QueueState.SERVED:
                return self
            self._keeper.receive_messages()
            if self._keeper.refused:
                self._leave()
                raise UnsafeMount(self._keeper.refused)
            why = self._keeper.trouble or why
            if not self._keeper.is_running():
                break
            await_readable(self._keeper.context.keeper[0], 0.5)
        self._leave()
        raise QueueError(f"can't join {self._layout.path}: {why}", self._layout.path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Return the claims that are still held to the queue, leave the lease, and end the keeper."""
        if os.getpid() == self._pid:
            self.close(charged=kind is not None and issubclass(kind, Exception))

    def __iter__(self) -> Iterator[ConsumedClaim]:
        """Claims, for ever; blocks while there are none."""
        while not self._closed:
            if (claim := self.claim(None)) is not None:
                yield claim

    def claim(self, timeout_seconds: float | None = 0.0) -> ConsumedClaim | None:
        """The next claim; None when there is none within the time (None: wait for ever, 0: look once).

        Raises StorageFault's kinds when the mount refuses. A consumer that was fenced joins anew by itself.
        """
        self._must_be_usable()
        deadline = None if timeout_seconds is None else boottime() + timeout_seconds
        while not self._closed:
            if (claim := self._next()) is not None:
                return claim
            left = self._poll_seconds if deadline is None else min(deadline - boottime(), self._poll_seconds)
            if left <= 0:
                return None
            self._sleep(left)
        return None

    def close(self, *, charged: bool = False) -> None:
        """End: return the claims that are still held, and leave the lease. May be called twice."""
        if self._closed:
            return
        self._closed = True
        if charged and self._gathered_slots is not None:
            self._gathered_slots.mark_all_in_handler()
        if self._board.holds(0) and self._keeper.is_running():
            self._slot.state = State.DEAD_CHARGED if charged else State.DEAD_UNCHARGED
            if charged:
                worker_deaths.note_exception(self._board, 0)
            send(self._keeper.context.keeper[0], ReclaimSlots())
            deadline = boottime() + LEAVE_SECONDS
            while self._slot.kind and boottime() < deadline and self._keeper.is_running():
                await_readable(self._keeper.context.keeper[0], 0.1)
                self._keeper.receive_messages()
        self._leave()

    def report_deferred(self, name: str) -> None:
        """Have the keeper know of a due time at once, not at its next listing."""
        send(self._keeper.context.deferrals[1], EntryDeferred(queue=0, name=name))

    def _next(self) -> ConsumedClaim | None:
        """Claim an entry of the rest of the last listing, then of a new one; None if there is none."""
        if not self._view.may_claim():  # paused, as a rule: then a long listing is for nothing
            self._restart_keeper()
            return None
        try:
            for names in (self._names, self._listing.names()):
                self._names = names
                for name in names:
                    if (claim := self._claim_name(name)) is not None:
                        return claim
        except OSError as fault:  # of a listing
            scan.raise_unread(self._layout.new, fault)
        return None

    def _claim_name(self, name: str) -> ConsumedClaim | None:
        if not self._view.may_claim():
            self._restart_keeper()
            return None
        try:
            claim = self._view.claimer.claim(name)
        except IndexError:
            raise QueueError(
                f"{self._most_claims} claims are in hand: settle some before the next", self._layout.path
            ) from None
        if claim is None:
            return None
        assert isinstance(claim, ConsumedClaim)
        claim._consumer = self
        try:
            if claim.committed and project_outboxes().is_settled(claim):
                return None
            try:
                claim._data = claim.read(self._max_bytes)
                return claim
            except (EntryMalformed, EntryTooLarge) as fault:
                claim.bury(str(fault), error=type(fault).__name__)
        except ClaimLost:
            pass
        except StorageFault:
            claim.release()
            raise
        return None

    def _sleep(self, seconds: float) -> None:
        """Sleep until a local writer adds an entry, or for so many seconds."""
        if not self._view.may_claim():
            self._restart_keeper()
            SYSTEM.sleep(min(seconds, _SILENT_POLL_SECONDS))
            return
        if self._watch is None:
            self._watch = DirectoryWatch(self._layout.new)
        try:
            self._watch.wait(seconds)
        except OSError:  # the directory is away: the next listing tells
            SYSTEM.sleep(seconds)

    def _restart_keeper(self) -> None:
        """Start another keeper in the place of one that died; it continues the same lease."""
        self._keeper.receive_messages()
        if not self._keeper.is_running():
            self._keeper.start()

    def _must_be_usable(self) -> None:
        if os.getpid() != self._pid:
            raise UseAfterFork(
                "this consumer belongs to the parent process: make one here", self._layout.path
            )
        if self._closed:
            raise QueueError(f"this consumer of {self._layout.path} is closed", self._layout.path)

    def _leave(self) -> None:
        if self._watch is not None:
            self._watch.close()
        process = self._keeper.process
        if process is None:
            return
        send(self._keeper.context.keeper[0], LeaveLeases())
        try:
            process.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:  # the mount hangs, and the lease will be fenced
            process.kill()
            process.wait()
        for sock in (*self._keeper.context.keeper, *self._keeper.context.deferrals):
            sock.close()


def _forget_in_children(consumer: Consumer) -> None:
    """Forget the parent's claims in a forked child, which must not settle them."""
    claimer = weakref.ref(consumer)

    def note() -> None:
        if (parent := claimer()) is not None:
            parent._view.claimer.stale = True

    os.register_at_fork(after_in_child=note)
