"""Removes what is kept of requests once it is a day old, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from maildefer.maildir.layout import Layout
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.rights.folder import ONCE, Folder, clear_draft, open_folder
from maildefer.maildir.system import SYSTEM, System

KEPT_SECONDS: Final = 86400.0
_MOST_FOLDERS: Final = 32  # folders of markers that are looked at in one pass


class Expirer:
    """The passes over one queue's markers; one thread only. Each goes on where the one before has ended."""

    below = "idempotency"
    made_as = ONCE  # as their folders in `tmp/`
    kept_seconds = KEPT_SECONDS
    most = 100  # markers that are looked at in one pass

    def __init__(self, layout: Layout, *, system: System = SYSTEM) -> None:
        self._layout = layout
        self._system = confined_to(layout.path, system)
        # A folder, and the last name in it that was looked at; each host begins elsewhere.
        self._begin = self._system.token(1), ""

    def expire(self, mount_time: float) -> int:
        """Look at the next markers, and remove those that are old by the mount's time; returns how many. Raises
        OSError."""
        before = mount_time - self.kept_seconds
        with open_folder(self._layout.path, ".maildefer", self.below, system=self._system) as top:
            return sum(
                self._is_removed(top, *place, before) for place in self._over(self._next_old(top, before))
            )

    def _over(self, old: list[tuple[str, str]]) -> Iterable[tuple[str, str]]:
        """Return which of the old markers, by folder and name, are to be removed."""
        return old

    def _next_old(self, top: Folder, before: float) -> list[tuple[str, str]]:
        left, old = self.most, list[tuple[str, str]]()
        bucket, after = self._begin
        names = sorted(top.names())
        following = [name for name in names if name >= bucket] + [name for name in names if name < bucket]
        for name in following[:_MOST_FOLDERS]:
            self._begin = f"{name}/", ""  # what sorts behind it
            try:
                with top.folder(name) as folder:
                    markers = sorted(each for each in folder.names() if name != bucket or each > after)
                    old += [(name, each) for each in markers[:left] if self._is_old(folder, each, before)]
            except OSError:  # no folder, or not ours to look into: the others are cleared all the same
                continue
            if len(markers) >= left:
                self._begin = name, markers[left - 1]
                break
            left -= len(markers)
        return old

    def _is_old(self, folder: Folder, name: str, before: float) -> bool:
        try:
            return folder.lstat(name).st_mtime < before
        except OSError:  # another keeper has removed it
            return False

    def _is_removed(self, top: Folder, bucket: str, name: str, before: float) -> bool:
        """Remove a marker that is older. What takes its place meanwhile is another folder, and stays."""
        try:
            with top.folder(bucket) as folder:
                with folder.folder(name) as marker:
                    if self._system.fstat(marker.descriptor).st_mtime >= before:
                        return False
                    clear_draft(marker, self.made_as)
                folder.rmdir(name)
        except OSError:  # another keeper has removed it, or the next pass meets the fault again
            return False
        return True
