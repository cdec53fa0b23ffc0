"""Bounces: `@bounce_to(soft=…, hard=…)` below `@route`, and `detect` for what a message says as a bounce.

`BOUNCE_MATCHERS` are the headers that are looked at, with the regular expressions for their values; `BOUNCE_MAX` is
the most points that a message can have. The code is in `maildefer.handling.decorators` and in
`maildefer.message.bounce`, which is imported at the first use.
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
