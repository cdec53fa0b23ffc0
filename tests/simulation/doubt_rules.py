"""The look that settles a doubt must show what stood there all the time (I10)."""

from __future__ import annotations

from collections.abc import Callable

from maildefer.maildir.system import System
from tests.simulation.oracle import Oracle
from tests.simulation.world import short


def watched(
    oracle: Oracle, listed: Callable[[str, str, System], bool], path: str, name: str, system: System
) -> bool:
    """`doubt.is_listed`, with the server's truth beside it."""
    server = oracle.world.server
    before = server.look(f"{path}/{name}")
    seen = listed(path, name, system)
    if not seen and before is not None and server.look(f"{path}/{name}") is before:
        oracle.fail("I10", f"a look overlooked what was there all the time: {short(path)}/{name}")
    return seen
