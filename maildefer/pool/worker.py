"""A worker: offer → claim → read → handler → settle, one message at a time.

It loads the application after the fork, so that what its handlers import is its own; the paths of a reload end here.
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

from maildefer import events, logs
from maildefer.errors import (
    ClaimLost,
    ConfigurationError,
    EntryMalformed,
    EntryTooLarge,
    QueueError,
    ResourcesExhausted,
    StorageFault,
)
from maildefer.handling import finding, queues
from maildefer.handling.application import Application
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.outcomes import ACKED, NO_ROUTE, Buried, Deferred, Outcome
from maildefer.host import stackdumps, working_directory
from maildefer.host.printed import Output
from maildefer.host.titles import set_title
from maildefer.maildir.claims import Claim
from maildefer.message.request import received
from maildefer.pool.attempts import AttemptLog, tell_failure
from maildefer.pool.board import Header, S, State
from maildefer.pool.conversing import Conversing
from maildefer.pool.hand import Hand
from maildefer.pool.messages import send
from maildefer.pool.offers import Offers
from maildefer.pool.serving import Serving
from maildefer.pool.settle import Settler
from maildefer.pool.shared import Shared

M = TypeVar("M")
T = TypeVar("T")

EXIT_APPLICATION_BROKEN = 78
_UNREADABLE_SECONDS = 600.0  # what can't be read is tried after 2 s, 4 s, … and at last so
_HEARD = (signal.SIGTERM, signal.SIGCONT)
_IDLE, _BUSY = int(State.IDLE), int(State.BUSY)
_COUNTERS = {"acked": S.ACKED, "deferred": S.DEFERRED, "buried": S.BURIED, "handed_off": S.HANDED}


def run(shared: Shared, slot: int, number: int, output: int = -1) -> int:
    """The life of a worker in its own process; returns the exit code. `output` is the file of what its code prints."""
    told = Output(output) if output >= 0 else None
    try:
        if told is not None:
            told.capture()
        queues.in_service = True
        os.environ[finding.PROJECT] = shared.project  # else it is looked for, also by children
        directory = working_directory.enter(shared.project)
        application = Application.load(shared.settings.module, probed=True)
        directory.put_back()  # if a module of the project has moved
    except (ConfigurationError, OSError) as fault:
        error = f"{shared.project}: {fault.strerror}" if isinstance(fault, OSError) else str(fault)
        events.emit("application.broken", error=error, pid=os.getpid())
        return EXIT_APPLICATION_BROKEN
    logs.adopt(events.current_level().upper(), application.log_processors)
    worker = _make(shared, slot, application)
    worker.output, worker.directory = told, directory
    set_title(f"worker {number} {' '.join(queue.name for queue in shared.queues)}")
    events.emit("worker.started", worker=number, pid=os.getpid())
    worker.serve()
    return 0


def _make(shared: Shared, slot: int, application: Application) -> Worker:
    if not any(application.has_batches(queue.name) for queue in shared.queues):
        return Worker(shared, slot, application)
    from maildefer.pool.batching import BatchingWorker  # it builds on this module, and few pools need it

    return BatchingWorker(shared, slot, application)


class Worker:
    """The receiver in a worker process."""

    def __init__(self, shared: Shared, slot: int, application: Application) -> None:
        settings = shared.settings
        self.output: Output | None = None
        self._shared, self._words, self._base = shared, shared.board.words, shared.board.slot(slot)
        self._hand = Hand(shared.board, slot)
        self.directory = working_directory.WorkingDirectory()
        self._stopping = self._forked = False
        os.register_at_fork(after_in_child=self._note_fork)
        self._waker = self._catch_signals()
        self._offers = Offers([workers for _, workers in shared.offers], self._waker, shared.gate)
        self._queues = [
            Serving(queue.name, queue.layout, index, shared.board, self._hand, shared.host.label)
            for index, queue in enumerate(shared.queues)
        ]
        home = None if shared.tokens_in is None else self._queues[shared.tokens_in]
        wanted = self._offers.is_any
        tokens = Conversing(home, shared.board, slot, self._hand, wanted) if home is not None else None
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
        stackdumps.enable(2 if shared.dumps is None else shared.dumps.open(slot))
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

    def _attempt(self, queue: Serving, name: str) -> None:
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

    def _handle(self, queue: Serving, claim: Claim) -> tuple[object, Outcome, str]:
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

    def _settle(self, queue: Serving, claim: Claim, outcome: Outcome, handler: str, message: object) -> None:
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
        queue: Serving,
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

    def _note_lost(self, queue: Serving, lost: ClaimLost) -> None:
        self._words[self._base + S.LOST] += 1
        events.emit("claim.lost", queue=queue.name, name=lost.name)

    def _give_back(
        self, queue: Serving, name: str, claim: Claim | None, fault: StorageFault | MemoryError
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
        send(self._shared.deferrals[1], queue=self._words[self._base + S.QUEUE], name=name)

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
        """How long to sleep at most, where something is due without an offer: see `BatchingWorker`."""
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
        stackdumps.enable()
