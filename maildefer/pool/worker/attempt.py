"""One attempt at a claimed entry: read, handlers, outcome, settle, log line.

A pool's worker and a receiver make the same attempts; what differs between them is given as functions. A batch is many
attempts with one call of the handler: see `batch_group`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from maildefer import events
from maildefer.errors import ClaimLost, EntryMalformed, EntryTooLarge, QueueError, StorageFault
from maildefer.handling.outcomes import ACKED, Buried, Outcome, Postponed
from maildefer.handling.retry import given_up
from maildefer.maildir.claims import Claim
from maildefer.message.request import MailRequest, received
from maildefer.pool.attempt_log import AttemptLog, log_failure

if TYPE_CHECKING:
    from maildefer.handling.dispatch import Dispatcher
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
    limit_bytes: int = 64 << 20

    def make(self, claim: Claim, read: ReadMessage) -> bool:
        """Make one attempt; says whether it ended without a fault, and raises none."""
        try:
            message = read(claim)
            if message is None:
                return True
            if isinstance(message, Buried):
                self._settle(claim, None, message, "")
            elif claim.crashes and (worn_out := self.worn_out(claim, message)) is not None:
                self._settle(claim, message, worn_out, "")
            else:
                outcome, handler = self.run_handlers(self.dispatcher.dispatch, message, (claim,))
                self._settle(claim, message, outcome, handler)
        except (QueueError, MemoryError) as fault:
            self.end_in_fault(claim, fault)
            return False
        return True

    def worn_out(self, claim: Claim, message: MailRequest) -> Buried | None:
        """Why a message is given up whose workers died as often as its handlers' `@retry` lets them fail."""
        most, failures = self.dispatcher.most_failures(message), claim.entry.failed
        if most is None or failures < most:
            return None
        ended = given_up(max(claim.attempt - 1, failures), failures)  # crashes of other queues count, too
        last = "at last by" if failures > 1 else "by"
        return Buried(f"{ended}, {last} the death of the worker: @retry allows {most}", begun=False)

    def read(self, claim: Claim) -> MailRequest | Buried:
        """Read the message of a claim, for `make`. Raises ClaimLost, StorageFault's kinds."""
        data = read_or_bury(claim, self.limit_bytes)
        if isinstance(data, Buried):
            return data
        return received(data, claim.key, claim.attempt, self.queue, self.queue)

    def settle(self, claim: Claim, message: object, outcome: Outcome, handler: str) -> None:
        """End one attempt of a batch, whose handler has returned; raises no fault either."""
        try:
            self._settle(claim, message, outcome, handler)
        except (QueueError, MemoryError) as fault:
            self.end_in_fault(claim, fault)

    def _settle(self, claim: Claim, message: object, outcome: Outcome, handler: str) -> None:
        """Settle the claim as the outcome says, and log it. Raises ClaimLost, or a fault with the claim still held."""
        if outcome is ACKED:
            try:
                claim.ack()
            except StorageFault:  # it has been handled: if it were returned now, it would be handled again
                self.settler.persist(claim.ack)
            self.note_settled(claim, outcome, "acked")
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            self.log.add(self.queue, claim.key, handler, "acked", claim.attempt, now - claim.began, now)
            return
        word = self.settler.settle(claim, outcome, handler, message, self.dispatcher.buried)  # type: ignore[arg-type]
        self.note_settled(claim, outcome, word)
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        reason = getattr(outcome, "reason", None)
        if not (isinstance(outcome, Postponed) and outcome.limit and not outcome.tried):
            self.log.add(
                self.queue, claim.key, handler, word, claim.attempt, now - claim.began, now, reason=reason
            )
        log_failure(outcome, message, handler, last=word == "buried")

    def end_in_fault(self, claim: Claim, fault: QueueError | MemoryError) -> None:
        """End an attempt whose claim is lost, or that failed for a fault that is not the message's."""
        if isinstance(fault, ClaimLost):
            self.note_lost()
            events.emit("claim.lost", queue=self.queue, name=fault.name)
        else:
            self.return_claim(claim, fault)


def read_or_bury(claim: Claim, limit_bytes: int) -> bytes | Buried:
    """Read the entry's bytes; what is no message, or a message over the limit, is a dead letter.

    Raises ClaimLost, StorageFault's kinds.
    """
    try:
        return claim.read(limit_bytes)
    except (EntryMalformed, EntryTooLarge) as fault:
        return Buried(str(fault), error=type(fault).__name__)
