"""Planted bugs of unique keys: each function gets what is there and returns what is to stand in its place."""

from __future__ import annotations

import os
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from maildefer.maildir.markers.finder import Marked
from maildefer.maildir.markers.names import DRAFT, path_in_key


def taken_by_force(old: Any) -> Any:
    """The place is emptied where it is held, as if a rename replaced what is there."""

    def take(self: Any, draft: Any, place: str) -> bool:
        while not old(self, draft, place):
            for name in self._system.listdir(place):
                self._system.unlink(f"{place}/{name}")
        return True

    return take


def taken_in_doubt(old: Any) -> Any:
    def take(self: Any, draft: Any, place: str) -> bool:
        try:
            self._system.rename(draft.path, place)
        except FileNotFoundError:
            return bool(old(self, draft, place))
        except OSError as fault:
            return fault.errno not in (39, 17)
        return True

    return take


def freed_first(old: Any) -> Any:
    """The marker goes before its entry has ended."""

    def end_entry(layout: Any, path: str, key: str, *, system: Any) -> None:
        if place := path_in_key(layout, key):
            with suppress(OSError):
                system.unlink(f"{place}/{key}")
        system.unlink(path)

    return end_entry


def freed_whole(old: Any) -> Any:
    """Whatever is in the marker's folder goes."""

    def free(place: str, key: str, returns: int | None, system: Any) -> None:
        for name in system.listdir(place):
            if not name.endswith(".ended"):
                system.unlink(f"{place}/{name}")

    return free


def unsynced(old: Any) -> Any:
    return SimpleNamespace(**{**vars(old), "sync_directory": lambda path, *, system, opened=-1: None})


def order_trusted(old: Any) -> Any:
    """As if each filesystem kept the order of changes."""
    return SimpleNamespace(**{**vars(old), "keeps_order": lambda device: True})


def found_unfinished(old: Any) -> Any:
    """Whoever finds a marker leaves its entry where it is."""
    return lambda self, place, state: Marked(key=state.key, is_new=False)


def folder_unsynced(old: Any) -> Any:
    def begin(self: Any, *facts: Any, **more: Any) -> None:
        old(self, *facts, **more)
        self._is_folder_synced = True

    return begin


def entry_unsynced(old: Any) -> Any:
    def begin(self: Any, *facts: Any, **more: Any) -> None:
        old(self, *facts, **more)
        self.placer._new_folder = self.placer._later_folder = SimpleNamespace(sync=lambda: None)

    return begin


def without_evidence(old: Any) -> Any:
    return property(lambda self: False)


def discarded_plainly(old: Any) -> Any:
    """A push that is given up removes its entry, and leaves what a late request has made of its marker."""

    def withdraw(self: Any, place: str) -> None:
        self.close()
        for folder in (self.path, place):
            with suppress(OSError):
                self._system.unlink(f"{folder}/{self.marker}{DRAFT}")
        for name in (self.marker, ""):
            with suppress(OSError):
                self._system.unlink(os.path.join(self.path, name)) if name else self._system.rmdir(self.path)

    return withdraw


def seen_once(old: Any) -> Any:
    """One round of listings, whatever the marker's time."""
    return SimpleNamespace(
        has_entry=lambda folder, key, *, system: (
            folder.endswith("/new") and old.has_entry(folder, key, system=system)
        )
    )


def swept_plainly(old: Any) -> Any:
    def clear(draft: Any) -> None:
        draft.remove(draft.names())

    return clear


def never_asked_again(old: Any) -> Any:
    """A claim is sent however long the touch of its marker has taken."""

    def begin(self: Any, *facts: Any, **more: Any) -> None:
        old(self, *facts, **more)
        self._permit = lambda: True

    return begin


def never_held(old: Any) -> Any:
    """What a mail reader has moved is handled without its unique key."""
    return lambda claim, layout, **more: claim
