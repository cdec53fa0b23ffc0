"""How messages find their handlers: the names that handler modules and boot modules import.

Routes and decorators live in `maildefer.handling.routes` and `.decorators`, the state stores in `.state` and
`.shared_state`, `Defer` and `Reject` in `.outcomes`.
"""

from __future__ import annotations

from maildefer.handling.decorators import batch, nolocking, route, route_like, state_key_generator, stateless
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
