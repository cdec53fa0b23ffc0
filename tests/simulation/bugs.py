"""The planted bugs themselves: each function gets what is there and returns what is to stand in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from maildefer.errors import ClaimLost, LeaseFenced, MaildeferError, raise_named
from maildefer.maildir import doubt
from maildefer.maildir.names import EntryName
from maildefer.maildir.operator import entries


def constant(value: Any) -> Callable[[Any], Any]:
    return lambda old: lambda *facts, **more: value


def never_again(old: Any) -> Any:
    return lambda self, name: name not in self


def given_up(old: Any) -> Any:
    """A reclaim that failed, taken for one that is done: the slot is free while claims of its worker are left."""

    def reclaim_slot(self: Any, slot: int, reclaimer: Any, tokens: Any) -> bool:
        try:
            return bool(old(self, slot, reclaimer, tokens))
        except (OSError, MaildeferError):
            return True

    return reclaim_slot


def shared_owner(old: Any) -> Any:
    def serve_under(self: Any, lease: str) -> None:
        old(self, lease)
        self._owner = "x-1-abcd.1."

    return serve_under


def unreturned(old: Any) -> Any:
    return lambda self, **charged: replace(old(self, **charged), returns=self.returns)


def failing(failed: bool) -> Callable[[Any], Any]:
    return lambda old: lambda self, seconds, **told: old(self, seconds, failed=failed)


def uncharged(old: Any) -> Any:
    return lambda self, owner: old(replace(self, attempts=self.attempts - 1), owner)


def fence_by_prefix(old: Any) -> Any:
    def fence(layout: Any, lease: str, beat: int, *, system: Any, **more: Any) -> bool:
        now = doubt.live_leases(layout, system).get(lease, beat)
        return bool(old(layout, lease, now, system=system, **more))

    return fence


def one_listing(old: Any) -> Any:
    def abandoned(self: Any, owners: Any) -> set[str]:
        return set(owners) - {self._own()} - doubt.live_leases(self._layout, self._system).keys()

    return abandoned


def far_apart(old: Any) -> Any:
    def abandoned(self: Any, owners: Any) -> set[str]:
        missing = set(owners) - {self._own()} - doubt.live_leases(self._layout, self._system).keys()
        if missing:
            self._system.sleep(1.5 * self.format.beat_seconds)
            missing -= doubt.live_leases(self._layout, self._system).keys()
        return missing

    return abandoned


def once(old: Any) -> Any:
    gone: dict[int, set[str]] = {}

    def abandoned(self: Any, owners: Any) -> set[str]:
        done = gone.setdefault(id(self._watched), set())
        found = set(old(self, set(owners) - done))
        done |= found
        return found

    return abandoned


def all_others(old: Any) -> Any:
    return lambda self, owners: set(owners) - {self._own()}


def rename_first(old: Any) -> Any:
    def completed(self: Any, begun: Any) -> bool:
        system = self._system
        try:
            system.rename(begun.path, f"{self.layout.new}/{begun.key}")
            system.fsync(begun.descriptor)
            system.close(begun.descriptor)
        except OSError as fault:
            raise_named(begun.path, fault)
        return True

    return completed


def promote_without(old: Any) -> Any:
    return SimpleNamespace(
        with_usable_key=lambda entry, host, system: replace(entry, attempts=0), due_of=old.due_of
    )


def by_destination(old: Any) -> Any:
    def move(self: Any, folder_path: str, name: str, **more: Any) -> None:
        system = self._claimer.system
        try:
            system.rename(f"{self._claimer.layout.cur}/{self.name}", f"{folder_path}/{name}")
        except OSError as fault:
            if not doubt.is_listed(folder_path, name, system):
                self._free_place()
                raise ClaimLost(self.name) from fault
        self._free_place()

    return move


def no_look(old: Any) -> Any:
    def settle_by_look(self: Any, fault: OSError) -> None:
        raise LeaseFenced(self.name)

    return settle_by_look


def impatient(old: Any) -> Any:
    return lambda self, lease, watched, now: now - watched.since >= 1.5 * self.format.beat_seconds


def cleared_early(old: Any) -> Any:
    def move(self: Any, *where: Any, **more: Any) -> None:
        self._claimer.slots._words[self._place] = 0
        old(self, *where, **more)

    return move


def same_stem(old: Any) -> Any:
    return lambda host, system, due=None, part="": f"{int(system.time()) // 100}.{host}{part}"


def truncated(old: Any) -> Any:
    return lambda path, limit, *, system: old(path, limit, system=system)[:12]


def by_stat(old: Any) -> Any:
    def listed(path: str, name: str, system: Any) -> bool:
        try:
            system.lstat(f"{path}/{name}")
        except OSError:
            return False
        return True

    return listed


def untouched(old: Any) -> Any:
    return lambda path, system, *, touch=True: system.listdir(path)


def requeue_same(old: Any) -> Any:
    return lambda layout, found, *, system: entries._to_new(layout, found, EntryName(key=found.key), system)


def requeue_plain(old: Any) -> Any:
    def requeue(layout: Any, found: Any, *, system: Any) -> str:
        fresh = EntryName(key=found.key, returns=found.entry.returns + 1)
        return entries._to_new(layout, found, fresh, system)

    return requeue


def as_named(old: Any) -> Any:
    return lambda entry, unique, host, system: entry


def crash_free(old: Any) -> Any:
    return lambda self, name, *, charged, moved, **more: old(self, name, charged=False, moved=moved)


def foreign_unreturned(old: Any) -> Any:
    return SimpleNamespace(
        with_usable_key=lambda entry, host, system: replace(entry, returns=entry.returns - 1),
        with_unique=old.with_unique,
        unique_of=old.unique_of,
    )


def never_buried(old: Any) -> Any:
    def reclaim_claim(self: Any, name: str, **facts: Any) -> None:
        self._max_crashes = 99
        old(self, name, **facts)

    return reclaim_claim


def counted(old: Any) -> Any:
    """A dead letter keeps its counters in its name."""
    return lambda entry: entry.waiting()
