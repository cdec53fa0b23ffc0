"""One receiver, without a pool, for the work that can wait: `maildefer start --boot conf.queue --pid run/queue.pid`."""

from __future__ import annotations

from maildefer.routing import Router
from maildefer.server import QueueReceiver
from maildefer.utils import settings

settings.receiver = QueueReceiver(settings.queue_config["queue"], settings.queue_config["sleep"])

Router.defaults(**settings.router_defaults)
Router.load(settings.queue_handlers)
Router.RELOAD = True
