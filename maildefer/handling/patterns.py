"""From a route's pattern and its captures to a regular expression."""

from __future__ import annotations

import re
from collections.abc import Mapping


def regex_text(pattern: str, captures: Mapping[str, str]) -> str:
    """The anchored regular expression: each `(name)` of a capture becomes a named group holding the capture's regex.

    Plain text replacement, in the order of the captures; everything else in the pattern is a regular expression
    already, and a parenthesised word without a capture stays an unnamed group.
    """
    for name, regex in captures.items():
        pattern = pattern.replace(f"({name})", f"(?P<{name}>{regex})")
    return f"^{pattern}$"


def compiled(text: str) -> re.Pattern[str]:
    """Addresses are compared without regard to case. Raises `re.error`, which names the expression."""
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as fault:
        raise re.error(f"the route {text} is no regular expression: {fault.msg}", text, fault.pos) from fault
