"""Bounces: `@bounce_to(soft=…, hard=…)` below `@route`, and `detect` for a look at one.

The code is in `maildefer.message.bounce`, which is imported when it is used, and `maildefer.handling.decorators`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from maildefer.handling.decorators import bounce_to

if TYPE_CHECKING:
    from maildefer.message.bounce import (
        BOUNCE_MATCHERS,
        BOUNCE_MAX,
        BounceAnalyzer,
        detect,
        match_bounce_headers,
    )

__all__ = ["BOUNCE_MATCHERS", "BOUNCE_MAX", "BounceAnalyzer", "bounce_to", "detect", "match_bounce_headers"]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(importlib.import_module("maildefer.message.bounce"), name)  # parses mail: 4.5 MB
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
