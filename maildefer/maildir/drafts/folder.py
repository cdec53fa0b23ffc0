"""A folder that is made whole in `tmp/`, with all its files durable, and renamed into its place."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from contextlib import suppress

from maildefer.maildir import doubt, durable
from maildefer.maildir.layout import Layout, mend
from maildefer.maildir.rights.folder import open_folder
from maildefer.maildir.rights.modes import Rights, give_folder, make_directory, rights_in
from maildefer.maildir.system import SYSTEM, System


class FolderDraft:
    """A folder that is made whole before it is seen, and then renamed into its place; for one thread.

    The filesystem refuses to rename a folder to one that is not empty. So of all who make one for the same place, one
    gets it. All calls but `discard` raise OSError.
    """

    def __init__(
        self,
        layout: Layout,
        begin: str,
        *,
        mode: int | None = None,
        rights: Rights | None = None,
        system: System = SYSTEM,
    ) -> None:
        """`begin`: of its name in `tmp/`, by which a sweep knows it; `mode`: where the queue is shared."""
        self.rights = rights or rights_in(layout.path, system)
        self.is_sent = self.is_doubted = False
        self._layout = layout
        self._mode = mode
        self._system = system
        self._files: list[str] = []
        self._name(f"{begin}{system.pid()}-{system.token(8)}")
        try:
            make_directory(self.path, self.rights.folder_mode, system)
        except FileNotFoundError:
            if not mend(layout, system=system):
                raise
            make_directory(self.path, self.rights.folder_mode, system)

    def _name(self, name: str) -> None:
        self.name, self.path = name, f"{self._layout.tmp}/{name}"

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write files, and make them and the folder durable."""
        self.create(files)
        self.sync()

    def create(self, files: Mapping[str, bytes]) -> None:
        """Write files that are durable with the folder, once that is synced."""
        for name, data in files.items():
            self._files.append(name)
            path = f"{self.path}/{name}"
            descriptor = durable.begin_file(path, data, rights=self.rights, system=self._system)
            try:
                if data:  # an empty one is durable with the folder
                    self._system.fsync(descriptor)
            finally:
                self._system.close(descriptor)

    def sync(self) -> None:
        """Make the folder durable, with its rights."""
        self.give()
        durable.sync_directory(self.path, system=self._system)

    def give(self) -> None:
        """Give the folder its rights. Its files have the queue's group before it has its mode."""
        if self.rights.gives:
            give_folder(self._layout.path, f"tmp/{self.name}", self.rights, self._mode)

    def place(self, place: str, make_parent: Callable[[], object] | None = None) -> bool:
        """Rename the folder into its place; False if that is held.

        After a doubtful reply (`is_doubted`) it is there if it is not in `tmp/` any more, unless a sweep removed it.
        """
        for last in (make_parent is None, True):
            try:
                self.is_sent = True
                self._system.rename(self.path, place)
                return True
            except OSError as fault:
                if fault.errno in doubt.NOT_EMPTY:
                    return False
                if fault.errno not in doubt.DOUBTFUL:
                    raise
                self.is_doubted = True
                if not doubt.is_listed(self._layout.tmp, self.name, self._system):
                    with suppress(OSError):  # an NFS client may know it by its old name until it was listed
                        doubt.fresh_listing(place, self._system)
                    return True
                if last or fault.errno != errno.ENOENT or make_parent is None:
                    raise
                make_parent()
        return False

    def discard(self) -> bool:
        """Remove the folder; False if it may be in its place, or get there: then all stays.

        If its rename was sent, it is renamed away before, where no late copy of that finds it.
        """
        if self.is_sent:
            away = f"{self.name.partition('-')[0]}-{self._system.pid()}-{self._system.token(8)}"
            try:
                self._system.rename(self.path, f"{self._layout.tmp}/{away}")
            except OSError:
                return False
            self._name(away)
        with suppress(OSError), open_folder(self._layout.path, "tmp", system=self._system) as tmp:
            with tmp.folder(self.name) as made:
                made.remove(self._files)
            tmp.rmdir(self.name)
        return True


def make_whole(layout: Layout, begin: str, files: Mapping[str, bytes], place: str, *, system: System) -> None:
    """Make a folder of these files at `place`, unless another process or host is first. Raises OSError."""
    draft = FolderDraft(layout, begin, system=system)
    try:
        draft.write(files)
        is_placed = draft.place(place)
    except OSError as fault:
        if fault.errno not in doubt.DOUBTFUL or not draft.is_sent:
            draft.discard()  # else it may yet get there, and must stay complete
        raise
    if not is_placed:
        draft.discard()
