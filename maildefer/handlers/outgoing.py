"""Deliver what is in the outgoing queue, by the setting `outgoing_config`: a module for that queue in the settings.

Each entry goes to its recipient by SMTP or LMTP. What a server takes is done, what it refuses for now comes again, and
what it refuses for good is a dead letter with the server's words. See `docs/outgoing.md`.
"""

from __future__ import annotations

import asyncio

from maildefer.handling import handler_marks
from maildefer.handling.outgoing import delivery_count
from maildefer.handling.outgoing.destinations import destinations_of
from maildefer.handling.project.settings import loaded_settings, plain_settings
from maildefer.handling.retry import RetryPolicy
from maildefer.mail import MailRequest
from maildefer.message.outgoing import mx
from maildefer.routing import Defer, route, stateless

_SETTINGS = loaded_settings()
DESTINATIONS = destinations_of(_SETTINGS)
mx.configured_name = DESTINATIONS.hostname
_POLICY = RetryPolicy(
    **{
        name: value
        for name, value in ({} if _SETTINGS is None else plain_settings(_SETTINGS)).items()
        if name == "lifetime_seconds"
    }
)


@route("(recipient)", recipient=".*")
@stateless
async def START(message: MailRequest, recipient: str | None = None) -> None:
    from maildefer.handling.outgoing.delivery import Delivery  # 10 MB: only for a process that sends
    from maildefer.handling.outgoing.failure import DeliveryFailed

    destination, came_of, words = DESTINATIONS.of(message.To), "deferred", ""
    try:
        delivery = Delivery(message, destination, _POLICY)
        try:
            await asyncio.to_thread(delivery.send)
        except asyncio.CancelledError:
            delivery.abort()
            raise
        came_of = "sent"
    except Defer as fault:
        words = fault.reason
        raise
    except DeliveryFailed as failure:
        came_of = "expired" if failure.is_expired else "refused"
        raise
    finally:
        if delivery_count.count is not None:
            delivery_count.count(destination.name, came_of, words)


handler_marks.mark_policy(START, handler_marks.LIMITS, DESTINATIONS.limits())
