"""Conversation tokens among the threads of one process: who finds one taken waits, and who came first is first.

For a process that runs alone. On several hosts, or beside a pool, the tokens of `maildefer.maildir.upkeep.tokens` are
needed.
"""

from __future__ import annotations

import threading
from typing import Final

PATIENCE_SECONDS: Final = 5.0


class ThreadLocks:
    """One thread of the process at a time in each conversation; implements the dispatcher's `ConversationTokens`."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        self._lines: dict[str, list[object]] = {}  # who has the conversation, and who waits for it
        self._given_back = threading.Condition()

    def take(self, conversation: str) -> bool:
        """Wait for the conversation's end in the threads that came before; False if that takes too long."""
        turn = object()
        with self._given_back:
            line = self._lines.setdefault(conversation, [])
            line.append(turn)
            if self._given_back.wait_for(lambda: line[0] is turn, self._patience_seconds):
                return True
            line.remove(turn)
            return False

    def give_back(self, conversation: str) -> None:
        with self._given_back:
            line = self._lines[conversation]
            del line[0]
            if not line:
                del self._lines[conversation]
            self._given_back.notify_all()
