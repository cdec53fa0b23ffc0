"""The same, with a periodic task."""

from __future__ import annotations

from conf.settings import queues as _queues
from conf.settings import router_defaults as router_defaults
from conf.settings import workers as workers

queues = {queue: [*modules, "workers.ticking"] for queue, modules in _queues.items()}
