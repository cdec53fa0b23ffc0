"""A handler that sends to another queue on the export, which is seen there when it has returned."""

from __future__ import annotations

from conf.settings import router_defaults as router_defaults
from conf.settings import workers as workers

queues = {"/mnt/nfs/queue": ["workers.sending"], "/mnt/nfs/out": ["workers.sent"]}
relay_config = {"queue": "/mnt/nfs/out"}
