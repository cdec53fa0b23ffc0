"""The only handler of its queue, limited as a whole."""

from __future__ import annotations

import os
from typing import Any

from maildefer.routing import concurrency, rate, route, stateless
from workers.mixed import work

limited = rate(os.environ["SOLE_RATE"]) if "SOLE_RATE" in os.environ else concurrency(2)


@route("sole-(argument)@test")
@stateless
@limited
def sole(message: Any, argument: str) -> None:
    work(message, argument)
