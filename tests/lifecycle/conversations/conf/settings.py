"""Two queues whose handlers share conversations: both count for the sender."""

import os

from maildefer.pool.worker import conversation_locks
from maildefer.pool.worker.conversation_locks import ConversationLocks

queues = {"run/queue": ["workers.first"], "run/later": ["workers.second"]}
router_defaults = {"what": "[a-z]+", "argument": "[0-9.]*"}

if os.environ.get("WITHOUT_TOKENS"):  # to show what they are for

    def _take(self: ConversationLocks, conversation: str) -> bool:
        return True

    ConversationLocks.take_token = _take  # type: ignore[method-assign]

if patience := os.environ.get("PATIENCE"):  # in seconds, whatever else there is to do
    conversation_locks.WAIT_SECONDS = conversation_locks.IDLE_WAIT_SECONDS = float(patience)
