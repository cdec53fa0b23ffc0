"""A worker: offer → claim → read → handler → settle, one message at a time.

Its process begins in `run`.
"""

from __future__ import annotations

import errno
import gc
import os
import random
import signal
import time
from collections.abc import Callable
from typing import TypeVar

from maildefer import events
from maildefer.errors import (
    ClaimLost,
    EntryMalformed,
    EntryTooLarge,
    QueueError,
    ResourcesExhausted,
    StorageFault,
)
from maildefer.handling.application import Application
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.outcomes import ACKED, NO_ROUTE, Buried, Deferred, Outcome
from maildefer.host import working_directory
from maildefer.host.captured_output import CapturedOutput
from maildefer.host.linux import signal_stack
from maildefer.maildir.claims import Claim
from maildefer.message.request import received
from maildefer.pool.attempt_log import AttemptLog, tell_failure
from maildefer.pool.context import PoolContext
from maildefer.pool.messages import EntryDeferred, send
from maildefer.pool.scoreboard import Header, S, State
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.worker.conversation_locks import ConversationLocks
from maildefer.pool.worker.offers import Offers
from maildefer.pool.worker.queue_view import QueueView
from maildefer.pool.worker.settle import Settler

M = TypeVar("M")
T = TypeVar("T")

_UNREADABLE_SECONDS = 600.0  # what can't be read is tried after 2 s, 4 s, … and at last so
_HEARD = (signal.SIGTERM, signal.SIGCONT)
_IDLE, _BUSY = int(State.IDLE), int(State.BUSY)
_COUNTERS = {"acked": S.ACKED, "deferred": S.DEFERRED, "buried": S.BURIED, "handed_off": S.HANDED}


class Worker:
    """The receiver in a worker process."""

    def __init__(self, shared: PoolContext, slot: int, application: Application) -> None:
        settings = shared.settings
        self.output: CapturedOutput | None = None
        self._shared, self._words, self._base = shared, shared.board.words, shared.board.slot(slot)
        self._hand = ScoreboardSlot(shared.board, slot)
        self.directory = working_directory.WorkingDirectory()
        self._stopping = self._forked = False
        os.register_at_fork(after_in_child=self._note_fork)
        self._waker = self._catch_signals()
        self._offers = Offers([workers for _, workers in shared.offers], self._waker, shared.gate)
        self._queues = [
            QueueView(queue.name, queue.layout, index, shared.board, self._hand, shared.host.label)
            for index, queue in enumerate(shared.queues)
        ]
        home = None if shared.tokens_in is None else self._queues[shared.tokens_in]
        wanted = self._offers.is_any
        tokens = ConversationLocks(home, shared.board, slot, self._hand, wanted) if home is not None else None
        self._dispatchers: list[Dispatcher] = [
            application.dispatcher(queue.name, tokens=tokens, running=self._hand.running)
            for queue in shared.queues
        ]
        self._settler = Settler(
            policy=application.retry_policy(),
            layouts={queue.name: queue.layout for queue in shared.queues},
            host=shared.host.label,
            gone=lambda: self._stopping,
            deferred=self._tell_keeper,
        )
        self._log = AttemptLog(self._note_lines)
        self._limit_bytes = settings.max_bytes
        self._timeout_ns = int(settings.handler_timeout_seconds * 1e9) or 1 << 60
        share = settings.messages_per_worker * random.uniform(0.9, 1.1)
        self._left = max(1, round(share)) if share else -1
        signal_stack.enable(2 if shared.dumps is None else shared.dumps.open(slot))
        gc.collect()
        gc.freeze()

    def serve(self) -> None:
        """Take offers until told to stop, or until this worker's share is done."""
        while not self._stopping and self._left != 0:
            offer = None if self._words[Header.PAUSED] else self._offers.take()
            if offer is None:
                self._rest()
                continue
            self._words[self._base + S.STATE] = _BUSY
            queue = self._queues[offer[0]]
            for name in offer[1]:
                if self._stopping or self._left == 0 or queue.is_paused() or self._words[Header.PAUSED]:
                    break
                self._attempt(queue, name)
        self._log.flush()

    def _attempt(self, queue: QueueView, name: str) -> None:
        """One message: claim, read, handle, settle. Nothing that is wrong with it ends the worker."""
        if not queue.may_claim() or queue.is_aside(name):
            return
        self._words[self._base + S.QUEUE] = queue.index
        claim = None
        try:
            claim = queue.claimer.claim(name)
            if claim is None:
                return
            self._left -= 1
            request, outcome, handler = self._handle(queue, claim)
            self._settle(queue, claim, outcome, handler, request)
            queue.note_success()
        except ClaimLost as lost:
            self._note_lost(queue, lost)
        except (StorageFault, MemoryError) as fault:
            self._give_back(queue, name, claim, fault)

    def _handle(self, queue: QueueView, claim: Claim) -> tuple[object, Outcome, str]:
        """Read the message and run its handlers, these under the deadline; returns request, outcome, handlers."""
        try:
            data = claim.read(self._limit_bytes)
        except (EntryMalformed, EntryTooLarge) as fault:
            return None, Buried(str(fault), error=type(fault).__name__), ""
        request = received(data, claim.key, claim.attempt, queue.name, queue.name)
        outcome, handler = self._limited(self._dispatchers[queue.index].dispatch, request)
        return request, outcome, handler

    def _limited(self, handlers: Callable[[M], T], messages: M) -> T:
        """Run handlers with what they take, under the deadline."""
        words, base = self._words, self._base
        words[base + S.HANDLER_LENGTH] = 0
        words[base + S.BEGAN] = began = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        words[base + S.DEADLINE] = began + self._timeout_ns
        try:
            return handlers(messages)
        finally:  # also after a fault of the conversation's token
            if self._forked:  # a handler's own child came back from it: this is not the worker
                os._exit(0)
            words[base + S.DEADLINE] = 0
            if self.directory.movers and not self.directory.put_back():
                self._stopping = True  # the project's folder is gone

    def _settle(
        self, queue: QueueView, claim: Claim, outcome: Outcome, handler: str, message: object
    ) -> None:
        words, base = self._words, self._base
        if outcome is ACKED:
            try:
                claim.ack()
            except StorageFault:  # it has been handled: to give it back now would handle it again
                self._settler.persist(claim.ack)
            word = "acked"
            queue.note_acked()
        else:
            dispatcher = self._dispatchers[queue.index]
            word = self._settler.settle(claim, outcome, handler, message, dispatcher.buried)  # type: ignore[arg-type]
            if isinstance(outcome, Buried) and outcome.reason == NO_ROUTE:
                queue.note_unrouted()
        words[base + S.HANDLED] += 1
        counter = base + _COUNTERS.get(word, S.RELEASED)
        words[counter] += 1
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        if outcome is ACKED:
            self._log.add(queue.name, claim.key, handler, word, claim.attempt, now - claim.began, now)
        else:
            self._log_other(queue, claim, outcome, handler, word, now, message)

    def _log_other(
        self,
        queue: QueueView,
        claim: Claim,
        outcome: Outcome,
        handler: str,
        word: str,
        now: float,
        message: object,
    ) -> None:
        reason = getattr(outcome, "reason", None)
        if word == "deferred" and isinstance(outcome, Deferred) and outcome.error is not None:
            self._words[self._base + S.FAILED] += 1
        self._log.add(
            queue.name, claim.key, handler, word, claim.attempt, now - claim.began, now, reason=reason
        )
        tell_failure(outcome, message, handler, last=word == "buried")

    def _note_lost(self, queue: QueueView, lost: ClaimLost) -> None:
        self._words[self._base + S.LOST] += 1
        events.emit("claim.lost", queue=queue.name, name=lost.name)

    def _give_back(
        self, queue: QueueView, name: str, claim: Claim | None, fault: StorageFault | MemoryError
    ) -> None:
        """A fault that isn't the message's: back uncharged, by us or else by the audit.

        What could be claimed but not read waits in `.later/`, so that one bad file does not keep a queue busy.
        """
        if isinstance(fault, MemoryError):
            fault = ResourcesExhausted(queue.name, OSError(errno.ENOMEM, "no memory left"))
        queue.note_fault(fault, name)
        if isinstance(fault, ResourcesExhausted):  # a handler has leaked them: a fresh process has them again
            events.emit("worker.recycled", pid=os.getpid(), error=str(fault))
            self._stopping = True
        if claim is None:
            return
        self._words[self._base + S.RELEASED] += 1
        try:
            self._tell_keeper(
                claim, claim.postpone(min(2.0 ** (1 + claim.entry.returns / 2), _UNREADABLE_SECONDS))
            )
        except QueueError:
            claim.abandon()

    def _tell_keeper(self, claim: Claim, name: str) -> None:
        send(self._shared.deferrals[1], EntryDeferred(queue=self._words[self._base + S.QUEUE], name=name))

    def _rest(self) -> None:
        """Nothing to do: say so on the board, let the log lines go, and sleep until an offer or a signal."""
        self._log.flush()
        if self._words[self._base + S.STATE] != _IDLE:
            self._words[self._base + S.STATE] = _IDLE
        self._listen()
        if self._stopping:
            return
        self._offers.wait(paused=bool(self._words[Header.PAUSED]), seconds=self._patience_seconds())

    def _patience_seconds(self) -> float | None:
        """How long to sleep at most, where something is due without an offer: see `BatchWorker`."""
        return None

    def _catch_signals(self) -> int:
        """TERM is only noted; the waker ends a wait that it falls into. Everything else is the supervisor's."""
        reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the supervisor decides
        self._listen()
        return reader

    def _listen(self) -> None:
        """Also before each sleep, since handlers, and event loops that they run, may have taken signals over."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._note_stop)
        signal.signal(signal.SIGCONT, self._flush_lines)

    def _note_lines(self, since: float) -> None:
        self._words[self._base + S.LINES_SINCE] = int(since * 1e9)

    def _flush_lines(self, signum: int, frame: object) -> None:
        self._log.flush()
        if self.output is not None:
            self.output.drain(whole=False)

    def _note_stop(self, signum: int, frame: object) -> None:
        self._stopping = True

    def _note_fork(self) -> None:
        """In a handler's own child, which is not the worker: how it dies must not pass for the worker's death."""
        self._forked = True
        signal_stack.enable()
