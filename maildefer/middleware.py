"""What the functions in the setting `middleware` are given: a call of a handler, and its outcome once it has ended.

The code is in `maildefer.handling.calls.middleware`.
"""

from __future__ import annotations

from maildefer.handling.calls.middleware import CallOutcome, HandlerCall

__all__ = ["CallOutcome", "HandlerCall"]
