"""Planted bugs of what is pushed for later, cancelled and rescheduled; see `bugs`."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from maildefer.errors import raise_named


def by_own_clock(old: Any) -> Any:
    return lambda self: float(self._system.time())


def put_into_new(old: Any) -> Any:
    return lambda self, key: f"{self._layout.new}/{key}"


def unsynced_later(old: Any) -> Any:
    def sync(self: Any) -> None:
        if not self._path.endswith(".later/new"):
            old(self)

    return sync


def claimed_early(old: Any) -> Any:
    """The due time of an entry in `new/` is dropped, as it was before anybody pushed for later."""

    def claim(self: Any, name: str) -> Any:
        mount_time, self.mount_time = self.mount_time, lambda: 1e12
        try:
            return old(self, name)
        finally:
            self.mount_time = mount_time

    return claim


def postponed_as_it_is(old: Any) -> Any:
    def postpone(name: str, entry: Any, layout: Any, *, host: str, system: Any) -> None:
        try:
            system.rename(f"{layout.new}/{name}", f"{layout.later_new}/{name}")
        except FileNotFoundError:
            pass
        except OSError as fault:
            raise_named(layout.later_new, fault)

    return postpone


def a_second_early(old: Any) -> Any:
    return lambda self, mount_time: old(self, mount_time + 1.0)


class _SameGeneration:
    """An entry's name whose next one has the same `n`."""

    def __init__(self, entry: Any) -> None:
        self._entry = entry

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry, name)

    def promoted(self) -> Any:
        return replace(self._entry, due=None)

    def deferred(self, due: int) -> str:
        return str(replace(self._entry, due=due).waiting())


def same_generation(old: Any) -> Any:
    """In the place of the module `names`, as `schedule` uses it."""
    return SimpleNamespace(
        with_usable_key=lambda entry, host, system: _SameGeneration(entry),
        with_unique=lambda entry, unique, host, system: _SameGeneration(
            old.with_unique(entry._entry, unique, host, system)
        ),
        first_name=old.first_name,
    )


def taken_without_due(old: Any) -> Any:
    return lambda entry, system: old(replace(entry, due=None), system)


def unsure(old: Any) -> Any:
    """A lost reply to the unlink is taken for somebody else's work."""
    return lambda self, how="pop", *, sure_until=0.0: old(self, how)


def not_taken(old: Any) -> Any:
    """Whatever is gone was cancelled."""
    return lambda layout, key, **more: old(layout, key, **more) or True
