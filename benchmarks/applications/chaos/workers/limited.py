"""Handlers of which at most so many run at a time, or start in a period, on both hosts together."""

from __future__ import annotations

from typing import Any

from maildefer.routing import concurrency, rate, route, stateless
from workers.notes import note, one_of, work

AT_A_TIME = 2
STARTS, PERIOD_SECONDS = 100, 5


@route("limited-(which)@test", which="[ab]")
@stateless
@concurrency(AT_A_TIME, key="which")
def LIMITED(message: Any, which: str = "") -> None:
    note("start", message.key, f"limited-{which}")
    with one_of(f"limited-{which}", AT_A_TIME, message.key):
        work()
    note("end", message.key)


@route("rated-(which)@test", which="[ab]")
@stateless
@rate(f"{STARTS}/{PERIOD_SECONDS}s", key="which")
def RATED(message: Any, which: str = "") -> None:
    note("start", message.key, f"rated-{which}")
    work()
    note("end", message.key)
