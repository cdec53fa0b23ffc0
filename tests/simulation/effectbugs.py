"""Planted bugs of effects: each function gets what is there and returns what is to stand in its place."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from maildefer.maildir import doubt


def ended_by_anybody(old: Any) -> Any:
    """Whoever is at the end of its block ends what is begun, also by another."""

    def end(self: Any) -> bool:
        with suppress(OSError):
            self._begun = self._latest() or self._begun
        return bool(old(self))

    return end


def interrupted_as_done(old: Any) -> Any:
    def begin(self: Any) -> str:
        state = old(self)
        return "done" if state == "interrupted" else str(state)

    return begin


def interrupted_as_new(old: Any) -> Any:
    def begin(self: Any) -> str:
        state = old(self)
        return "new" if state == "interrupted" else str(state)

    return begin


def moved_in_doubt(old: Any) -> Any:
    """A doubtful reply taken for a good one."""

    def is_moved(self: Any, before: str, state: str) -> bool:
        try:
            return bool(old(self, before, state))
        except OSError as fault:
            if fault.errno not in doubt.DOUBTFUL:
                raise
            return True

    return is_moved
