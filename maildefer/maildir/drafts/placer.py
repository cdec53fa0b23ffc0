"""Puts entries where they wait: in one rename from the folder in which they were made, by whoever knows of it."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import suppress

from maildefer.errors import MaildeferError
from maildefer.maildir import doubt, durable, names
from maildefer.maildir.due import report_push
from maildefer.maildir.journal import Journal, journal_of
from maildefer.maildir.journal_file import REPEATED
from maildefer.maildir.layout import Layout, mend
from maildefer.maildir.rights.modes import Rights, rights_in
from maildefer.maildir.system import SYSTEM, System


class DraftPlacer:
    """Puts the drafts of one queue where they wait; any thread. All calls raise OSError.

    A draft is given with its marker: the name that it will have, but for a due time.
    """

    def __init__(self, layout: Layout, *, journal: Journal | None = None, system: System = SYSTEM) -> None:
        self.journal = journal or journal_of(layout, system)
        self._layout = layout
        self._system = system
        self._known_rights: Rights | None = None
        self._new_folder = durable.DirectorySync(layout.new, system=system)
        self._later_folder = durable.DirectorySync(layout.later_new, system=system)

    @property
    def rights(self) -> Rights:
        """The rights as they were at the first push, so that not every push looks at the queue's folder."""
        if self._known_rights is None:
            self._known_rights = rights_in(self._layout.path, self._system)
        return self._known_rights

    def note_origin(self, key: str, data: bytes) -> None:
        """Have the journal tell where an entry is from, by its first bytes, before it is put where it waits."""
        if self.journal is not None:
            self.journal.record_origin(key, data)

    def note_repeated(self, keys: Sequence[str]) -> None:
        """Have the journal tell that a push is answered with these, though another has moved them, or may have.

        That one may have died before it could record them.
        """
        if self.journal is not None:
            for key in keys:
                self.journal.record_note(key, {REPEATED: 1}, "pushed")

    def place_of(self, marker: str) -> str:
        """Return where an entry is put: a worker moves what is not due, and could not be put into `.later/`, there."""
        if names.FOR_LATER not in marker:
            return f"{self._layout.new}/{marker}"
        name = names.first_name(marker)
        is_claimable = name == marker or self.rights.only_puts_in
        return f"{self._layout.new if is_claimable else self._layout.later_new}/{name}"

    def finish(self, drafts: Sequence[tuple[str, str]]) -> list[str]:
        """Put synced drafts where they wait, durable, unless that was done: by this process, or by any other.

        Returns the markers of those that this call has moved, as far as the replies tell.
        """
        moved = self.move_all(drafts)
        self.commit([marker for _, marker in drafts], moved)
        return moved

    def move_all(self, drafts: Sequence[tuple[str, str]], *, is_last: bool = False) -> list[str]:
        """Rename drafts, all in one folder, to where they wait; returns the markers of those that this call has moved.

        A draft that is not in its folder any more was moved before, wherever its entry is by now.
        """
        moved, failed, fault = [], [], None
        for draft, marker in drafts:
            try:
                self._system.rename(draft, self.place_of(marker))
                moved.append(marker)
            except OSError as raised:
                if raised.errno not in doubt.DOUBTFUL:
                    raise
                failed.append((draft, marker))
                fault = raised
        return moved if fault is None else moved + self.move_left(failed, fault, is_last=is_last)

    def move_left(
        self, drafts: Sequence[tuple[str, str]], fault: OSError, *, is_last: bool = False
    ) -> list[str]:
        """Settle that fault of their renames, and rename those that are left; returns what `move_all` returns."""
        if fault.errno not in doubt.DOUBTFUL:
            raise fault
        if not (left := self._left(drafts)):
            return []
        if is_last or fault.errno != errno.ENOENT:
            raise fault
        with suppress(MaildeferError):  # the queue is gone, or the filesystem refuses: the next try tells
            mend(self._layout, system=self._system)
        return self.move_all(left, is_last=True)

    def _left(self, drafts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return those of these drafts that a fresh listing still shows."""
        folder = drafts[0][0].rpartition("/")[0]
        try:
            if folder != self._layout.tmp:
                self._system.utime(folder.rpartition("/")[0])  # an NFS client may have looked it up in vain
            there = set(doubt.fresh_listing(folder, self._system))
        except FileNotFoundError:
            if folder == self._layout.tmp:
                raise
            return []  # freed meanwhile, since its entry has ended
        return [draft for draft in drafts if draft[0].rpartition("/")[2] in there]

    def commit(self, markers: Sequence[str], moved: Sequence[str], *, are_durable: bool = False) -> None:
        """Make the places of entries durable, unless they are, and record the push of those keys that were moved."""
        due = [self.place_of(each) for each in markers if names.FOR_LATER in each]
        later = [place for place in due if place.startswith(self._layout.later_new)] if due else due
        if len(later) < len(markers) and not are_durable:
            self._new_folder.sync()
        if later and not are_durable:
            self._later_folder.sync()
        if moved and self.journal is not None:
            self.journal.record_pushes(moved)
        for place in later:
            report_push(place)
