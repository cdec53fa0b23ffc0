"""Planted bugs of periodic tasks: each function gets what is there and returns what is to stand in its place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from maildefer.maildir import durable
from maildefer.maildir.names import fresh_stem, sized
from maildefer.maildir.upkeep.ticks import Tick


def loser_pushes(old: Any) -> Any:
    """The host that loses puts its own entry into `new/` as well."""

    def push(self: Any, folder: str, before: Any, instant: int, compose: Any) -> Any:
        tick, is_ours = old(self, folder, before, instant, compose)
        if not is_ours:
            self.finish(_written(self, instant, compose))
        return tick, is_ours

    return push


def entry_first(old: Any) -> Any:
    """The entry is in `new/` before the name tells of it."""

    def push(self: Any, folder: str, before: Any, instant: int, compose: Any) -> Any:
        tick = _written(self, instant, compose)
        self.finish(tick)
        found = self.move(folder, before, tick)
        return found, found == tick

    return push


def by_host_clock(old: Any) -> Any:
    return lambda self: self._system.time()


def own_only(old: Any) -> Any:
    """Only the host that won puts the entry into `new/`."""

    def finish(self: Any, tick: Any) -> None:
        if f".{self._host}," in tick.key:
            old(self, tick)

    return finish


def lost_at_once(old: Any) -> Any:
    """A rename that finds nothing has lost, without a look whether it was done, and its reply lost."""

    def move(self: Any, folder: str, before: Any, tick: Any) -> Any:
        path = f"{self._layout.periodic}/{folder}"
        try:
            self._system.rename(f"{path}/{before.name}", f"{path}/{tick.name}")
        except FileNotFoundError:
            durable.discard(self._draft_of(tick.key), self._system)
            return self.last(folder) or before
        return tick

    return move


def no_doubt(old: Any) -> Any:
    """After whatever fault nothing will come of a move, and its draft goes."""
    return SimpleNamespace(
        DOUBTFUL=frozenset(),
        NOT_EMPTY=old.NOT_EMPTY,
        fresh_listing=lambda path, system: old.fresh_listing(path, system),
        is_listed=lambda path, name, system: old.is_listed(path, name, system),
    )


def _written(ticks: Any, instant: int, compose: Any) -> Tick:
    stem = fresh_stem(ticks._host, ticks._system)
    data = b"".join(compose(stem))
    key = sized(stem, len(data))
    durable.write_new(ticks._draft_of(key), data, system=ticks._system)
    return Tick(instant=instant, key=key)
