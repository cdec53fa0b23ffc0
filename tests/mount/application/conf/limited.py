"""One handler, limited by a key of two values: at a time, and in a period."""

from __future__ import annotations

from conf.settings import router_defaults as router_defaults
from conf.settings import workers as workers

queues = {"/mnt/nfs/queue": ["workers.limited"]}
