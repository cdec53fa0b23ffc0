"""Planted bugs of requests that are pushed once; see `bugs`."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any


def finished_by_its_maker(old: Any) -> Any:
    """Who finds a marker does not rename what it names."""

    def finish(self: Any, marker: str, answer: Any) -> Any:
        return [] if answer.is_repeated else old(self, marker, answer)

    return finish


def entries_first(old: Any) -> Any:
    """The entries are renamed before the marker is there."""

    def place(self: Any, marker: str, fingerprint: str, drafts: Any) -> Any:
        self._pusher.placer.move_all([(draft.path, draft.key) for draft in drafts])
        return old(self, marker, fingerprint, drafts)

    return place


def any_is_mine(old: Any) -> Any:
    """A marker that is there is taken for one's own."""

    def placed(self: Any, made: Any, marker: str, mine: Any) -> Any:
        found = old(self, made, marker, mine)
        return found and mine

    return placed


def discarded_at_once(old: Any) -> Any:
    """What a marker names is discarded, whether that may be in its place or not."""

    def discard(self: Any) -> bool:
        self.is_sent = False
        return bool(old(self))

    return discard


def unsynced(name: str) -> Any:
    """What is in the folder of that name may not be on the disk."""

    def make(old: Any) -> Any:
        def sync(self: Any) -> None:
            if not self._path.endswith(name):
                old(self)

        return sync

    return make


def marker_unsynced(old: Any) -> Any:
    """The marker may not be on the disk when its entries are renamed."""

    def sync_directory(path: str, **named: Any) -> None:
        if "/idempotency" not in path:
            old.sync_directory(path, **named)

    return SimpleNamespace(
        sync_directory=sync_directory, DirectorySync=old.DirectorySync, read_small=old.read_small
    )


def half_an_answer(old: Any) -> Any:
    """Each entry is a request of its own."""

    def place(self: Any, marker: str, fingerprint: str, drafts: Any) -> Any:
        first, *rest = drafts
        answer = old(self, marker, fingerprint, [first])
        if answer.is_repeated:
            return answer
        others = tuple((draft.path.rpartition("/")[2], draft.key) for draft in rest)
        return replace(answer, entries=(*answer.entries, *others))

    return place


def withdrawn(old: Any) -> Any:
    """What is not placed, or not synced, is withdrawn, as it is of another push."""

    def finish(self: Any, marker: str, answer: Any) -> Any:
        try:
            return old(self, marker, answer)
        except Exception:
            for name, key in answer.entries:
                for path in (f"{self._layout.tmp}/{name}", self._pusher.place_of(key)):
                    try:
                        self._system.unlink(path)
                    except OSError:
                        pass
            raise

    return finish
