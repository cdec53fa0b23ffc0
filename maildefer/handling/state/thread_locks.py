"""Conversation tokens among the threads of one process, in the order in which the threads ask for them.

For a process that runs alone. On several hosts, or beside a pool, the tokens of `maildefer.maildir.upkeep.tokens` are
needed.
"""

from __future__ import annotations

import threading
from typing import Final

WAIT_SECONDS: Final = 5.0


class ThreadLocks:
    """Lets one thread of the process at a time handle a conversation: `ConversationTokens` of the dispatcher."""

    def __init__(self, wait_seconds: float = WAIT_SECONDS) -> None:
        self._wait_seconds = wait_seconds
        # The thread that has the conversation, then those that wait.
        self._waiting: dict[str, list[object]] = {}
        self._released = threading.Condition()

    def take_token(self, conversation: str) -> bool:
        """Wait until the threads before have released the conversation; False if that takes too long."""
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
