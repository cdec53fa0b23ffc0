"""Planted bugs of the loss journal, and of pushes of several entries."""

from __future__ import annotations

from typing import Any


def end_after_unlink(old: Any) -> Any:
    """An end that is recorded once it has happened."""

    def ack(self: Any, **more: Any) -> None:
        claimer = self._claimer
        journal, claimer.journal = claimer.journal, None
        try:
            old(self, **more)
        finally:
            claimer.journal = journal
        if journal is not None:
            journal.record_end("ack", self.key, handoffs=self.entry.handoffs)

    return ack


def files_unsynced(old: Any) -> Any:
    return lambda descriptors, system: [None] * len(descriptors)


def keys_of_others(old: Any) -> Any:
    return lambda self, composes: old(self, composes)[::-1]


def first_fault_only(old: Any) -> Any:
    """Whatever was refused of several, none is told but the first."""

    def push_all(self: Any, composes: Any) -> Any:
        results = old(self, composes)
        return results if isinstance(results[0], Exception) else [_key_of(one) for one in results]

    def _key_of(result: Any) -> str:
        return result if isinstance(result, str) else "1700000000.M000000P1Q0R0123456789abcdef.x-000000,S=1"

    return push_all
