"""A worker: takes an offer, claims its entries, and has an attempt made at one message at a time."""

from __future__ import annotations

import errno
import gc
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from maildefer import events
from maildefer.errors import QueueError, ResourcesExhausted, StorageFault
from maildefer.handling.application import Application
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.limits.admission import ConversationTokens, LimitSlots
from maildefer.handling.outcomes import ACKED, NO_ROUTE, Buried, Deferred, Outcome, Postponed
from maildefer.host import working_directory
from maildefer.host.captured_output import CapturedOutput
from maildefer.host.linux import signal_stack
from maildefer.maildir.claims import Claim
from maildefer.pool.attempt_log import AttemptLog
from maildefer.pool.context import PoolContext
from maildefer.pool.messages import EntryDeferred, SlotReleased, send
from maildefer.pool.scoreboard import Header, SlotWord, State
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.worker.attempt import QueueAttempts, ReadMessage
from maildefer.pool.worker.conversation_locks import ConversationLocks
from maildefer.pool.worker.offers import Offers
from maildefer.pool.worker.queue_view import QueueView
from maildefer.pool.worker.settle import Settler

M = TypeVar("M")
T = TypeVar("T")

_SIGNALS = (signal.SIGTERM, signal.SIGCONT)
_IDLE, _BUSY = int(State.IDLE), int(State.BUSY)
_COUNTERS = {
    "acked": SlotWord.ACKED,
    "deferred": SlotWord.DEFERRED,
    "buried": SlotWord.BURIED,
    "handed_off": SlotWord.HANDED,
}


class Worker:
    """One worker of a pool, used in its own process, by its main thread.

    It may be made before the fork, in memory that is shared: until `begin_process`, it has nothing of any process.
    """

    def __init__(self, shared: PoolContext, slot: int, application: Application) -> None:
        settings = shared.settings
        self.output: CapturedOutput | None = None
        self._shared, self._words, self._base = shared, shared.board.words, shared.board.slot(slot)
        self._slot, self._slot_index = ScoreboardSlot(shared.board, slot), slot
        self.directory = working_directory.WorkingDirectory()
        self._stopping = self._forked = False
        ends = [workers for _, workers in shared.offers]
        self._offers = Offers(ends, shared.not_paused, self._note_invalid_offer)
        self._queues = [
            QueueView(queue.name, queue.layout, index, shared.board, self._slot, shared.host.label)
            for index, queue in enumerate(shared.queues)
        ]
        home = None if shared.tokens_in is None else self._queues[shared.tokens_in]
        is_wanted = self._offers.is_any
        locks = None if home is None else ConversationLocks(home, shared.board, slot, self._slot, is_wanted)
        tokens = self._tokens(locks)
        limits = self._make_limits(home, application)
        self._settler = Settler(
            policy=application.retry_policy(),
            layouts={queue.name: queue.layout for queue in shared.queues},
            host=shared.host.label,
            is_ending=lambda: self._stopping,
            deferred=self._report_deferred,
        )
        self._log = AttemptLog(self._note_lines)
        self._limit_bytes = settings.max_bytes
        self._attempts = [
            self._attempts_at(
                queue,
                application.dispatcher(queue.name, tokens=tokens, limits=limits, running=self._slot.running),
            )
            for queue in self._queues
        ]
        for index, attempts in enumerate(self._attempts):
            attempts.count = shared.attempt_counter(slot, index)
        self._timeout_ns = int(settings.handler_timeout_seconds * 1e9) or 1 << 60

    def begin_process(self) -> None:
        """Begin in the worker's own process. Called once, before `serve`."""
        os.register_at_fork(after_in_child=self._note_fork)
        self._waker = self._catch_signals()
        self._offers.begin_waiting(self._waker)
        share = self._shared.settings.messages_per_worker * random.uniform(0.9, 1.1)
        self._attempts_left = max(1, round(share)) if share else -1
        if (dumps := self._shared.dumps) is not None:
            signal_stack.dump_to(dumps.open(self._slot_index))
        gc.freeze()

    def serve(self) -> None:
        """Take offers until asked to end, or until this worker has handled its share of messages."""
        while not self._stopping and self._attempts_left != 0:
            offer = None if self._words[Header.PAUSED] else self._offers.take_offer()
            if offer is None:
                self._wait_for_offer()
                continue
            self._words[self._base + SlotWord.STATE] = _BUSY
            index, names = offer
            queue, read = self._queues[index], self._attempts[index].read
            for position, name in enumerate(names):
                if self._stopping or self._attempts_left == 0 or self._words[Header.PAUSED]:
                    break
                if queue.gate is not None and queue.gate.holds(names[position:]):
                    break
                self._attempt(queue, name, read)
            if queue.gate is not None:
                queue.gate.leave()
        self._log.flush()

    def _make_limits(self, home: QueueView | None, application: Application) -> LimitSlots | None:
        """Make what keeps the limits of handlers, and gates of queues, where there are any."""
        if home is None or not any(application.has_limits(queue.name) for queue in self._queues):
            return None
        from maildefer.pool.worker.limits.gate import LimitGate  # few pools need these
        from maildefer.pool.worker.limits.worker_limits import WorkerLimits

        limits = WorkerLimits(
            home,
            self._shared.board,
            self._slot_index,
            self._slot,
            self._report_released,
            lifetime_seconds=self._shared.settings.lifetime_seconds,
            places=self._shared.settings.concurrency,
        )
        for queue in self._queues:
            if uses := application.limits_before_claim(queue.name):
                hold = partial(self._offers.hold, queue.index)
                queue.gate = LimitGate(limits, uses, hold, queue.note_fault)
        return limits

    def _attempts_at(self, queue: QueueView, dispatcher: Dispatcher) -> QueueAttempts:
        return QueueAttempts(
            queue=queue.name,
            dispatcher=dispatcher,
            settler=self._settler,
            log=self._log,
            return_claim=partial(self._return_claim, queue),
            note_settled=partial(self._note_settled, queue),
            note_lost=self._note_lost,
            run_handlers=self._run_handlers,
            limit_bytes=self._limit_bytes,
        )

    def _attempt(self, queue: QueueView, name: str, read: ReadMessage) -> None:
        """Claim one entry and make an attempt at it. Nothing that is wrong with it ends the worker."""
        if not queue.may_claim() or (queue.set_aside and queue.is_set_aside(name)):
            return
        self._words[self._base + SlotWord.QUEUE] = queue.index
        try:
            claim = queue.claimer.claim(name)
        except (StorageFault, MemoryError) as fault:
            self._note_fault(queue, name, fault)
            return
        if claim is None:  # another worker was first
            return
        self._attempts_left -= 1
        self._attempts[queue.index].make(claim, read)

    def _run_handlers(self, handlers: Callable[[M], T], messages: M, claims: Sequence[Claim]) -> T:
        """Run handlers with a message or a batch, under the deadline."""
        words, base = self._words, self._base
        words[base + SlotWord.HANDLER_LENGTH] = 0
        words[base + SlotWord.BEGAN] = began = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        words[base + SlotWord.DEADLINE] = began + self._timeout_ns
        try:
            return handlers(messages)
        finally:  # also after a fault of the conversation's token
            if self._forked:  # a handler's own child, which has returned from the handler
                os._exit(0)
            words[base + SlotWord.DEADLINE] = 0
            if self.directory.movers and not self.directory.put_back():
                self._stopping = True  # the project's folder is gone

    def _note_settled(self, queue: QueueView, claim: Claim, outcome: Outcome, word: str) -> None:
        words, base = self._words, self._base
        if outcome is ACKED:
            queue.note_acked(claim.key)
        else:
            queue.note_settled(claim.key)
            if isinstance(outcome, Buried) and outcome.reason.startswith(NO_ROUTE):
                queue.note_unrouted()
            elif word == "deferred" and isinstance(outcome, Deferred) and outcome.error is not None:
                words[base + SlotWord.FAILED] += 1
        words[base + SlotWord.HANDLED] += 1
        words[base + _COUNTERS.get(word, SlotWord.RELEASED)] += 1

    def _note_lost(self) -> None:
        self._words[self._base + SlotWord.LOST] += 1

    def _return_claim(self, queue: QueueView, claim: Claim, fault: QueueError | MemoryError) -> None:
        """Return an entry uncharged after a fault that is not the message's; where that fails, the audit does it.

        What could be claimed but not read waits in `.later/`, so that one bad file does not keep a queue busy.
        """
        if not isinstance(fault, StorageFault | MemoryError):  # an error of ours: the worker ends
            raise fault
        self._note_fault(queue, claim.key, fault)
        self._words[self._base + SlotWord.RELEASED] += 1
        pause = queue.pause_after_fault(claim.key, claim.entry.returns)
        try:
            self._report_deferred(claim, claim.postpone(pause), None)
        except QueueError:
            claim.abandon()

    def _note_fault(self, queue: QueueView, name: str, fault: StorageFault | MemoryError) -> None:
        """Tell the queue of a fault; the worker ends where it is out of memory or of descriptors."""
        if isinstance(fault, MemoryError):
            fault = ResourcesExhausted(queue.name, OSError(errno.ENOMEM, "no memory left"))
        queue.note_fault(fault, name)
        if isinstance(fault, ResourcesExhausted):  # a handler has leaked them: another process has them again
            events.emit("worker.recycled", pid=os.getpid(), error=str(fault))
            self._stopping = True

    def _note_invalid_offer(self) -> None:
        """Show the supervisor that the scout is to be replaced."""
        self._words[Header.INVALID_OFFERS] = 1

    def _report_deferred(self, claim: Claim, name: str, postponed: Postponed | None) -> None:
        queue = self._words[self._base + SlotWord.QUEUE]
        limit, turn_ms = (postponed.limit, int(postponed.turn * 1000)) if postponed else (0, 0)
        send(self._shared.deferrals[1], EntryDeferred(queue=queue, name=name, limit=limit, turn_ms=turn_ms))

    def _report_released(self, limit: int) -> None:
        queue = self._words[self._base + SlotWord.QUEUE]
        send(self._shared.deferrals[1], SlotReleased(queue=queue, limit=limit))

    def _wait_for_offer(self) -> None:
        """Write the log lines, show on the scoreboard that the worker is idle, and sleep until an offer or a signal."""
        self._log.flush()
        if self._words[self._base + SlotWord.STATE] != (state := self._state_while_waiting()):
            self._words[self._base + SlotWord.STATE] = state
        self._handle_signals()
        if self._stopping:
            return
        self._sleep(paused=bool(self._words[Header.PAUSED]), seconds=self._wait_limit_seconds())

    def _sleep(self, *, paused: bool, seconds: float | None) -> None:
        self._offers.wait(paused=paused, seconds=seconds)

    def _tokens(self, conversations: ConversationLocks | None) -> ConversationTokens | None:
        """What the dispatchers take tokens from."""
        return conversations

    def _state_while_waiting(self) -> int:
        return _IDLE

    def _wait_limit_seconds(self) -> float | None:
        """How long to sleep at most; None for any time."""
        return None

    def _catch_signals(self) -> int:
        """Install the handlers of signals; returns a descriptor that ends a wait when a signal comes.

        TERM is only noted; all other decisions are the supervisor's.
        """
        reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the supervisor decides
        self._handle_signals()
        return reader

    def _handle_signals(self) -> None:
        """Install them before each sleep too: handlers, and event loops that they run, may have installed their own."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._note_stop)
        signal.signal(signal.SIGCONT, self._flush_lines)

    def _note_lines(self, since: float) -> None:
        self._words[self._base + SlotWord.LINES_SINCE] = int(since * 1e9)

    def _flush_lines(self, signum: int, frame: object) -> None:
        self._log.flush()
        if self.output is not None:
            self.output.drain(whole=False)

    def _note_stop(self, signum: int, frame: object) -> None:
        self._stopping = True

    def _note_fork(self) -> None:
        """Forget the worker in a child that a handler has forked: its death must not be taken for the worker's."""
        self._forked = True
        signal_stack.enable()
