"""Everything in one process, for tests: import it, then deliver messages through `Router`."""

from __future__ import annotations

from conf import settings
from maildefer.routing import Router

Router.defaults(**settings.router_defaults)
Router.load(settings.handlers + settings.queue_handlers)
Router.RELOAD = False
Router.LOG_EXCEPTIONS = False
