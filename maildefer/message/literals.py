"""What every text that a regular expression matches must contain, and whether a match may take for ever.

Both are read from the tree that `re` itself makes of an expression. `re._parser` is private, so whatever is unknown in
it is taken for the worst: nothing is known to be contained, and the match is given a time limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

_REPEATS: Final = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
_MANY: Final = (
    4  # unbounded repeats that may divide 320 characters among them in more ways than a second has time for
)
_LONG: Final = 20  # times a repeat may go round to count as unbounded

Tree = Iterable[tuple[Any, Any]]


def literal_runs(regex: str) -> list[str]:
    """Runs of ASCII characters, in lower case, of which a matching text has each, in some case, somewhere."""
    tree = _tree(regex)
    if tree is None:
        return []
    pieces = [""]
    _collect(tree, pieces)
    return [piece for piece in pieces if piece]


def may_take_long(regex: str) -> bool:
    """Whether backtracking may be exponential, or of a high power of the length, as far as its shape tells."""
    tree = _tree(regex)
    if tree is None:
        return True
    repeats = list(_repeats(tree))
    unbounded = sum(most >= _LONG for _, most, _ in repeats)
    return unbounded >= _MANY or any(most > 1 and _is_variable(body) for _, most, body in repeats)


def _tree(regex: str) -> Tree | None:
    try:
        parser: Any = vars(re)["_parser"]
        parsed: Tree = parser.parse(regex, re.IGNORECASE)
        return parsed
    except (KeyError, AttributeError):
        return None


def _collect(tree: Tree, pieces: list[str]) -> None:
    """Append to the last piece what follows it at once; begin another where something else may stand between."""
    for operation, value in tree:
        name = str(operation)
        if name == "LITERAL" and value < 128:
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


def _repeats(tree: Tree) -> Iterator[tuple[int, int, Tree]]:
    for operation, value in tree:
        if str(operation) in _REPEATS:
            yield int(value[0]), int(value[1]), value[2]
        for below in _bodies(str(operation), value):
            yield from _repeats(below)


def _is_variable(tree: Tree) -> bool:
    """Whether one text may be matched in several ways."""
    for operation, value in tree:
        name = str(operation)
        if name == "BRANCH" or (name in _REPEATS and value[0] != value[1]):
            return True
        if any(_is_variable(below) for below in _bodies(name, value)):
            return True
    return False


def _bodies(name: str, value: Any) -> list[Tree]:
    """The trees below one operation."""
    if name in _REPEATS:
        return [value[2]]
    if name == "SUBPATTERN":
        return [value[3]]
    if name == "BRANCH":
        return list(value[1])
    if name in ("ASSERT", "ASSERT_NOT"):
        return [value[1]]
    if name == "ATOMIC_GROUP":
        return [value]
    if name == "GROUPREF_EXISTS":
        return [tree for tree in value[1:] if tree is not None]
    return []
