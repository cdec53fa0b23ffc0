"""One async handler that waits for as long as the benchmark says."""

from __future__ import annotations

import asyncio
import os

from maildefer.routing import route, stateless

WAIT_SECONDS = float(os.environ.get("BENCHMARK_WAIT_SECONDS", "0"))


@route("(name)@osb\\.(host)", name=".+", host=".+")
@stateless
async def START(message: object, name: str = "", host: str = "") -> None:
    if WAIT_SECONDS:
        await asyncio.sleep(WAIT_SECONDS)
