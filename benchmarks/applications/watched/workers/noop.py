"""One stateless handler that does nothing."""

from __future__ import annotations

from maildefer.routing import route, stateless


@route("(name)@osb\\.(host)", name=".+", host=".+")
@stateless
def START(message: object, name: str = "", host: str = "") -> None:
    """Nothing is to be done."""
