"""A handler that sends to three recipients through the outgoing queue, and what is noted around each delivery."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from maildefer.routing import retry, route, stateless
from maildefer.utils import settings
from workers.notes import note, note_when_settled, work

RECIPIENTS = 3
_FAILS = 0.1  # of the attempts, after they have sent


@route("sending@test")
@stateless
@retry(attempts=100, backoff=("1s", "1s"))
def SEND(message: Any) -> None:
    note("start", message.key, "sending")
    stem = message.key.partition(",")[0]
    to = [f"{number}.{stem}@next.test" for number in range(RECIPIENTS)]
    # Bytes, since the e-mail package takes a worker longer to load than some of them live.
    settings.relay.deliver(b"Subject: three copies\n\nHello.\n", To=to, From="chaos@test")
    work()
    if random.random() < _FAILS:
        note("raised", message.key)
        raise RuntimeError("what was sent is not sent")
    note("end", message.key)


@contextmanager
def noted(call: Any) -> Iterator[None]:
    """Middleware of all handlers."""
    if call.handler != "maildefer.handlers.outgoing.START":
        yield
        return
    recipient = call.message.To
    note("sending", recipient, call.key)
    try:
        yield
    finally:
        is_acked = call.outcome is not None and call.outcome.word == "acked"
        note("sent" if is_acked else "unsent", recipient, "async")
        note_when_settled(recipient)
