"""Limited in each way, beside one that is not; what each did is in the journal, by its recipient."""

from __future__ import annotations

import os
import time
from typing import Any

from maildefer.routing import batch, concurrency, rate, route, stateless
from workers.journal import note

RATE = os.environ.get("RATE", "30/6s")


def work(message: Any, argument: str) -> None:
    note("start", message)
    until = time.monotonic() + float(argument or 0)
    while time.monotonic() < until and not os.path.exists("go"):
        time.sleep(0.001)
    note("end", message)


@concurrency(1, key="name")
@route("list-(name)-(argument)@test")
@stateless
def one_of_each_list(message: Any, name: str, argument: str) -> None:
    work(message, argument)


@route("pair-(argument)@test")
@concurrency(2)
@stateless
def two(message: Any, argument: str) -> None:
    work(message, argument)


@route("mail-(name)@test")
@stateless
@rate(RATE, key="name")
def send(message: Any, name: str) -> None:
    work(message, "")


@route("free-(argument)@test")
@stateless
def free(message: Any, argument: str) -> None:
    work(message, argument)


@route("batch-(argument)@test")
@stateless
@batch(limit=5, linger=0.1, overlap=True)
@concurrency(1)
def together(messages: list[Any]) -> None:
    note("start", messages[0])
    time.sleep(0.1)
    note("end", messages[0])
