"""Finds the patterns that an address matches, without trying each, and within a limit of time.

Of each pattern, the rarest three characters in a row that a matching address must have are kept. An address of thirty
characters has 28 such triples; they are looked up, and only the patterns found are tried. So the cost does not grow
with the number of routes, as long as they have some literal text of their own: `(name)-request@…`, `dogs@(host)`,
`(user)@shop17\\.example`. Patterns of captures alone are always tried. One alternation of all patterns was rejected: it
finds the first match only, and is linear too, in C.
"""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Generic, Protocol, TypeVar

from maildefer.errors import RouteTooSlow, RouteUntried
from maildefer.matching.cost import LENGTH, may_take_long
from maildefer.matching.literals import literal_runs

T = TypeVar("T")
Triple = tuple[str, str, str]
Pattern = re.Pattern[str]


class MatchLike(Protocol):
    """The part of an `re.Match` that is used."""

    def groupdict(self) -> dict[str, Any]: ...


Match = Callable[[str], MatchLike | None]

LIMIT_SECONDS: Final = 1.0
LONGEST: Final = LENGTH  # of an address (RFC 3696, section 3); longer ones are always matched under the limit
# Raised by faults of `re` itself: some of its versions fail on possessive repeats with groups in them.
RE_FAULTS: Final = (SystemError, RuntimeError)
_KEPT: Final = (
    256  # addresses, whose matches are not looked for again: most calls and most mail have one of few
)
_FEW: Final = 12  # so many patterns are tried one after the other faster than triples are looked up


class RouteIndex(Generic[T]):
    """Rows in their order, indexed by their regular expressions; safe among threads, since nothing changes."""

    def __init__(self, rows: Sequence[tuple[str, T]]) -> None:
        self._all = tuple(row for _, row in rows)
        self._always: list[int] = []
        self._by_triple: dict[Triple, list[int]] = {}
        triples = [_needed(regex) for regex, _ in rows] if len(rows) > _FEW else []
        common = Counter(triple for of_one in triples for triple in of_one)
        for place, of_one in enumerate(triples):
            if of_one:
                rarest = min(of_one, key=lambda triple: (common[triple], triple))
                self._by_triple.setdefault(rarest, []).append(place)
            else:
                self._always.append(place)
        self._known = frozenset(self._by_triple)
        self._rows_with = lru_cache(_KEPT)(self._rows_of)

    def rows(self, address: str) -> Sequence[T]:
        """The rows whose expressions `address` may match, in their order."""
        # Some letters beyond ASCII match ASCII letters: the sign for kelvin matches a k.
        if not self._by_triple or not address.isascii():
            return self._all
        # The one loop over the address, and in C.
        return self._rows_with(self._known.intersection(_triples(address.lower())))

    def _rows_of(self, triples: frozenset[Triple]) -> Sequence[T]:
        places = set(self._always).union(*(self._by_triple[triple] for triple in triples))
        return tuple(self._all[place] for place in sorted(places))


class PatternTable(Generic[T]):
    """Patterns in their order, each with its row. Safe among threads."""

    def __init__(self, rows: Iterable[tuple[Pattern, T]]) -> None:
        self._index = RouteIndex(
            [(pattern.pattern, (match_of(pattern), row, pattern)) for pattern, row in rows]
        )
        self._kept = lru_cache(_KEPT)(self._tried)

    def matches(self, address: str) -> Sequence[tuple[T, Mapping[str, Any]]]:
        """The rows of the patterns that match, each with its named groups. Raises RouteTooSlow and RouteUntried."""
        if len(address) <= LONGEST:
            return self._kept(address)
        rows = self._index.rows(address)
        every = limited_matches([pattern for _, _, pattern in rows], "table", address)
        found = zip(rows, every, strict=True)
        return [(row, match.groupdict()) for (_, row, _), match in found if match is not None]

    def _tried(self, address: str) -> Sequence[tuple[T, Mapping[str, Any]]]:
        try:
            return [
                (row, found.groupdict())
                for match, row, _ in self._index.rows(address)
                if (found := match(address)) is not None
            ]
        except RE_FAULTS as fault:
            raise RouteUntried.failing("table", address, repr(fault)) from fault


def match_of(pattern: Pattern) -> Match:
    """The pattern's `match`; under the limit, if its shape may take long."""
    if not may_take_long(pattern.pattern):
        return pattern.match
    return lambda address: limited_matches((pattern,), pattern.pattern, address)[0]


def limited_matches(patterns: Sequence[Pattern], what: str, address: str) -> Sequence[MatchLike | None]:
    """Each pattern's match; `RouteTooSlow` if all together take more than a second of processor time.

    Any thread may call. Signals reach the main thread only, and `re` does not release the interpreter's lock: in other
    threads a matching process does the work; RouteUntried is raised where it can't.
    """
    try:
        return limited(lambda: [pattern.match(address) for pattern in patterns], what, address)
    except RE_FAULTS as fault:
        raise RouteUntried.failing(what, address, repr(fault)) from fault
    except ValueError:
        from maildefer.matching import process_client  # rarely needed

        found = process_client.matches(patterns, what, address, LIMIT_SECONDS)
        if found is None:
            raise RouteTooSlow(what, address, LIMIT_SECONDS) from None
        return found


def limited(work: Callable[[], T], what: str, address: str) -> T:
    """What `work` returns; `RouteTooSlow` if that takes more than a second of processor time.

    A signal ends it, since `re` checks for signals. Raises ValueError outside the main thread.
    """

    def end(signum: int, frame: object) -> None:
        raise RouteTooSlow(what, address, LIMIT_SECONDS)

    # Of processor time, so that a busy machine makes no route too slow.
    before = signal.signal(signal.SIGVTALRM, end)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_SECONDS)
        try:
            return work()
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    finally:
        signal.signal(signal.SIGVTALRM, before)


def _needed(regex: str) -> set[Triple]:
    return {triple for run in literal_runs(regex) for triple in _triples(run)}


def _triples(text: str) -> Iterator[Triple]:
    return zip(text, text[1:], text[2:], strict=False)
