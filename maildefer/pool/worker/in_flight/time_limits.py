"""The time limits of calls in flight, by a clock that stands still outside of the loop.

Within a turn, the scoreboard has the time at which the first of them will have been over its limit for too long: it is
cancelled at its limit, and a worker in which one goes on all the same, or does not let the loop go on, is ended as any.
"""

from __future__ import annotations

import heapq
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final, Generic, Protocol, TypeVar

from maildefer.handling.calls.event_loop import CANCEL_GRACE_SECONDS
from maildefer.maildir.system import boottime
from maildefer.pool.scoreboard import Scoreboard, SlotWord


class LimitedCall(Protocol):
    """A call with a time limit: `due` by the clock here, `math.inf` for never."""

    due: float

    def may_be_cancelled(self) -> bool:
        """Whether it is in what can be cancelled."""

    def cancel(self) -> None: ...


_TELL_SECONDS: Final = 1.0

C = TypeVar("C", bound=LimitedCall)


class TimeLimits(Generic[C]):
    """The limits of one worker's calls; `is_inside` says whether the loop runs, by a turn."""

    def __init__(self, loop: Callable[[], AbstractEventLoop], board: Scoreboard, slot: int) -> None:
        self._loop, self._words, base = loop, board.words, board.slot(slot)
        self._deadline, self._turned = base + SlotWord.DEADLINE, base + SlotWord.TURNED
        self.overdue: list[C] = []  # cancelled, and still there
        # A heap; of a call, only the entry with its present `due` holds.
        self._due: list[tuple[float, int, C]] = []
        self._numbers = count()
        self._timer: TimerHandle | None = None
        self.is_inside, self._left_at, self._outside_seconds = False, boottime(), 0.0

    @property
    def seconds_outside(self) -> float:
        """For how long no turn was made."""
        return boottime() - self._left_at

    def now(self) -> float:
        """The time by the clock that stands still outside of the loop."""
        return (boottime() if self.is_inside else self._left_at) - self._outside_seconds

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Leave the loop for a look at the mount, from a step."""
        if not self.is_inside:
            yield
            return
        self.leave()
        try:
            yield
        finally:
            self.enter()

    def enter(self) -> None:
        now = boottime()
        self._outside_seconds += now - self._left_at
        self.is_inside = True
        self._words[self._turned] = int(now * 1e9)
        self._set_deadline()

    def leave(self) -> None:
        self._words[self._deadline] = self._words[self._turned] = 0
        self.is_inside, self._left_at = False, boottime()

    def keep_telling(self) -> None:
        """Say each second that the loop goes on; `status` shows where it does not, as no deadline does for hours."""
        if self.is_inside:
            self._words[self._turned] = int(boottime() * 1e9)
        self._loop().call_later(_TELL_SECONDS, self.keep_telling)

    def begin(self, call: C, seconds: float) -> None:
        """Have the call cancelled in so many seconds, and no longer when it was to be before."""
        call.due = self.now() + seconds
        heapq.heappush(self._due, (call.due, next(self._numbers), call))
        if self._due[0][2] is call:
            self._await_first()

    def forget_overdue(self, call: C) -> None:
        if call in self.overdue:
            self.overdue.remove(call)

    def _set_deadline(self) -> None:
        if not self.is_inside:  # a handler of its own may have one
            return
        first = self.overdue[0] if self.overdue else self._first_due()
        until = 0.0 if first is None else first.due + CANCEL_GRACE_SECONDS + self._outside_seconds
        self._words[self._deadline] = int(until * 1e9)

    def _first_due(self) -> C | None:
        while self._due and self._due[0][0] != self._due[0][2].due:
            heapq.heappop(self._due)
        return self._due[0][2] if self._due else None

    def _await_first(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if (first := self._first_due()) is not None:
            self._timer = self._loop().call_later(first.due - self.now(), self._cancel_overdue)
        self._set_deadline()

    def _cancel_overdue(self) -> None:
        now = self.now()
        try:
            while (call := self._first_due()) is not None and call.due <= now:
                heapq.heappop(self._due)
                if call.may_be_cancelled():
                    self.overdue.append(call)
                    call.cancel()  # asyncio may fail at it, where tasks wait for each other in a circle
        finally:
            self._await_first()
