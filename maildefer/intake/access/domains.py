"""Which domains the routes are for: mail for another one is refused as relaying, not as for an unknown recipient."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_TOKEN: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL).findall


def part_behind_at(pattern: str) -> re.Pattern[str] | None:
    """The part of a route's pattern for the domain, behind its one `@` outside all groups; None where there is none.

    >>> part_behind_at(r"^(?P<name>.+)@osb\\.example$").pattern
    'osb\\\\.example$'
    """
    depth, found, at = 0, -1, 0
    for token in _TOKEN(pattern):
        if token in "()":
            depth += 1 if token == "(" else -1
        elif depth == 0 and token == "|":
            return None
        elif token == "@" or token == r"\@":
            if depth or found >= 0:
                return None
            found = at + len(token)
        at += len(token)
    if found < 0:
        return None
    try:
        return re.compile(pattern[found:], re.IGNORECASE)
    except re.error:  # it refers to a group before the @
        return None


class Domains:
    """The domains of a table of routes, or those that are given."""

    def __init__(self, patterns: Iterable[str], given: str = "") -> None:
        """`given`: names with spaces between, which are all there are."""
        self._given = frozenset(given.lower().split())
        self._patterns = [part_behind_at(pattern) for pattern in patterns]

    def forbids(self, address: str) -> bool:
        """Whether the domain is none of the given, so that its mail is refused whatever the routes say."""
        return bool(self._given) and address.rpartition("@")[2].lower() not in self._given

    def knows(self, address: str) -> bool:
        """Whether any route could take some address of that domain; True where that is not known."""
        _, at, domain = address.lower().rpartition("@")
        return not at or any(pattern is None or pattern.match(domain) for pattern in self._patterns)
