"""`ProcessLocks` of several processes of a host, which are one process here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class HostLocks:
    """The locks of a host, by number, with their holders."""

    held: dict[int, object] = field(default_factory=dict)

    def of(self, process: object) -> Any:
        return LocksOfProcess(self.held, process)

    def end(self, process: object) -> None:
        """The process ends, and holds none any more."""
        for number in [number for number, holder in self.held.items() if holder == process]:
            del self.held[number]


@dataclass(slots=True)
class LocksOfProcess:
    """What one process sees; implements `ProcessLocks`."""

    held: dict[int, object]
    process: object

    def try_lock(self, number: int) -> bool:
        return self.held.setdefault(number, self.process) == self.process

    def unlock(self, number: int) -> None:
        if self.held.get(number) == self.process:
            del self.held[number]
