"""One handler, whose effect is to happen once."""

from __future__ import annotations

from conf.settings import router_defaults as router_defaults
from conf.settings import workers as workers

queues = {"/mnt/nfs/queue": ["workers.effects"]}
