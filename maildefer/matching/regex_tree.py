"""The tree that `re` itself makes of a regular expression.

`re._parser` is private, so whoever reads the tree takes what is unknown in it for the worst.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

REPEATS: Final = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")

Tree = Iterable[tuple[Any, Any]]


def tree_of(regex: str) -> tuple[Tree, int] | None:
    """The tree, compiled without regard to case, and the flags that hold for all of it; None if it can't be had."""
    try:
        parser: Any = vars(re)["_parser"]
        parsed: Any = parser.parse(regex, re.IGNORECASE)
        return parsed, int(parsed.state.flags)
    except (KeyError, AttributeError):
        return None
