"""Entries that could not be moved: each is tried again by itself, after a growing pause, and delays no other."""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Final

from maildefer.backoff import Backoff
from maildefer.maildir.system import SYSTEM, System

MOST: Final = 10_000  # so many are remembered
IN_A_ROW: Final = (
    1000  # after so many failures in a row the fault is the folder's, not that of single entries
)


@dataclass(slots=True)
class _FailedMove:
    error: str
    backoff: Backoff = field(default_factory=Backoff)


class FailedMoves:
    """The failed moves of one chore; one thread only."""

    def __init__(self, *, system: System = SYSTEM) -> None:
        self._system = system
        self._refused: dict[str, _FailedMove] = {}
        self._unreported: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return len(self._refused)

    def __contains__(self, name: str) -> bool:
        return name in self._refused

    def may_try(self, name: str) -> bool:
        """Whether it was never refused, or its pause is over."""
        refusal = self._refused.get(name)
        return refusal is None or refusal.backoff.not_before <= self._system.boottime()

    def note(self, name: str, fault: Exception) -> None:
        """Note a failure; beyond `MOST`, an entry is not remembered, and is tried whenever it is listed."""
        error = getattr(fault, "strerror", None) or str(fault)
        refusal = self._refused.get(name)
        if refusal is None:
            if len(self._refused) >= MOST:
                return
            refusal = self._refused[name] = _FailedMove("")
        if refusal.error != error:
            refusal.error = error
            self._unreported.append((name, error))
        refusal.backoff.note_failure(self._system.boottime())

    def forget(self, name: str) -> None:
        """Forget an entry that was moved, or is gone."""
        if self._refused:
            self._refused.pop(name, None)

    def keep(self, names: Container[str]) -> None:
        """Forget all entries except those that a listing shows."""
        if self._refused:
            self._refused = {name: one for name, one in self._refused.items() if name in names}

    def names(self) -> list[str]:
        return list(self._refused)

    def due(self) -> list[str]:
        """Return the entries whose pause is over, in the order in which they first failed."""
        return [name for name in self._refused if self.may_try(name)]

    def next_at(self) -> float:
        """When the first pause is over, on the boot clock."""
        return min((one.backoff.not_before for one in self._refused.values()), default=math.inf)

    def unreported(self) -> list[tuple[str, str]]:
        """Return name and error of those that failed for the first time, or in another way, since the last call."""
        unreported, self._unreported = self._unreported, []
        return unreported

    def first(self) -> str:
        """Return the first entry with its error, for people; empty if there is none."""
        return next((f"{name}: {one.error}" for name, one in self._refused.items()), "")
