"""One stateless handler that does nothing, beside one that is limited."""

from __future__ import annotations

from maildefer.routing import concurrency, rate, route, stateless


@route("(name)@osb\\.(host)", name=".+", host=".+")
@stateless
def START(message: object, name: str = "", host: str = "") -> None:
    """Nothing is to be done."""


@route("limited-(name)@elsewhere\\.(host)", name=".+", host=".+")
@stateless
@concurrency(2, key="host")
@rate("30/min", key="host")
def LIMITED(message: object, name: str = "", host: str = "") -> None:
    """No message comes for it."""
