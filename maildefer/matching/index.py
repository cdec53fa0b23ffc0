"""Which of many patterns an address may match, found without trying each, and a limit to the time that this may take.

Of each pattern the rarest three characters in a row that a matching address must have are kept; an address of thirty
characters has 28 such triples, which are looked up, and only what they find is tried. So the cost does not grow with
the number of routes, as long as they have some literal text of their own: `(name)-request@…`, `dogs@(host)`,
`(user)@shop17\\.example`. Patterns of captures alone are always tried. One alternation of all patterns was rejected: it
tells the first that matches only, and is linear too, in C.
"""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from maildefer.errors import RouteTooSlow, RouteUntried
from maildefer.matching.cost import LENGTH, may_take_long
from maildefer.matching.literals import literal_runs

T = TypeVar("T")
Triple = tuple[str, str, str]
Pattern = re.Pattern[str]


class MatchLike(Protocol):
    """What of an `re.Match` is looked at."""

    def groupdict(self) -> dict[str, Any]: ...


Match = Callable[[str], MatchLike | None]

LIMIT_SECONDS: Final = 1.0
LONGEST: Final = LENGTH  # of an address (RFC 3696, section 3); longer ones are given the limit in any case
# What `re` raises where it fails itself, as some of its versions do on possessive repeats with groups in them.
RE_FAULTS: Final = (SystemError, RuntimeError)
_FEW: Final = 12  # patterns that are tried one after the other sooner than triples are looked up


class RouteIndex(Generic[T]):
    """Rows in their order, each under the text of its regular expression; safe among threads, since nothing changes."""

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
        self._found_none = tuple(self._all[place] for place in self._always)

    def rows(self, address: str) -> Sequence[T]:
        """Those whose expressions `address` may match, in their order."""
        # Beyond ASCII, letters have unexpected siblings: K, the sign for kelvin, matches a k.
        if not self._by_triple or not address.isascii():
            return self._all
        found = self._known.intersection(_triples(address.lower()))  # the one loop over the address, and in C
        if not found:
            return self._found_none
        places = set(self._always)
        for triple in found:
            places.update(self._by_triple[triple])
        return [self._all[place] for place in sorted(places)]


class PatternTable(Generic[T]):
    """Patterns in their order, each with what it is for. Safe among threads."""

    def __init__(self, rows: Iterable[tuple[Pattern, T]]) -> None:
        self._index = RouteIndex(
            [(pattern.pattern, (match_of(pattern), row, pattern)) for pattern, row in rows]
        )

    def matches(self, address: str) -> list[tuple[T, MatchLike]]:
        """What the patterns that match are for, each with its match. Raises RouteTooSlow and RouteUntried."""
        if len(address) > LONGEST:
            rows = self._index.rows(address)
            every = limited_matches([pattern for _, _, pattern in rows], "table", address)
            return [(row, found) for (_, row, _), found in zip(rows, every, strict=True) if found is not None]
        try:
            return [
                (row, found)
                for match, row, _ in self._index.rows(address)
                if (found := match(address)) is not None
            ]
        except RE_FAULTS as fault:
            raise RouteUntried.failing("table", address, repr(fault)) from fault


def match_of(pattern: Pattern) -> Match:
    """Its `match`; under a limit, if its shape makes one think that it may take for ever."""
    if not may_take_long(pattern.pattern):
        return pattern.match
    return lambda address: limited_matches((pattern,), pattern.pattern, address)[0]


def limited_matches(patterns: Sequence[Pattern], what: str, address: str) -> Sequence[MatchLike | None]:
    """Each pattern's match; `RouteTooSlow` if all together take more than a second of processor time.

    Any thread may call. No signal reaches another thread than the main one, and `re` never lets go of the interpreter:
    there another process does the matching, and RouteUntried says that it can't.
    """
    try:
        return limited(lambda: [pattern.match(address) for pattern in patterns], what, address)
    except RE_FAULTS as fault:
        raise RouteUntried.failing(what, address, repr(fault)) from fault
    except ValueError:
        from maildefer.matching import process_client  # hardly ever needed

        found = process_client.matches(patterns, what, address, LIMIT_SECONDS)
        if found is None:
            raise RouteTooSlow(what, address, LIMIT_SECONDS) from None
        return found


def limited(work: Callable[[], T], what: str, address: str) -> T:
    """What `work` returns; `RouteTooSlow` if that takes more than a second of processor time.

    A signal ends it, since `re` looks for signals as it goes. Raises ValueError outside the main thread.
    """

    def end(signum: int, frame: object) -> None:
        raise RouteTooSlow(what, address, LIMIT_SECONDS)

    # Of processor time, so that a machine which is busy with something else is no fault of the route's.
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
