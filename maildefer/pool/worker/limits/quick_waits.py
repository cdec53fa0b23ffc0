"""Waits for what is free again in a moment, as a slot of quick handlers is: shorter than to postpone a message."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Final, TypeVar

from maildefer.handling.limits.limit import LimitUse
from maildefer.maildir.system import System

LOOK_SECONDS: Final = 0.005
_QUICK_SECONDS: Final = 0.1  # what handlers take that are waited for, and for how long they are
_SHARE: Final = 4  # a worker may wait for a fifth of its time
_GUESS_SECONDS: Final = 1.0  # that a handler takes, before it has run here
_MOST_KNOWN: Final = 1000

T = TypeVar("T")
Pauses = Generator[float, None, T]  # yields how many seconds to sleep before it goes on


class QuickWaits:
    """Those of one worker."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._mean_seconds: dict[str, float] = {}  # that handlers took here, by limit
        self._may_wait_at = 0.0

    def note_seconds(self, limit: str, seconds: float) -> None:
        """Note for how long a slot was held."""
        if len(self._mean_seconds) >= _MOST_KNOWN:
            self._mean_seconds.clear()
        mean = self._mean_seconds.get(limit, seconds)
        self._mean_seconds[limit] = mean + (seconds - mean) / 4

    def wait_for(self, use: LimitUse, take: Callable[[], T], *, may_wait: bool) -> Pauses[T]:
        """Call `take` until it returns what is true, or there was no use in waiting."""
        began, waited = self._system.boottime(), 0.0
        guess = 0.0 if use.limit.closes else _GUESS_SECONDS
        is_quick = self._mean_seconds.get(use.name, guess) < _QUICK_SECONDS
        may_wait = may_wait and is_quick and began >= self._may_wait_at
        while not (taken := take()) and may_wait and waited < _QUICK_SECONDS:
            yield LOOK_SECONDS
            waited = self._system.boottime() - began
        if waited and not use.limit.closes:  # for that, the worker does nothing else
            self._may_wait_at = began + (1 + _SHARE) * waited
        return taken
