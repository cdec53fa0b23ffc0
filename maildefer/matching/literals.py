"""The literal text that every match of a regular expression must contain, by the tree that `re` makes of it.

`re._parser` is private: of what isn't known there, nothing is taken to be contained.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

_REPEATS: Final = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
_ASCII: Final = 128

Tree = Iterable[tuple[Any, Any]]


def literal_runs(regex: str) -> list[str]:
    """Runs of ASCII characters, in lower case, of which a matching text has each, in some case, somewhere."""
    try:
        parser: Any = vars(re)["_parser"]
        tree: Any = parser.parse(regex, re.IGNORECASE)
    except (KeyError, AttributeError):
        return []
    pieces = [""]
    _collect(tree, pieces)
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
            if name in _REPEATS and value[0] >= 1:
                _collect(value[2], pieces)
                pieces.append("")
