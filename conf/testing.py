"""Everything in one process, for tests: import it, then deliver messages through `Router`."""

from __future__ import annotations

from typing import Any

import maildefer.testing  # noqa: F401  # from here on, no queue of the project is touched, and nothing is sent
from maildefer import view
from maildefer.routing import Router
from maildefer.server import Relay
from maildefer.utils import import_settings

settings: Any = import_settings(boot_also=False)
settings.relay = Relay(**settings.relay_config)
view.LOADER = view.configured_loader(settings.template_config)

Router.defaults(**settings.router_defaults)
# Each queue's handlers but those that deliver: what is sent stays in the tests' store.
modules = [module for modules in settings.queues.values() for module in modules]
Router.load([module for module in modules if module != "maildefer.handlers.outgoing"])
Router.RELOAD = False
Router.LOG_EXCEPTIONS = False
