"""Writes down what was sent: by which entry, for which message, to whom."""

from __future__ import annotations

import os
from typing import Any

from maildefer.log_context import facts
from maildefer.routing import route, stateless
from maildefer.tasks import task

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def _note(*words: object) -> None:
    descriptor = os.open("sent", _FLAGS, 0o644)
    os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())
    os.close(descriptor)


@route("(who)@out.test", who="[a-z]+")
@stateless
def SENT(message: Any, who: str) -> None:
    _note(message.key, message["Subject"], who)


@task(queue="run/outgoing")
def COUNT(key: str) -> None:
    _note(facts()["key"], key, "task")
