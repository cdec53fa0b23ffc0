"""The function that counts deliveries, which a worker sets where its pool is watched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

OUTCOMES: Final = ("sent", "deferred", "refused", "expired")
count: Callable[[str, str], object] | None = None
"""Called with the name of a destination, and what came of an attempt to deliver there."""
