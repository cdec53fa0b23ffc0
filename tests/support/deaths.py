"""The death of a process at any of its system calls: kill -9, as far as a `System` shows it."""

from __future__ import annotations

import os
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
        self._descriptors: set[int] = set()
        self._die = die or _raise
        self._step, self._before = step, before
        self.system = replace(
            system, **{what: self._wrapped(what, getattr(system, what)) for what in TRACKED}
        )

    def _wrapped(self, what: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.count += 1
            if self.count > self._step + (not self._before):
                self._end()
            told = real(*arguments, **named)
            if what == "open":
                self._descriptors.add(told)
            elif what == "close":
                self._descriptors.discard(arguments[0])
            if self.count == self._step + 1:
                self._end()
            return told

        return call

    def _end(self) -> None:
        """Die; the kernel closes what the process had open."""
        while self._descriptors:
            os.close(self._descriptors.pop())
        self._die()


def _raise() -> None:
    raise Death
