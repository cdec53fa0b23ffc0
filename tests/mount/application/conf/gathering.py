"""A batch in the place of the usual handler; since the queue has others too, workers pass on what they claim."""

from __future__ import annotations

from conf.settings import router_defaults as router_defaults
from conf.settings import workers as workers

queues = {"/mnt/nfs/queue": ["workers.gathered", "workers.figure"]}
