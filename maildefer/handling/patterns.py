"""Makes a regular expression from a route's pattern and its captures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final


def regex_text(pattern: str, captures: Mapping[str, str]) -> str:
    """The anchored regular expression: each `(name)` of a capture becomes a named group holding the capture's regex.

    Plain text replacement, in the order of the captures; everything else in the pattern is a regular expression
    already, and a parenthesised word without a capture stays an unnamed group.
    """
    for name, regex in captures.items():
        pattern = pattern.replace(f"({name})", f"(?P<{name}>{regex})")
    return f"^{pattern}$"


_BARE_NAME: Final = re.compile(
    r"""
    \\. | \[\^?\]?(?:\\.|[^\]\\])*\]  # an escaped character, or a set of characters: no group begins there
    | \(([^\W\d]\w*)\)
    """,
    re.DOTALL | re.VERBOSE,
)


def capture_faults(pattern: str, given: Mapping[str, str], captures: Mapping[str, str]) -> Iterator[str]:
    """The mistakes in a route's captures: `given` are its own, `captures` these and the defaults."""
    names = [found[1] for found in _BARE_NAME.finditer(pattern) if found[1] is not None]
    for name in names:
        if name not in captures:
            yield (
                f"nothing defines ({name}): give {name}=… in the route or in router_defaults, "
                f"or write (?:{name}) for the word itself"
            )
    for name, regex in given.items():
        if name not in names and not any(f"({name})" in other for other in captures.values()):
            yield f"it has no ({name}), but {name}={regex!r} is given: write ({name}) in it, or leave {name} out"


def compiled(text: str) -> re.Pattern[str]:
    """The pattern, which matches addresses in any case. Raises `re.error`, which names the expression."""
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as fault:
        raise re.error(f"the route {text} is no regular expression: {fault.msg}", text, fault.pos) from fault
