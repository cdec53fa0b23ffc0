"""From a handler's outcome to what happens to its claim; a settle that the filesystem refuses is tried again."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, assert_never

from maildefer import events
from maildefer.backoff import backoff_seconds
from maildefer.errors import (
    ClaimLost,
    ConfigurationError,
    MountMissing,
    NoSpace,
    PermissionRefused,
    QueueError,
    QueueMissing,
    QuotaExceeded,
    ReadOnly,
    StorageFault,
)
from maildefer.handling import undeliverable
from maildefer.handling.outcomes import Acked, Buried, Deferred, HandedOff, Outcome, Postponed
from maildefer.handling.project.queue_paths import queue_at
from maildefer.handling.retry import RetryPolicy, given_up
from maildefer.maildir.claims import Claim
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import HANDED_ON, MAX_HANDOFFS, pushed_at
from maildefer.maildir.system import boottime
from maildefer.pool.worker import cross_device

if TYPE_CHECKING:
    from maildefer.maildir.outbox.outputs import Outputs
    from maildefer.message.notices.config import Action

T = TypeVar("T")
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0
_REFUSALS: Final = (PermissionRefused, ReadOnly, NoSpace, QuotaExceeded)  # after which nothing is in doubt
_REFUSED_TRIES, _REFUSED_SECONDS = 6, 30.0


class Burial(Protocol):
    """Called when a message is given up, so that its conversation can show it: `Dispatcher.buried`."""

    def __call__(self, message: object, outcome: Outcome, /) -> None: ...


KeepMessage = Callable[[object, str, Mapping[str, object]], bool]
"""Called with a message that is to be buried, the reason and further facts; True when it has kept the message."""


@dataclass(slots=True)
class Settler:
    """Settles claims as outcomes say; one for each process. `is_ending` says when no settle is tried again."""

    policy: RetryPolicy
    layouts: Mapping[str, Layout]  # by the queue's path as the settings name it
    host: str
    is_ending: Callable[[], bool] = lambda: False
    random: Callable[[], float] = random.random
    deferred: Callable[[Claim, str, Postponed | None], None] = lambda claim, name, postponed: (
        None
    )  # called with each deferred name, and its outcome where it was postponed
    keep: KeepMessage = lambda message, reason, facts: False
    open_queue: Callable[[str], Layout] = queue_at  # makes a queue of the settings where there is none yet
    _opened: dict[str, Layout] = field(default_factory=dict)
    _refusing: dict[str, float] = field(default_factory=dict)  # other queues, by path: until when

    def settle(
        self,
        claim: Claim,
        outcome: Outcome,
        handler: str,
        message: object,
        buried: Burial,
        outputs: Outputs | None = None,
    ) -> str:
        """Settle the claim; returns what happened in a word: acked, deferred, buried, handed_off, postponed.

        A handoff commits the outputs; where it turns out to be none, they are discarded.
        Raises ClaimLost; StorageFault only once `is_ending()`, with the claim still held.
        """
        match outcome:
            case Acked():
                self.persist(claim.ack)
                return "acked"
            case Deferred():
                return self._defer(claim, outcome, handler, message, buried)
            case Buried():
                buried(message, outcome)
                self._bury(
                    claim,
                    message,
                    outcome.reason,
                    handler,
                    outcome.error,
                    outcome.detail,
                    begun=outcome.begun,
                    told=None if outcome.fault is None else outcome.reason,
                    fault=outcome.fault,
                )
                return "buried"
            case HandedOff():
                return self._hand_off(claim, message, outcome, handler, buried, outputs)
            case Postponed():
                words = outcome.reason if outcome.tried else None
                self._report_delay(claim, message, words, self.policy.lifetime_seconds)
                name = self.persist(lambda: claim.postpone(outcome.seconds))
                self.deferred(claim, name, outcome)
                return "postponed"
            case _:
                assert_never(outcome)

    def _defer(self, claim: Claim, outcome: Deferred, handler: str, message: object, buried: Burial) -> str:
        failed = outcome.error is not None
        failures = claim.entry.failed + failed
        now, pushed = claim.mount_time(), pushed_at(claim.key)
        age = 0.0 if pushed is None else max(0.0, now - pushed)
        policy = self.policy.under(outcome.retry)
        seconds = policy.delay(outcome, claim.attempt, failures, age, self.random, now)
        if seconds is None:
            buried(message, outcome)
            reason = f"{given_up(claim.attempt, failures if failed else None)}: {outcome.reason}"
            told = None if failed else reason
            self._bury(
                claim, message, reason, handler, outcome.error, outcome.detail, failed=failed, told=told
            )
            return "buried"
        is_by_backoff = outcome.after_seconds is None and outcome.at is None
        lifetime = policy.lifetime_seconds if is_by_backoff else None
        self._report_delay(claim, message, None if failed else outcome.reason, lifetime)
        name = self.persist(lambda: claim.defer(seconds, failed=failed))
        self.deferred(claim, name, None)
        return "deferred"

    def _bury(
        self,
        claim: Claim,
        message: object,
        reason: str,
        handler: str,
        error: str | None,
        detail: str | None,
        *,
        failed: bool = False,
        begun: bool = True,
        told: str | None = None,
        fault: BaseException | None = None,
    ) -> None:
        """Bury the entry, after a report to its sender, who is `told` the reason if it is meant for others."""
        facts = {"handler": handler, "error": error, "traceback": detail}
        if undeliverable.report is not None:
            self.persist(partial(undeliverable.report, claim, message, "failed", told, fault, None))
        if self.keep(message, reason, facts):
            self.persist(claim.ack)
            return
        self.persist(lambda: claim.bury(reason, failed=failed, begun=begun, **facts))

    def report_success(self, claim: Claim, message: object) -> None:
        """Report that a message is done, if its sender asks for that, and nobody does it who has the message now.

        The message may be away already, so a report that can't be pushed keeps it from nothing. Raises ClaimLost.
        """
        came = getattr(message, "came_with", None)
        if undeliverable.report is None or came is None or "SUCCESS" not in came.dsn or came.is_passed_on:
            return
        action: Action = "delivered" if came.relayed is None else "relayed"
        with suppress(StorageFault):
            self.persist(partial(undeliverable.report, claim, message, action, None, came.relayed, None))

    def _report_delay(
        self, claim: Claim, message: object, words: str | None, lifetime_seconds: float | None
    ) -> None:
        """Report that a message is late, if its sender asks for that. Raises ClaimLost."""
        came = getattr(message, "came_with", None)
        if undeliverable.report is not None and came is not None and "DELAY" in came.dsn:
            with suppress(StorageFault):  # the next attempt does it
                undeliverable.report(claim, message, "delayed", words, None, lifetime_seconds)

    def _hand_off(
        self,
        claim: Claim,
        message: object,
        outcome: HandedOff,
        handler: str,
        buried: Burial,
        outputs: Outputs | None,
    ) -> str:
        target = f"{outcome.module}.{outcome.function}"
        if claim.entry.handoffs >= MAX_HANDOFFS:
            reason = f"handed on {MAX_HANDOFFS} times, and now to {target}: a loop"
            _discard(outputs)
            self._bury(claim, message, reason, handler, None, None)
            return "buried"
        try:
            other = self._layout(outcome.queue or "")
            move, is_given_up = partial(self._move, claim, other, outputs), partial(self._is_refusing, other)
            try:
                self.persist(move, is_given_up)
            except QueueMissing:  # removed since it was opened
                self.persist(lambda: self.open_queue(other.path))
                self.persist(move, is_given_up)
        except ClaimLost:
            raise
        except (QueueError, ConfigurationError) as fault:
            if isinstance(fault, StorageFault) and (self.is_ending() or not isinstance(fault, _REFUSALS)):
                raise
            _discard(outputs)
            # A place that can be no queue is a failure; one that takes nothing, or is away, is none of the message's.
            error = (
                None if isinstance(fault, StorageFault | MountMissing) else f"{type(fault).__name__}: {fault}"
            )
            later = Deferred(f"can't be handed on to {target}: {fault}", error=error)
            return self._defer(claim, later, handler, message, buried)
        return "handed_off"

    def _is_refusing(self, other: Layout, fault: StorageFault, faults: int) -> bool:
        """Whether a queue has refused for so long, or another message a moment ago, that workers do not wait for it."""
        if not isinstance(fault, _REFUSALS):
            return False
        now = boottime()
        if faults + 1 >= _REFUSED_TRIES:
            self._refusing[other.path] = now + _REFUSED_SECONDS
        return now < self._refusing.get(other.path, 0.0)

    def _move(self, claim: Claim, other: Layout, outputs: Outputs | None) -> None:
        committed = ""
        if outputs:
            outputs.is_sent, committed = True, outputs.token + HANDED_ON
        try:
            claim.handoff(other, outputs=committed)
        except OSError as fault:
            if fault.errno != errno.EXDEV:
                raise
            # Another filesystem: a copy, then the ack.
            cross_device.hand_off_copy(claim, other, host=self.host, outputs=outputs)

    def _layout(self, queue: str) -> Layout:
        layout = self.layouts.get(queue) or self._opened.get(queue)
        if layout is None:
            layout = self._opened[queue] = self.persist(lambda: self.open_queue(queue))
        return layout

    def persist(
        self, settle: Callable[[], T], is_given_up: Callable[[StorageFault, int], bool] = lambda *_: False
    ) -> T:
        """Try a settle until the filesystem does it; meanwhile the claim is held, and no other worker has the entry.

        `is_given_up` is asked after each fault, with the number of those before it.
        """
        faults = 0
        while True:
            try:
                return settle()
            except StorageFault as fault:
                if not fault.temporary or self.is_ending() or is_given_up(fault, faults):
                    raise
                if not faults:
                    events.emit("settle.delayed", error=str(fault))
                time.sleep(
                    backoff_seconds(
                        faults, first_seconds=_FIRST_PAUSE_SECONDS, longest_seconds=_LONGEST_PAUSE_SECONDS
                    )
                )
                faults += 1


def _discard(outputs: Outputs | None) -> None:
    if outputs is not None:
        outputs.discard()
