"""A marker's folder while it is made in `tmp/`: the marker and its entry, synced before the folder is renamed."""

from __future__ import annotations

import errno
from contextlib import suppress

from maildefer.maildir import doubt, durable
from maildefer.maildir.drafts.folder import FolderDraft
from maildefer.maildir.layout import Layout
from maildefer.maildir.markers.names import DRAFT, ENDED, MARKER_DRAFT, key_in
from maildefer.maildir.rights.folder import Folder
from maildefer.maildir.rights.modes import Rights
from maildefer.maildir.system import System


def clear_marker(draft: Folder) -> None:
    """Empty what a crash has left of a marker's folder in `tmp/`, in the order of `MarkerDraft.withdraw`."""
    names = draft.names()
    ended = [name for name in names if name.endswith(ENDED)]
    for name in names:
        if name.endswith(DRAFT):
            ended.append(f"{name.removesuffix(DRAFT)}{ENDED}")  # btrfs would not list it as soon as this
            draft.rename(name, draft, ended[-1])
    draft.remove(name for name in names if not name.endswith((DRAFT, ENDED)))
    draft.remove(ended)


class MarkerDraft(FolderDraft):
    """The folder of a marker and of its entry, if `data` is given; for one thread. All calls raise OSError."""

    def __init__(self, layout: Layout, marker: str, rights: Rights, system: System) -> None:
        super().__init__(layout, MARKER_DRAFT, rights=rights, system=system)
        self.marker = marker
        self.key = key_in(marker)
        self.descriptor = -1
        self.is_alone = False  # without an entry
        self.keeps_order = False  # the filesystem: what comes last is on the disk after all that is before it

    def write_marker(self, data: bytes | None) -> None:
        """Write marker and entry, and sync them. None: the entry exists already.

        Both are there before the first sync, so that one commit of ext4's journal has both names. Where the
        filesystem keeps order, the entry's bytes alone need a sync.
        """
        self.is_alone = data is None
        if data is not None:
            entry = f"{self.path}/{self.marker}{DRAFT}"
            self.descriptor = durable.begin_file(entry, data, rights=self.rights, system=self._system)
        marker = f"{self.path}/{self.marker}"
        descriptor = durable.begin_file(marker, b"", rights=self.rights, system=self._system)
        try:
            self.keeps_order = durable.keeps_order(self._system.fstat(descriptor).st_dev)
        finally:
            self._system.close(descriptor)
        if data is not None:
            self._system.fsync(self.descriptor)
        if self.keeps_order:
            self.give()
        else:
            self.sync()

    def has_link(self) -> bool:
        """Whether the entry is still somewhere: else it was swept, or somebody has pushed it and it has ended."""
        if self.descriptor < 0:  # it was not written here
            return True
        try:
            return self._system.fstat(self.descriptor).st_nlink > 0
        except OSError as fault:
            if fault.errno != errno.ESTALE:
                raise
            return False

    def close(self) -> None:
        if self.descriptor >= 0:
            self._system.close(self.descriptor)
            self.descriptor = -1

    def withdraw(self, place: str) -> None:
        """Remove the folder, or what of it a request that is executed late puts at `place`; raises nothing.

        The entry is made one that has ended before its marker goes, so that nobody takes it for one that was pushed.
        If somebody has pushed it meanwhile, all stays.
        """
        self.close()
        ended = f"{self.key}{ENDED}"
        for folder in (self.path, place):
            if self._is_ended(folder, ended):
                if self._is_removed(self.marker, place):  # else that stays as evidence
                    self._is_removed(ended, place)
                break
        else:
            if self.is_alone:
                self._is_removed(self.marker, place)
        with suppress(OSError):
            self._system.rmdir(self.path)

    def _is_ended(self, folder: str, ended: str) -> bool:
        """Rename the entry there to one that has ended; whether it is, by a listing where a reply may be lost."""
        with suppress(OSError):
            self._system.rename(f"{folder}/{self.marker}{DRAFT}", f"{folder}/{ended}")
            return True
        with suppress(OSError):
            return doubt.is_listed(folder, ended, self._system)
        return False

    def _is_removed(self, name: str, place: str) -> bool:
        for folder in (self.path, place):
            try:
                self._system.unlink(f"{folder}/{name}")
            except FileNotFoundError:
                continue
            except OSError:
                return False
            break
        return True
