"""Keep every message in `run/queue`: a handler module for `Router.load` or the settings.

What comes out of `run/queue` itself, which a pool here works off, is kept in `run/log`, or it would go round for ever.
"""

from __future__ import annotations

import os
from typing import Final

from maildefer.mail import MailRequest
from maildefer.queue import Queue
from maildefer.routing import route, stateless

KEPT_IN: Final = "run/queue"
ELSE_IN: Final = "run/log"


@route("(to)@(host)", to=".+", host=".+")
@stateless
def START(message: MailRequest, to: str | None = None, host: str | None = None) -> None:
    comes_from_it = message.queue is not None and os.path.abspath(message.queue) == os.path.abspath(KEPT_IN)
    Queue(ELSE_IN if comes_from_it else KEPT_IN).push(message)
