"""Everything in one process, for tests: import it, then deliver messages through `Router`."""

from __future__ import annotations

from maildefer.routing import Router
from maildefer.utils import import_settings

settings = import_settings(boot_also=False)

Router.defaults(**settings.router_defaults)
Router.load(settings.handlers + settings.queue_handlers)
Router.RELOAD = False
Router.LOG_EXCEPTIONS = False
