"""The tree that `re` makes of a regular expression, and the literal text that every match must contain.

`re._parser` is private, so each reader of the tree assumes the worst of what it does not know: here, that nothing is
contained.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

REPEATS: Final = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
_ASCII: Final = 128

Tree = Iterable[tuple[Any, Any]]


def tree_of(regex: str) -> tuple[Tree, int] | None:
    """The tree, compiled without regard to case, and the flags that hold for all of it; None if it can't be had."""
    try:
        parser: Any = vars(re)["_parser"]
        parsed: Any = parser.parse(regex, re.IGNORECASE)
        return parsed, int(parsed.state.flags)
    except (KeyError, AttributeError):
        return None


def literal_runs(regex: str) -> list[str]:
    """Runs of ASCII characters, in lower case, of which a matching text has each, in some case, somewhere."""
    found = tree_of(regex)
    if found is None:
        return []
    pieces = [""]
    _collect(found[0], pieces)
    return [piece for piece in pieces if piece]


def _collect(tree: Tree, pieces: list[str]) -> None:
    """Append to the last piece what follows it at once; begin another where something else may stand between."""
    for operation, value in tree:
        name = str(operation)
        if name == "LITERAL" and value < _ASCII:
            pieces[-1] += chr(value).lower()
        elif name == "SUBPATTERN":
            _collect(value[3], pieces)
        elif name == "AT":  # an anchor has no width
            continue
        else:
            pieces.append("")
            if name in REPEATS and value[0] >= 1:
                _collect(value[2], pieces)
                pieces.append("")
