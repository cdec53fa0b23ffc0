"""maildefer: a distributed worker pool over a shared Maildir.

The names below are what most programs need; each is imported at its first use, so that `import maildefer` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maildefer.errors import MaildeferError as MaildeferError
    from maildefer.mail import MailRequest as MailRequest, MailResponse as MailResponse
    from maildefer.queue import Queue as Queue
    from maildefer.routing import (
        Defer as Defer,
        Reject as Reject,
        Router as Router,
        route as route,
        route_like as route_like,
        stateless as stateless,
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
    "MaildeferError": "errors",
}
__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 - the names are strings


def __getattr__(name: str) -> object:
    if name == "__version__":
        from maildefer.version import VERSION

        return VERSION
    if name in _HOMES:
        return getattr(importlib.import_module(f"maildefer.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'maildefer' has no attribute {name!r}")
