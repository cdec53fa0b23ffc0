"""Routes, decorators, outcomes and state stores: the names that handler modules and boot modules import.

`Router` is the table of routes of this process, `ROUTE_FIRST_STATE` the state in which each conversation begins, and
`LOG` the logger of deliveries without a pool. The code is in `maildefer.handling.routes`,
`maildefer.handling.decorators`, `maildefer.handling.limits.declare`, `maildefer.handling.outcomes`,
`maildefer.handling.state.storage` and `maildefer.handling.state.directory`.
"""

from __future__ import annotations

from maildefer.handling.decorators import (
    batch,
    keep,
    nolocking,
    retry,
    route,
    route_like,
    state_key_generator,
    stateless,
    timeout,
)
from maildefer.handling.limits.declare import concurrency, rate
from maildefer.handling.outcomes import Defer, Reject
from maildefer.handling.routes import DEFAULT_STATE_KEY, LOG, ROUTE_FIRST_STATE, Router, RoutingBase
from maildefer.handling.state.directory import DirectoryStorage
from maildefer.handling.state.storage import MemoryStorage, ShelveStorage, StateStorage

__all__ = [
    "route",
    "route_like",
    "stateless",
    "nolocking",
    "batch",
    "concurrency",
    "rate",
    "retry",
    "timeout",
    "keep",
    "state_key_generator",
    "Router",
    "RoutingBase",
    "Defer",
    "Reject",
    "StateStorage",
    "MemoryStorage",
    "DirectoryStorage",
    "ShelveStorage",
    "ROUTE_FIRST_STATE",
    "DEFAULT_STATE_KEY",
    "LOG",
]
