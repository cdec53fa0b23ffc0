"""One attempt at a claimed entry: read, handlers, outcome, settle, log line.

A pool's worker and a receiver make the same attempts; what differs between them is given as functions. A batch is many
attempts with one call of the handler: see `batch_group`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from maildefer import events, log_context
from maildefer.errors import ClaimLost, EntryMalformed, EntryTooLarge, QueueError, QueueMissing, StorageFault
from maildefer.handling import undeliverable
from maildefer.handling.limits.admission import FAULT_SECONDS
from maildefer.handling.outcomes import ACKED, Buried, Deferred, HandedOff, Outcome, Postponed
from maildefer.handling.project.queue_paths import keeps_outputs, project_outboxes
from maildefer.handling.retry import given_up
from maildefer.maildir.claims import Claim
from maildefer.maildir.journal import Journal, journal_of
from maildefer.maildir.system import boottime
from maildefer.message.envelope import stem_of
from maildefer.message.request import MailRequest, received
from maildefer.pool.attempt_log import AttemptLog, attempted, log_failure, sent

if TYPE_CHECKING:
    from maildefer.handling.dispatch import Dispatcher
    from maildefer.maildir.outbox.outputs import Outputs
    from maildefer.maildir.outbox.publish import Outboxes
    from maildefer.pool.counts.memory import CountAttempt
    from maildefer.pool.worker.settle import Settler

M = TypeVar("M")
T = TypeVar("T")


ReadMessage = Callable[[Any], MailRequest | Buried | None]
"""Returns a claim's message, or why its entry is a dead letter, or None where no handler gets it now."""


class RunHandlers(Protocol):
    """Calls handlers with a message or with a batch; `claims` are those of the messages."""

    def __call__(self, handlers: Callable[[M], T], messages: M, claims: Sequence[Any], /) -> T: ...


def _call(handlers: Callable[[M], T], messages: M, claims: Sequence[Any]) -> T:
    return handlers(messages)


@dataclass(slots=True, kw_only=True)
class QueueAttempts:
    """The attempts of one process at the entries of one queue. Several threads may call where `log` allows it."""

    queue: str
    dispatcher: Dispatcher
    settler: Settler
    log: AttemptLog
    return_claim: Callable[[Any, QueueError | MemoryError], object]
    """Called for a fault that is not the message's: puts the entry back, or has it put back."""
    note_settled: Callable[[Any, Outcome, str], object]
    """Told each claim, its outcome, and what happened to it, in `Settler.settle`'s word."""
    note_lost: Callable[[], object] = lambda: None
    """Told that a claim was lost."""
    run_handlers: RunHandlers = _call
    count: CountAttempt | None = None
    """Counts the attempt for the metrics, where there are any."""
    limit_bytes: int = 64 << 20
    keeps_outputs: bool = field(default_factory=keeps_outputs)
    outboxes: Callable[[], Outboxes] = field(default_factory=lambda: cache(project_outboxes))

    def __post_init__(self) -> None:
        if self.keeps_outputs:
            log_context.isolate()  # what tells a handler's pushes from others is in its context

    def make(self, claim: Claim, read: ReadMessage) -> bool:
        """Make one attempt; says whether it ended without a fault, and raises none."""
        outputs = None
        try:
            if claim.committed and self._is_finished(claim):
                return True
            message = read(claim)
            if message is None:
                return True
            if isinstance(message, Buried):
                self._settle(claim, None, message, "")
            elif claim.crashes and (worn_out := self.worn_out(claim, message)) is not None:
                self._settle(claim, message, worn_out, "")
            else:
                handlers = self.dispatcher.dispatch
                if self.keeps_outputs and (outputs := self.begin_outputs(claim)) is not None:
                    handlers = outputs.around(handlers)
                outcome, handler = self.run_handlers(handlers, message, (claim,))
                self._settle(claim, message, outcome, handler, outputs)
        except (QueueError, MemoryError) as fault:
            self.end_in_fault(claim, fault, outputs)
            return False
        return True

    def begin_outputs(self, claim: Claim) -> Outputs | None:
        """Begin what collects the pushes of a message's handlers; None where these push at once."""
        return self.outboxes().begin(claim) if self.keeps_outputs else None

    def worn_out(self, claim: Claim, message: MailRequest) -> Buried | None:
        """Why a message is given up whose workers died as often as its handlers' `@retry` lets them fail."""
        most, failures = self.dispatcher.most_failures(message), claim.entry.failed
        if most is None or failures < most:
            return None
        ended = given_up(max(claim.attempt - 1, failures), failures)  # crashes of other queues count, too
        last = "at last by" if failures > 1 else "by"
        return Buried(f"{ended}, {last} the death of the worker: @retry allows {most}", begun=False)

    def read(self, claim: Claim) -> MailRequest | Buried | None:
        """Read the message of a claim, for `make`. Raises ClaimLost, StorageFault's kinds."""
        try:
            data = claim.read(self.limit_bytes)
        except (EntryMalformed, EntryTooLarge) as fault:
            return Buried(str(fault), error=type(fault).__name__)
        message = received(data, claim.key, claim.attempt, self.queue, self.queue)
        return message if message.Data is not data else self.read_moved(claim, data, message)

    def read_moved(self, claim: Claim, data: bytes, message: MailRequest) -> MailRequest | Buried | None:
        """The message of bytes that begin with no block of their entry: it may be a dead letter that was moved."""
        if stem_of(data) is None or (layout := self.settler.layouts.get(self.queue)) is None:
            return message
        from maildefer.pool.worker import moved_letter  # rare

        return moved_letter.read(claim, layout, data, message)

    @property
    def journal(self) -> Journal | None:
        """The queue's journal, if it is kept."""
        layout = self.settler.layouts.get(self.queue)
        return None if layout is None else journal_of(layout)

    def settle(
        self, claim: Claim, message: object, outcome: Outcome, handler: str, outputs: Outputs | None = None
    ) -> None:
        """End an attempt in flight, or of a batch, whose handler has returned; raises no fault either."""
        try:
            self._settle(claim, message, outcome, handler, outputs)
        except (QueueError, MemoryError) as fault:
            self.end_in_fault(claim, fault, outputs)

    def _settle(
        self, claim: Claim, message: object, outcome: Outcome, handler: str, outputs: Outputs | None = None
    ) -> None:
        """Settle the claim as the outcome says, and log it. Raises ClaimLost, or a fault with the claim still held."""
        is_plain = (
            outcome is ACKED and claim.attempt == 1 and not self.dispatcher.keeps
        )  # whose end says it all
        if handler and not is_plain and (journal := self.journal) is not None:
            journal.record_note(
                claim.key, attempted(outcome, handler, claim.attempt, boottime() - claim.began)
            )
        if outcome is ACKED and undeliverable.report is not None:
            self.settler.report_success(claim, message)
        if outputs:
            outcome = self._with_outputs(claim, outcome, outputs)
        if outcome is ACKED:
            seconds = self._keep_seconds(claim, handler) if self.dispatcher.keeps or not handler else 0.0
            named = handler if is_plain else ""
            try:
                claim.ack(keep_seconds=seconds, handler=named)
            except StorageFault:  # it has been handled: if it were returned now, it would be handled again
                self.settler.persist(partial(claim.ack, keep_seconds=seconds, handler=named))
            self.note_settled(claim, outcome, "acked")
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            self.log.add(self.queue, claim.key, handler, "acked", claim.attempt, now - claim.began, now)
            if self.count is not None:
                self.count(handler, outcome, "acked", now - claim.began, claim.key)
            return
        word = self.settler.settle(claim, outcome, handler, message, self.dispatcher.buried, outputs)  # type: ignore[arg-type]
        self.note_settled(claim, outcome, word)
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        reason = getattr(outcome, "reason", None)
        if not (isinstance(outcome, Postponed) and outcome.limit and not outcome.tried):
            self.log.add(
                self.queue, claim.key, handler, word, claim.attempt, now - claim.began, now, reason=reason
            )
            if self.count is not None:
                self.count(handler, outcome, word, now - claim.began, claim.key)
        log_failure(outcome, message, handler, last=word == "buried")

    def _keep_seconds(self, claim: Claim, handlers: str) -> float:
        """For how long the message is kept. Without handlers, as after their worker's death, by those that match."""
        if not handlers and self.dispatcher.may_keep:
            message = self.read(claim)
            return self.dispatcher.keep_seconds_of(message) if isinstance(message, MailRequest) else 0.0
        return max(self.dispatcher.keeps.get(name, 0.0) for name in handlers.split(","))

    def _with_outputs(self, claim: Claim, outcome: Outcome, outputs: Outputs) -> Outcome:
        """Commit and publish what the handlers have sent, or discard it, as the outcome says; returns the new outcome.

        A handoff commits by itself.
        """
        if not (outcome is ACKED or isinstance(outcome, HandedOff)):
            outputs.discard()
            return outcome
        if (journal := self.journal) is not None:
            journal.record_note(claim.key, sent(outputs.keys()))
        try:
            outputs.sync()
        except StorageFault as fault:  # it is no failure of the message's, but an attempt
            outputs.discard()
            return Deferred(f"what its handlers have sent can't be made durable: {fault}")
        if outcome is ACKED:
            self.settler.persist(partial(outputs.commit, claim))
            return _published(outputs.publish)
        return outcome

    def _is_finished(self, claim: Claim) -> bool:
        """Publish what an attempt before has committed; whether the handlers of this queue are done, too."""
        outcome = _published(partial(self.outboxes().finish, claim))
        if outcome is ACKED and not claim.committed:  # handed on to this queue
            return False
        self._settle(claim, None, outcome, "")
        return True

    def end_in_fault(
        self, claim: Claim, fault: QueueError | MemoryError, outputs: Outputs | None = None
    ) -> None:
        """End an attempt whose claim is lost, or that failed for a fault that is not the message's."""
        if outputs is not None:
            outputs.discard()
        if isinstance(fault, ClaimLost):
            self.note_lost()
            events.emit("claim.lost", queue=self.queue, name=fault.name)
        else:
            self.return_claim(claim, fault)


def _published(publish: Callable[[], object]) -> Outcome:
    """Publish what is committed; where a queue does not take it, the claim is put off, and this is done again."""
    try:
        publish()
    except (StorageFault, QueueMissing) as fault:
        return Postponed(FAULT_SECONDS, f"what its handlers have sent can't be put into its queue: {fault}")
    return ACKED
