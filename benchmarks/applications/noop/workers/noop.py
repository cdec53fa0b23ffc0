"""One stateless handler that does nothing."""

from maildefer.routing import route, stateless


@route("(name)@osb\\.(host)", name=".+", host=".+")
@stateless
def START(message, name=None, host=None):  # type: ignore[no-untyped-def]
    return None
