"""Names that could not be moved: each is tried again by itself, after a pause that grows, and holds up no other."""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Final

from maildefer.backoff import Backoff
from maildefer.maildir.system import SYSTEM, System

MOST: Final = 10_000  # that are remembered
IN_A_ROW: Final = 1000  # so many, and it is not they: what they should go to, or lie in, is at fault


@dataclass(slots=True)
class _FailedMove:
    error: str
    backoff: Backoff = field(default_factory=Backoff)


class FailedMoves:
    """Those of one chore; one thread only."""

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
        """It was refused again; beyond so many, one that is not remembered is tried whenever it is listed."""
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
        """It was moved, or is gone."""
        if self._refused:
            self._refused.pop(name, None)

    def keep(self, names: Container[str]) -> None:
        """Forget all but those that a listing shows."""
        if self._refused:
            self._refused = {name: one for name, one in self._refused.items() if name in names}

    def names(self) -> list[str]:
        return list(self._refused)

    def due(self) -> list[str]:
        """Those whose pause is over, in the order in which they were first refused."""
        return [name for name in self._refused if self.may_try(name)]

    def next_at(self) -> float:
        """When the first pause is over, on the boot clock."""
        return min((one.backoff.not_before for one in self._refused.values()), default=math.inf)

    def unreported(self) -> list[tuple[str, str]]:
        """Name and error of those that were refused for the first time, or otherwise, since the last call."""
        unreported, self._unreported = self._unreported, []
        return unreported

    def first(self) -> str:
        """The first of them with its error, for people; empty without any."""
        return next((f"{name}: {one.error}" for name, one in self._refused.items()), "")
