"""The function that counts deliveries, which a worker of a pool sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

OUTCOMES: Final = ("sent", "deferred", "refused", "expired")
count: Callable[[str, str, str], object] | None = None
"""Called with the name of a destination, what came of an attempt to deliver there, and why it was put off."""
