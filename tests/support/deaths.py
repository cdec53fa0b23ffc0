"""The death of a process at any of its system calls: kill -9, as far as a `System` shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from maildefer.maildir.system import System
from tests.support.queues import TRACKED


class Death(BaseException):
    """What no code of a process outlives."""


class Mortal:
    """A system on which, from one call on, nothing is carried out, what a `finally` asks for neither."""

    def __init__(
        self, system: System, step: int, *, before: bool, die: Callable[[], object] | None = None
    ) -> None:
        self.count = 0
        self._die = die or _raise
        self._step, self._before = step, before
        self.system = replace(system, **{what: self._wrapped(getattr(system, what)) for what in TRACKED})

    def _wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.count += 1
            if self.count > self._step + (not self._before):
                self._die()
            told = real(*arguments, **named)
            if self.count == self._step + 1:
                self._die()
            return told

        return call


def _raise() -> None:
    raise Death
