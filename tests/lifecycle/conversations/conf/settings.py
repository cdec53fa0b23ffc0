"""Two queues whose handlers share conversations: both count for the sender."""

import os

from maildefer.pool import conversing
from maildefer.pool.conversing import Conversing

queues = {"run/queue": ["workers.first"], "run/later": ["workers.second"]}
router_defaults = {"what": "[a-z]+", "argument": "[0-9.]*"}

if os.environ.get("WITHOUT_TOKENS"):  # to show what they are for

    def _take(self: Conversing, conversation: str) -> bool:
        return True

    Conversing.take = _take  # type: ignore[method-assign]

if patience := os.environ.get("PATIENCE"):  # in seconds, whatever else there is to do
    conversing.PATIENCE_SECONDS = conversing.IDLE_PATIENCE_SECONDS = float(patience)
