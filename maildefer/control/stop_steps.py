"""The steps that `stop` reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from maildefer.control.local_processes import PidFileStatus

What = Literal[
    "signalled", "requested", "stopped", "removed", "killed", "skipped",  # as it should be
    "would-not-stop", "refused", "unverified", "no-keeper", "no-answer", "unusable",  # failed
]  # fmt: skip

FAILURES: Final[frozenset[What]] = frozenset(
    ("would-not-stop", "refused", "unverified", "no-keeper", "no-answer", "unusable")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopStep:
    """One thing that was done or found, as a line for the operator."""

    path: str
    what: What
    text: str
    pid: int | None = None
    host: str = ""

    @property
    def failed(self) -> bool:
        return self.what in FAILURES

    @classmethod
    def of(cls, item: PidFileStatus, what: What, text: str) -> StopStep:
        return cls(path=item.path, what=what, text=text, pid=item.process.pid, host=item.process.host)
