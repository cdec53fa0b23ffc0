"""How often a process of a front end has refused something, for its status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from maildefer.intake.replies import Reply

_MOST_KINDS: Final = 40


class RefusalCounts:
    """How often a process has refused something, by kinds, of which there are no more than a few."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def count(self, kind: str) -> None:
        if kind not in self.counts and len(self.counts) >= _MOST_KINDS:
            kind = "other"
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def count_replies(self, sent: Sequence[Reply]) -> None:
        """Count those that are a 4yz or 5yz, by their enhanced status; a policy may have written any."""
        for reply in sent:
            if reply.code >= 400:
                self.count(reply.status or str(reply.code))
