"""A queue that is emptied, and one that is full and paused, both named by the benchmark."""

import os

queues = {os.environ["WATCHED_QUEUE"]: ["workers.noop"], os.environ["WATCHED_FULL"]: ["workers.noop"]}
router_defaults = {"host": ".+"}
health_config = {"socket": "health.sock"}
messages_per_worker = 0
