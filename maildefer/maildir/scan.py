"""Listing folders lazily, so that memory use does not grow with the backlog; a listing is a hint (I10)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal, NoReturn

from maildefer.errors import ReadRefused, raise_named
from maildefer.maildir.names import EntryName, is_entry
from maildefer.maildir.system import SYSTEM, System

CHUNK = 1000
PRIORITIES: Final = {"high": ",p=high", "normal": "", "low": ",p=low"}  # and the part of a key that says so
PRIORITY_MARK: Final = "priorities"  # in the control folder, once an entry was pushed with a priority
_HIGH, _NORMAL, _LOW = range(3)
_TURNS: Final = 3 * [range(3)] + [(_NORMAL, _HIGH, _LOW)] + 3 * [range(3)] + [(_LOW, _NORMAL, _HIGH)]
_LOOK_SECONDS = 1.0
_LOOKS_EVERY = 20  # times as long as a look takes, while other names are there
Folder = Literal["waiting", "claimed", "deferred", "dead", "undeliverable", "kept"]


@dataclass(frozen=True, slots=True)
class FoundEntry:
    """The place where an entry was seen; a hint, since another process may move it at any time (I10)."""

    folder: Folder
    directory: str
    name: str

    @property
    def path(self) -> str:
        return f"{self.directory}/{self.name}"

    @property
    def entry(self) -> EntryName:
        return EntryName.parse(self.name)

    @property
    def key(self) -> str:
        return self.entry.key


def entries(path: str, *, system: System = SYSTEM) -> Iterator[str]:
    """Return the names in a folder in the filesystem's order; a missing folder counts as empty. Raises OSError."""
    try:
        listing = system.scandir(path)
    except FileNotFoundError:
        return
    with listing:
        for found in listing:
            if is_entry(found.name):
                yield found.name


def chunks(
    path: str, size: int = CHUNK, *, only: int | None = None, system: System = SYSTEM
) -> Iterator[list[str]]:
    """Return the names in lists of `size`; in each the oldest first (names begin with the time of the push).

    `only`: what is of another rank is left out, so that lists are shorter, and may be empty.
    """
    names = entries(path, system=system)
    while chunk := list(islice(names, size)):
        chunk.sort()
        yield chunk if only is None else [name for name in chunk if rank(name) == only]


def any_priority(names: Sequence[str]) -> bool:
    """Whether any of the names has a priority of its own."""
    return ",p=" in "\0".join(names)


def rank(name: str) -> int:
    """The priority's place in `PRIORITIES`, the first of which is offered first; what is none of these is normal."""
    if ",p=" not in name:
        return _NORMAL
    return _HIGH if ",p=high," in name else _LOW if ",p=low," in name else _NORMAL


def priority_of(name: str) -> str:
    return list(PRIORITIES)[rank(name)]


class NamesByPriority:
    """A folder's names, the higher priorities first; of eight, one is normal, and one low, if there are any.

    So none starves. Each priority has a listing of its own, read lazily, so that a long backlog hides no name of a
    higher one. A listing that has shown none is made again after a pause, while there are other names. For one thread.
    """

    def __init__(self, listed: Callable[[int], Iterator[list[str]]], clock: Callable[[], float]) -> None:
        """`listed` makes a listing of the names of a rank."""
        self._listed, self._clock = listed, clock
        self._names = [deque[str]() for _ in PRIORITIES]
        self._listings: list[Iterator[list[str]] | None] = [None for _ in PRIORITIES]
        self._spent = [0.0 for _ in PRIORITIES]  # seconds in the present listing
        self._not_before = [0.0 for _ in PRIORITIES]  # the next one
        self._turn = 0

    def add(self, names: Sequence[str]) -> None:
        """Add names that were seen elsewhere; what is too much the next listings show."""
        for name in names:
            if len(known := self._names[rank(name)]) < CHUNK:
                known.append(name)

    def take(self, most: int, *, look: bool = True) -> list[str]:
        """Take the next names. Without `look`, no listing begins before its pause is over. Raises OSError."""
        taken: list[str] = []
        while len(taken) < most and (found := self._next_rank(look)) is not None:
            self._turn += 1
            taken.append(self._names[found].popleft())
        return taken

    def _next_rank(self, look: bool) -> int | None:
        order, fresh = _TURNS[self._turn % len(_TURNS)], set[int]()
        for forced in (False, True) if look else (False,):
            for rank in order:
                if self._names[rank] or (rank not in fresh and self._look(rank, forced, fresh)):
                    return rank
        return None

    def _look(self, rank: int, forced: bool, fresh: set[int]) -> bool:
        """Whether the present listing shows more names of the rank, or else a new one, if it may begin or is forced."""
        while rank not in fresh or self._listings[rank] is not None:
            if (listing := self._listings[rank]) is None:
                if not forced and self._clock() < self._not_before[rank]:
                    return False
                listing = self._listings[rank] = self._listed(rank)
                self._spent[rank] = 0.0
                fresh.add(rank)
            began = self._clock()
            found = next(filter(None, listing), None)
            ended = self._clock()
            self._spent[rank] += ended - began
            if found is not None:
                self._names[rank].extend(found)
                return True
            self._listings[rank] = None
            self._not_before[rank] = ended + max(_LOOK_SECONDS, _LOOKS_EVERY * self._spent[rank])
        return False


class Listing:
    """A folder's names for a process that claims by itself: by priority, once any entry has one. For one thread."""

    def __init__(self, path: str, is_marked: Callable[[], bool], clock: Callable[[], float]) -> None:
        """`is_marked` says whether the queue has the mark."""
        self._path, self._is_marked, self._clock = path, is_marked, clock
        self._by_priority: NamesByPriority | None = None

    def names(self) -> Iterator[str]:
        """Return what a new listing shows, lazily; what is dropped for the order of priorities is seen again."""
        if self._by_priority is None:
            for chunk in chunks(self._path):
                has_any = any_priority(chunk)
                for name in chunk:
                    if has_any or self._is_marked():
                        break
                    yield name
                else:
                    continue
                self._by_priority = NamesByPriority(lambda rank: chunks(self._path, only=rank), self._clock)
                break
        look = True
        while self._by_priority is not None and (taken := self._by_priority.take(1, look=look)):
            yield from taken
            look = False  # else what can't be claimed would be shown for ever


def has_entry(path: str, key: str, *, system: System = SYSTEM) -> bool:
    """Whether the entry of that key, in whatever state, is in a folder, by a fresh listing. Raises OSError."""
    system.utime(path)  # as before every listing that must be fresh: see `doubt`
    return any(name.startswith(key) for name in entries(path, system=system))


def count(*paths: str, system: System = SYSTEM) -> int:
    """Count the entries of all these folders together."""
    return sum(1 for path in paths for _ in entries(path, system=system))


def raise_unread(path: str, fault: OSError) -> NoReturn:
    """Raise what `errors.raise_named` raises, for a caller that only reads, and needs no permission to write."""
    raise_named(path, fault, refused=ReadRefused)
