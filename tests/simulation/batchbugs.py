"""Planted bugs of batches: each function gets what is there and returns what is to stand in its place."""

from __future__ import annotations

from typing import Any

from maildefer.handling.calls.step import EXCLUSIVE_CALL
from maildefer.maildir.names import owner_of
from maildefer.pool.worker import batch_leader


def charged_twice(old: Any) -> Any:
    """A claim that is taken over is charged as if it came from `new/`."""
    return lambda entry, **changes: entry


def published_late(old: Any) -> Any:
    """A gathered claim is on the scoreboard once its rename was answered."""

    def claim(self: Any, name: str) -> Any:
        slots, take = self.slots, type(self.slots).take_place
        hidden: list[tuple[int, int]] = []

        def take_place(seq: int, shown: str) -> int:
            place = int(take(slots, seq, shown))
            hidden.append((place, slots._words[place]))
            slots._words[place] = 0
            return place

        object.__setattr__(slots, "take_place", take_place)
        try:
            taken = old(self, name)
        finally:
            object.__delattr__(slots, "take_place")
        for place, word in hidden:
            if taken is not None:
                slots._words[place] = word
        return taken

    return claim


def passed_and_kept(old: Any) -> Any:
    """What was passed on stays in the group of the worker that has passed it on."""

    def pass_claim(self: Any, queue: int, claim: Any, since: float) -> bool:
        old(self, queue, claim, since)
        return False

    return pass_claim


def never_in_a_handler(old: Any) -> Any:
    return lambda self, claims: None


def all_in_a_handler(old: Any) -> Any:
    """A death charges what was only gathered."""
    return lambda self, slot, queue: frozenset()


def calls_at_once(old: Any) -> Any:
    """Nobody waits for the call of another worker of the host."""

    def take_token(self: Any, conversation: str) -> bool:
        return not conversation.startswith(EXCLUSIVE_CALL) or bool(old(self, conversation))

    return take_token


def calls_on_all_hosts(old: Any) -> Any:
    """An exclusive call asks this host alone."""

    def take_token(self: Any, conversation: str) -> bool:
        if conversation.startswith(EXCLUSIVE_CALL):
            return bool(self._locks.try_lock(batch_leader._number_of(conversation)))
        return bool(old(self, conversation))

    return take_token


def ends_with_the_first(old: Any) -> Any:
    """The token is given back when the call begins."""

    def take_token(self: Any, conversation: str) -> bool:
        taken = bool(old(self, conversation))
        if taken:
            self.release_token(conversation)
        return taken

    return take_token


def from_any_lease(old: Any) -> Any:
    """What another host has claimed is taken over as well."""

    def claim(self: Any, name: str) -> Any:
        lease = self._lease
        if (owner := owner_of(name.rpartition("/")[2])) is not None:
            self._lease = owner.lease
        try:
            return old(self, name)
        finally:
            self._lease = lease

    return claim
