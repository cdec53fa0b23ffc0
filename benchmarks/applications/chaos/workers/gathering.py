"""Batches: one call at a time on a host, or of all hosts."""

from __future__ import annotations

from typing import Any

from maildefer.routing import batch, route, stateless
from workers.notes import HOST, note, one_of, work


@route("batch@test")
@stateless
@batch(limit=20, linger=0.2)
def GATHERED(messages: list[Any]) -> None:
    _handle("batch", f"batch-on-{HOST}", messages)


@route("exclusive@test")
@stateless
@batch(limit=50, linger=0.2, exclusive=True)
def ALONE(messages: list[Any]) -> None:
    _handle("exclusive", "exclusive", messages)


def _handle(what: str, name: str, messages: list[Any]) -> None:
    for message in messages:
        note("start", message.key, what)
    with one_of(name, 1, messages[0].key):
        work()
    for message in messages:
        note("end", message.key)
