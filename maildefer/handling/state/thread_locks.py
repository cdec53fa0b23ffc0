"""Conversation tokens among the threads of one process: who finds one taken waits, and who came first is first.

For a process that runs alone. On several hosts, or beside a pool, the tokens of `maildefer.maildir.upkeep.tokens` are
needed.
"""

from __future__ import annotations

import threading
from typing import Final

WAIT_SECONDS: Final = 5.0


class ThreadLocks:
    """One thread of the process at a time in each conversation; implements the dispatcher's `ConversationTokens`."""

    def __init__(self, wait_seconds: float = WAIT_SECONDS) -> None:
        self._wait_seconds = wait_seconds
        self._waiting: dict[str, list[object]] = {}  # who has the conversation, and who waits for it
        self._released = threading.Condition()

    def take_token(self, conversation: str) -> bool:
        """Wait for the conversation's end in the threads that came before; False if that takes too long."""
        turn = object()
        with self._released:
            waiting = self._waiting.setdefault(conversation, [])
            waiting.append(turn)
            if self._released.wait_for(lambda: waiting[0] is turn, self._wait_seconds):
                return True
            waiting.remove(turn)
            return False

    def release_token(self, conversation: str) -> None:
        with self._released:
            waiting = self._waiting[conversation]
            del waiting[0]
            if not waiting:
                del self._waiting[conversation]
            self._released.notify_all()
