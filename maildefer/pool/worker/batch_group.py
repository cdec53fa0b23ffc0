"""Messages that wait for one call of a `@batch` function: how many, for how long, which together; and that call."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from maildefer.handling.outcomes import Deferred, Outcome
from maildefer.maildir.system import boottime
from maildefer.pool.worker.attempt import QueueAttempts
from maildefer.pool.worker.bisect import bisect
from maildefer.pool.worker.claim_slots import release_all

if TYPE_CHECKING:
    from maildefer.handling.calls.step import HandlerStep

C = TypeVar("C")  # a claim with its `message`
_ALONE_AFTER_CRASHES = 3


@dataclass(slots=True)
class BatchGroup(Generic[C]):
    """Messages for calls of a `@batch` function: for one, or for several while another call must end first."""

    step: HandlerStep
    limit: int
    linger_seconds: float
    claims: list[C] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    size_bytes: int = 0  # of all
    began: list[float] = field(default_factory=list)  # on the boot clock
    first: float = 0.0  # of these, which need not be in order: claims are passed on
    retry_at: float = 0.0  # when to ask again whether another call has ended

    @classmethod
    def begin(cls, step: HandlerStep, crashes: int, max_crashes: int) -> Self:
        """Begin a group for messages with so many crashes."""
        assert step.terms is not None
        return cls(step, batch_size(step.terms.limit, crashes, max_crashes), step.terms.linger_seconds)

    @property
    def lingers(self) -> bool:
        return self.linger_seconds > 0

    @property
    def waits_for_more(self) -> bool:
        return self.lingers and self.limit > 1

    @property
    def due(self) -> float:
        """When the first message has waited for the function's linger."""
        return self.first + self.linger_seconds

    def add(self, claim: C, size_bytes: int, since: float = 0.0) -> None:
        """Add a claim that waits since then, or from now on."""
        began = since or boottime()
        self.first = min(self.first, began) if self.claims else began
        self.claims.append(claim)
        self.sizes.append(size_bytes)
        self.size_bytes += size_bytes
        self.began.append(began)

    def is_full(self, limit_bytes: int) -> bool:
        return len(self.claims) >= self.limit or self.size_bytes >= limit_bytes

    def look_at(self, limit_bytes: int) -> float:
        """When to look at it next: once it is due or full, but not before another call may have ended."""
        return max(self.retry_at, 0.0 if self.is_full(limit_bytes) else self.due)

    def take(self, limit_bytes: int) -> Self:
        """Take out the messages of one call, the first to come; the others wait on."""
        count = size = 0
        for size_bytes in self.sizes[: self.limit]:
            size += size_bytes
            count += 1
            if size >= limit_bytes:
                break
        taken = replace(self, claims=self.claims[:count], sizes=self.sizes[:count], began=self.began[:count])
        self.forget(count)
        return taken

    def forget(self, count: int) -> None:
        """Forget its first claims, which are another worker's now."""
        self.size_bytes -= sum(self.sizes[:count])
        for waiting in (self.claims, self.sizes, self.began):
            del waiting[:count]
        self.first = min(self.began, default=0.0)

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
        waiting: list[Any] = self.claims
        return release_all(waiting)


def batch_size(limit: int, crashes: int, max_crashes: int) -> int:
    """The most messages with so many crashes in one batch: fewer after each crash, and at last one.

    A worker that dies in a batch charges all its messages, whichever was the cause; so a sound one must be handled
    alone before the crash limit buries it. With a limit of 500 messages and five crashes allowed: 500, 63, 8, 1, 1.
    """
    alone = min(_ALONE_AFTER_CRASHES, max_crashes - 1)
    return 1 if crashes >= alone else math.ceil(limit ** (1 - crashes / alone))
