"""Messages that wait for one call of a `@batch` function: how many, how long, and who with whom."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from maildefer.maildir.system import boottime

if TYPE_CHECKING:
    from maildefer.handling.step import HandlerStep

C = TypeVar("C")
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
        """For messages with so many crashes; the function's linger begins now."""
        assert step.terms is not None
        limit, linger = step.terms
        return cls(step, company(limit, crashes, max_crashes), linger > 0, boottime() + linger)

    @property
    def waits_for_more(self) -> bool:
        return self.lingers and self.limit > 1

    def add(self, claim: C, size_bytes: int) -> None:
        self.claims.append(claim)
        self.size_bytes += size_bytes

    def is_full(self, limit_bytes: int) -> bool:
        return len(self.claims) >= self.limit or self.size_bytes >= limit_bytes


def company(limit: int, crashes: int, max_crashes: int) -> int:
    """How many messages with so many crashes go into one batch: fewer at each, and at last one.

    A batch that dies charges all its messages, whoever is to blame; so the innocent must be alone with time to spare
    before the crash limit buries. With the limit at 500 and five crashes allowed: 500, 63, 8, 1, 1.
    """
    alone = min(_ALONE_AFTER_CRASHES, max_crashes - 1)
    return 1 if crashes >= alone else math.ceil(limit ** (1 - crashes / alone))
