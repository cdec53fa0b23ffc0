"""Keep every message in `run/queue`: a handler module for `Router.load` or the settings.

What comes out of `run/queue` itself, which a pool here works off, is kept in `run/log`, or it would go round for ever.
"""

from __future__ import annotations

from typing import Final

from maildefer.handling.queues import kept_apart, located
from maildefer.mail import MailRequest
from maildefer.maildir.layout import create_queue
from maildefer.queue import Queue
from maildefer.routing import route, stateless

KEPT_IN: Final = "run/queue"
ELSE_IN: Final = "run/log"


@route("(to)@(host)", to=".+", host=".+")
@stateless
def START(message: MailRequest, to: str | None = None, host: str | None = None) -> None:
    comes_from_it = message.queue is not None and located(message.queue) == located(KEPT_IN)
    place = ELSE_IN if comes_from_it else KEPT_IN
    create_queue(kept_apart(located(place)))  # whether the settings list it or not
    Queue(place).push(message)
