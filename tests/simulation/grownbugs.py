"""Planted bugs of folders that are replaced: each function gets what is there, and returns what stands in its place."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from maildefer.maildir.drafts.folder import FolderDraft
from maildefer.maildir.rights.folder import FRESH


def moved_away(old: Any) -> Any:
    """The grown folder is moved away where it was seen empty, and a fresh one put in its place."""

    def replace_folder(layout: Any, path: str, facts: Any, *, system: Any) -> bool:
        if system.listdir(path):
            return False
        draft = FolderDraft(layout, FRESH, system=system)
        with suppress(OSError):
            system.rename(path, f"{draft.path}-away")
        return draft.place(path)

    return replace_folder


def emptied_first(old: Any) -> Any:
    """What keeps a folder from being replaced goes."""

    def place(self: Any, place: str, make_parent: Any = None) -> bool:
        while not old(self, place, make_parent):
            if not place.endswith("/new"):
                return False
            for name in self._system.listdir(place):
                self._system.unlink(f"{place}/{name}")
        return True

    return place


def never_again(old: Any) -> Any:
    """A push whose folder was replaced meanwhile is not tried again."""

    def move_left(self: Any, drafts: Any, fault: OSError, *, is_last: bool = False) -> Any:
        return old(self, drafts, fault, is_last=True)

    return move_left
