"""Conversation tokens among the threads of one process: who finds one taken waits, since there is nobody else to ask.

For a process that runs alone. On several hosts, or beside a pool, the tokens of `maildefer.maildir.tokens` are needed.
"""

from __future__ import annotations

import threading
from typing import Final

PATIENCE_SECONDS: Final = 5.0


class Turns:
    """One thread of the process at a time in each conversation; implements the dispatcher's `Tokens`."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        self._taken: set[str] = set()
        self._given_back = threading.Condition()

    def take(self, conversation: str) -> bool:
        """Wait for the conversation's end in the other thread; False if that takes too long."""
        with self._given_back:
            if not self._given_back.wait_for(lambda: conversation not in self._taken, self._patience_seconds):
                return False
            self._taken.add(conversation)
            return True

    def give_back(self, conversation: str) -> None:
        with self._given_back:
            self._taken.discard(conversation)
            self._given_back.notify_all()
