"""A shop whose handlers take days."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from maildefer.mail import MailRequest, MailResponse
from maildefer.queue import Queue
from maildefer.routing import Defer, Reject, batch, route, stateless
from maildefer.server import Relay
from maildefer.tasks import task
from maildefer.utils import import_settings

SEEN: list[Any] = []


@route("down@x")
@stateless
def DOWN(message: MailRequest) -> None:
    SEEN.append((time.time(), datetime.now().astimezone().timestamp()))
    raise Defer("the shop is down")


@route("twice@x")
@stateless
def TWICE(message: MailRequest) -> None:
    if message.attempt == 1:
        raise Defer("not yet", after=3600)
    answer = MailResponse(To=message.From, From="shop@x", Subject="Done", Body="y")
    Relay("mail.example", 25).deliver(answer)


@route("work@x")
@stateless
def WORK(message: MailRequest) -> None:
    REBUILD.defer(7, after=86400)


@route("paid@x")
@stateless
@batch(limit=10)
def PAID(messages: list[MailRequest]) -> None:
    for message in messages:
        with message.once("charge") as first:
            SEEN.append((message.key, message.attempt, bool(first)))
    if any(message.attempt == 1 for message in messages):
        raise Defer("not yet", after=3600)


@route("order@x")
@stateless
def ORDER(message: MailRequest) -> None:
    settings: Any = import_settings(False)
    for to in ("ann@x", "bob@x"):
        settings.relay.deliver(MailResponse(To=to, From="shop@x", Subject=f"Try {message.attempt}", Body="y"))
    settings.relay.send("boss@x", "shop@x", f"Try {message.attempt}", "y", now=True)
    REBUILD.defer(message.attempt or 0)
    Queue("run/kept").push(f"Subject: {message.attempt}\n\n")
    SEEN.append((len(Queue("run/kept").keys()), message.attempt))
    if message.attempt == 1:
        raise Defer("not yet", after=60)


@route("never@x")
@stateless
def NEVER(message: MailRequest) -> None:
    raise Reject("never")


@route("talk@x")
def START(message: MailRequest) -> Any:
    SEEN.append("START")
    return SECOND


@route("talk@x")
def SECOND(message: MailRequest) -> None:
    SEEN.append("SECOND")


@task(queue="run/work")
def REBUILD(number: int) -> None:
    SEEN.append(number)
