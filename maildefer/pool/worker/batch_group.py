"""Messages that wait for one call of a `@batch` function: how many, for how long, which together; and that call."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from maildefer.errors import QueueError
from maildefer.handling.outcomes import Deferred, Outcome
from maildefer.maildir.system import boottime
from maildefer.pool.worker.attempt import QueueAttempts
from maildefer.pool.worker.bisect import bisect

if TYPE_CHECKING:
    from maildefer.handling.step import HandlerStep

C = TypeVar("C")  # a claim with its `message`
_ALONE_AFTER_CRASHES = 3


@dataclass(slots=True)
class BatchGroup(Generic[C]):
    """Messages for one call of a `@batch` function."""

    step: HandlerStep
    limit: int
    lingers: bool
    due: float  # on the boot clock
    claims: list[C] = field(default_factory=list)
    size_bytes: int = 0

    @classmethod
    def begin(cls, step: HandlerStep, crashes: int, max_crashes: int) -> Self:
        """Begin a group for messages with so many crashes; the function's linger begins now."""
        assert step.terms is not None
        limit, linger = step.terms
        return cls(step, batch_size(limit, crashes, max_crashes), linger > 0, boottime() + linger)

    @property
    def waits_for_more(self) -> bool:
        return self.lingers and self.limit > 1

    def add(self, claim: C, size_bytes: int) -> None:
        self.claims.append(claim)
        self.size_bytes += size_bytes

    def is_full(self, limit_bytes: int) -> bool:
        return len(self.claims) >= self.limit or self.size_bytes >= limit_bytes

    def attempt(self, attempts: QueueAttempts, may_go_on: Callable[[], bool] = lambda: True) -> None:
        """Call the function, and settle each message by itself; raises no fault.

        `may_go_on` says whether there is time to find the messages on which the function fails.
        """
        handler = partial(attempts.dispatcher.dispatch_batch, self.step)

        def call(claims: list[Any]) -> list[Outcome] | Deferred:
            return attempts.run_handlers(handler, [claim.message for claim in claims], claims)

        waiting: list[Any] = self.claims
        for claims, outcomes in bisect(waiting, call, may_go_on):
            for claim, outcome in zip(claims, outcomes, strict=True):
                attempts.settle(claim, claim.message, outcome, self.step.name)

    def release(self) -> int:
        """Release all its claims; returns how many were. What cannot be released, the audit returns."""
        released = 0
        waiting: list[Any] = self.claims
        for claim in waiting:
            try:
                claim.release()
                released += 1
            except QueueError:  # lost, or the filesystem refuses
                claim.abandon()
        return released


def batch_size(limit: int, crashes: int, max_crashes: int) -> int:
    """The most messages with so many crashes in one batch: fewer after each crash, and at last one.

    A worker that dies in a batch charges all its messages, whichever was the cause; so a sound one must be handled
    alone before the crash limit buries it. With a limit of 500 messages and five crashes allowed: 500, 63, 8, 1, 1.
    """
    alone = min(_ALONE_AFTER_CRASHES, max_crashes - 1)
    return 1 if crashes >= alone else math.ceil(limit ** (1 - crashes / alone))
