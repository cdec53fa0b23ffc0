"""What every text that a regular expression matches must contain.

Where its tree can't be had, or has something unknown in it, nothing is known to be contained.
"""

from __future__ import annotations

from typing import Final

from maildefer.matching.regex_tree import REPEATS, Tree, tree_of

_ASCII: Final = 128


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
