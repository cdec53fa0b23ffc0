"""Async handlers beside others; one queue has nothing but a limited one."""

import os

from maildefer.handling.calls import event_loop

queues = {"run/queue": ["workers.front", "workers.talk"], "run/later": ["workers.back"]}
router_defaults = {"what": "[a-z]+", "argument": "[0-9.]*"}
concurrency = int(os.environ.get("ASYNC_CONCURRENCY", "100"))
event_loop.CANCEL_GRACE_SECONDS = 0.3  # type: ignore[misc]  # a test should not wait for five seconds
