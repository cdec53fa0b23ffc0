"""Loads in a template what every worker needs, also for its first message."""

from __future__ import annotations

import importlib
from typing import Final

from maildefer import logs
from maildefer.pool.probe import ProbeReport

# What handlers import of this package, what those modules import when a message is parsed, and the worker that gathers
# batches. By name: the pool does not depend on them, it only loads them once where each worker would load them itself.
_HANDLERS_IMPORT: Final = (
    "email.parser",
    "email.policy",
    "html",
    "json",
    "maildefer.mail",
    "maildefer.maildir.outbox.commit",
    "maildefer.maildir.outbox.outputs",
    "maildefer.maildir.outbox.publish",
    "maildefer.message.automatic",
    "maildefer.message.mime.canonical",
    "maildefer.message.mime.parser",
    "maildefer.message.outgoing.queued",
    "maildefer.message.outgoing.relay",
    "maildefer.message.outgoing.sent_message",
    "maildefer.message.response",
    "maildefer.pool.worker.batch_worker",
    "maildefer.queue",
    "maildefer.routing",
    "maildefer.utils",
    "maildefer.view",
)
_ASYNC_HANDLERS_NEED: Final = ("maildefer.pool.worker.in_flight.async_worker",)  # and asyncio
_LIMITS_NEED: Final = ("maildefer.pool.worker.limits.gate", "maildefer.pool.worker.limits.worker_limits")
_DELIVERY: Final = "maildefer.handlers.outgoing"
_DELIVERY_NEEDS: Final = (
    "concurrent.futures.thread",
    "encodings.idna",
    "maildefer.handling.outgoing.delivery",
    "maildefer.message.outgoing.kept_connections",
)


def load(report: ProbeReport) -> None:
    """Import the modules that workers of this application use."""
    logs.warm_up()
    names = list(_HANDLERS_IMPORT)
    names += _ASYNC_HANDLERS_NEED if any(route.is_async for route in report.routes) else ()
    names += _LIMITS_NEED if any(route.limits for route in report.routes) else ()
    names += (
        _DELIVERY_NEEDS if any(_DELIVERY in modules for modules in report.settings.queues.values()) else ()
    )
    for name in names:
        importlib.import_module(name)
