"""Planted bugs of limits."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from typing import Any


def unpublished(old: Any) -> Any:
    """Slots of limits that the scoreboard does not show, so that the audit takes them for nobody's."""

    class Unpublished(old):  # type: ignore[misc]
        def take_place(self, seq: int, name: str) -> int:
            place = super().take_place(seq, name)
            self._words[place] = 0
            return int(place)

    return Unpublished


def released_at_once(old: Any) -> Any:
    """Released before the handler runs, and again after it."""

    def take_slots(self: Any, uses: Any, key: Any) -> Any:
        full = old(self, uses, key)
        if full is None:
            for token in self._taken:
                self._tokens.release(token)
        return full

    return take_slots


def by_hosts_clock(old: Any) -> Any:
    def init(self: Any, layout: Any, *, now: Any, system: Any) -> None:
        old(self, layout, now=system.time, system=system)

    return init


def shorter(share: float) -> Callable[[Any], Any]:
    """A slot that is free again before its time."""
    return lambda old: lambda self, number, seconds: old(self, number, share * seconds)


def one_more(old: Any) -> Any:
    return lambda limit, count: old(limit, count + 1)


def believed(old: Any) -> Any:
    """A slot that another has taken first, or whose reply was lost, taken for one's own."""

    def take(self: Any, path: str, name: str, rate: Any, seen: Any) -> Any:
        system, lost = self._system, []

        def rename(source: str, destination: str) -> None:
            try:
                system.rename(source, destination)
            except OSError as fault:
                lost.append(fault.errno)
                if fault.errno not in (errno.ENOENT, errno.EIO, errno.ESTALE):
                    raise

        real, self._system = self._system, _with(system, rename)
        try:
            return old(self, path, name, rate, seen)
        finally:
            self._system = real

    return take


def _with(system: Any, rename: Any) -> Any:
    try:
        return replace(system, rename=rename)
    except TypeError:  # the simulation's

        class Renaming:
            def __getattr__(self, name: str) -> Any:
                return rename if name == "rename" else getattr(system, name)

        return Renaming()


def any_slot_free(old: Any) -> Any:
    """Slots that were listed as taken, taken for free."""

    def list_slots(self: Any, path: str, rate: Any) -> Any:
        seen = old(self, path, rate)
        seen.slots[:] = [(0, tie, name) for _, tie, name in seen.slots]
        return seen

    return list_slots
