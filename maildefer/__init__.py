"""maildefer: a distributed worker pool over a shared Maildir.

The names below are what most programs need; each is imported at its first use: `import maildefer` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maildefer.errors import MaildeferError as MaildeferError
    from maildefer.mail import MailRequest as MailRequest
    from maildefer.mail import MailResponse as MailResponse
    from maildefer.queue import Queue as Queue
    from maildefer.routing import (
        Defer as Defer,
    )
    from maildefer.routing import (
        Reject as Reject,
    )
    from maildefer.routing import (
        Router as Router,
    )
    from maildefer.routing import (
        route as route,
    )
    from maildefer.routing import (
        route_like as route_like,
    )
    from maildefer.routing import (
        stateless as stateless,
    )
    from maildefer.tasks import (
        task as task,
    )
    from maildefer.version import VERSION as __version__

_HOMES = {
    "Queue": "queue",
    "MailRequest": "mail",
    "MailResponse": "mail",
    "Router": "routing",
    "route": "routing",
    "route_like": "routing",
    "stateless": "routing",
    "Defer": "routing",
    "Reject": "routing",
    "task": "tasks",
    "MaildeferError": "errors",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from maildefer.version import VERSION

        return VERSION
    if name in _HOMES:
        return getattr(importlib.import_module(f"maildefer.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'maildefer' has no attribute {name!r}")
