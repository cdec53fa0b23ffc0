"""The handler that does nothing, for a whole batch at a time."""

from __future__ import annotations

from maildefer.routing import batch, route, stateless


@route("(name)@osb\\.(host)", name=".+", host=".+")
@stateless
@batch(limit=500, linger=0.5)
def START(messages: list[object]) -> None:
    """Nothing is to be done."""
