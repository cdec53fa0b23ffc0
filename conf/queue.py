"""One receiver, without a pool, for the work that can wait: `maildefer start --boot conf.queue --pid run/queue.pid`."""

from __future__ import annotations

from maildefer.routing import Router
from maildefer.server import QueueReceiver, Relay
from maildefer.utils import settings

settings.relay = Relay(**settings.relay_config)  # for handlers that send; a pool makes it by itself
settings.receiver = QueueReceiver(settings.queue_config["queue"], settings.queue_config["sleep"])

Router.defaults(**settings.router_defaults)
Router.load(settings.queue_handlers)
Router.RELOAD = True
