"""Log every message: a handler module for `Router.load` or the settings."""

from __future__ import annotations

import logging

from maildefer.mail import MailRequest
from maildefer.routing import route, stateless

LOG = logging.getLogger("maildefer.handlers")


@route("(to)@(host)", to=".+", host=".+")
@stateless
def START(message: MailRequest, to: str | None = None, host: str | None = None) -> None:
    LOG.info("message to %s@%s from %s, subject %r", to, host, message.From, message["Subject"])
