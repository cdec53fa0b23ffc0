"""Sharing a queue with a front end of another user: as commands for a shell, or the same changes by descriptor.

If others may write to the queue's folders already, only the latter is safe for root: each folder is opened once, from
the queue on, no link is followed, and only plain files without a second name are changed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

from maildefer.errors import ConfigurationError, NotAQueue
from maildefer.maildir.rights.folder import Folder, open_folder
from maildefer.maildir.rights.modes import (
    FOLDER_MODES,
    FORMAT_MODE,
    OTHERS_FILE_MODE,
    OWNERS_FILE_MODE,
    PRIVATE_FOLDER_MODE,
    QUEUE_MODE,
)

_REQUIRED: Final = {"tmp", "new", "cur", ".maildefer"}
_PLACES: Final = (  # the folders of entries, and of the journal's records
    *("tmp", "new", "cur", ".maildefer/journal"),
    *(f"{folder}/{part}" for folder in (".later", ".dead", ".done") for part in ("tmp", "new", "cur")),
)
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEndAccount:
    """The user that a front end becomes, and the group by which it may use a queue."""

    user: int
    group: int


@dataclass(slots=True)
class SharingResult:
    changed: int = 0
    left: list[str] = field(default_factory=list)  # what was not changed, and why


def sharing_commands(queue: str, front_end: FrontEndAccount) -> Iterator[list[str]]:
    """Return the commands that the queue's owner, if it is a member of the group, or root has to give, unquoted.

    Raises ConfigurationError, NotAQueue, OSError.
    """
    with _opened(queue, front_end) as (_, owner):
        pass
    control, one = f"{queue}/.maildefer", ("-mindepth", "1", "-maxdepth", "1")
    for place, known in ((queue, ("tmp", "new", ".maildefer")), (control, ("journal", "idempotency"))):
        folders = ["find", place, *one, "-type", "d"]
        others = [word for name in known for word in ("!", "-name", name)]
        if owner:
            yield [*folders, "-user", "0", "-exec", "chown", f"{owner}", "{}", "+"]
        yield [*folders, *others, "-exec", "chmod", f"{PRIVATE_FOLDER_MODE:o}", "{}", "+"]
        files = ["find", place, *one, "-type", "f", "-links", "1", "!", "-name", "format"]
        yield [*files, "-exec", "chmod", "go=", "{}", "+"]
    places = [f"{queue}/{place}" for place in _PLACES if os.path.isdir(f"{queue}/{place}")]
    files = ["find", *places, *one, "-type", "f", "-links", "1"]
    ours, its = ("-user", f"{owner}"), ("-user", f"{front_end.user}")
    yield [*files, *ours, "-exec", "chmod", f"{OWNERS_FILE_MODE:o}", "{}", "+"]
    give = ("-exec", "chgrp", f"{front_end.group}", "{}", "+")
    yield [*files, *its, *give, "-exec", "chmod", f"{OTHERS_FILE_MODE:o}", "{}", "+"]
    yield [*files, "!", *ours, "!", *its, "-exec", "chmod", "u-x,g-wx,o=", "{}", "+"]
    shared = [below for below in FOLDER_MODES if os.path.isdir(f"{queue}/{below}")]
    paths = [f"{queue}/{below}" for below in shared]
    yield ["chgrp", f"{front_end.group}", queue, *paths, f"{control}/format"]
    yield ["chmod", f"{FORMAT_MODE:o}", f"{control}/format"]
    for below, path in zip(shared, paths, strict=True):
        yield ["chmod", f"{FOLDER_MODES[below]:o}", path]
    yield ["chmod", f"{QUEUE_MODE:o}", queue]


def share_queue(queue: str, front_end: FrontEndAccount) -> SharingResult:
    """Give the front end the rights that it needs, and take all others from it; a second call changes nothing.

    For root, or for the queue's owner if that is a member of the group. Raises ConfigurationError, NotAQueue,
    OSError.
    """
    with _opened(queue, front_end) as (top, owner):
        if os.geteuid() not in (0, owner):
            raise ConfigurationError(f"{queue} belongs to user {owner}: run this as that user, or as root")
        sharer = _Sharer(top, owner, front_end)
        sharer.share_all()
        return sharer.result


@contextmanager
def _opened(queue: str, front_end: FrontEndAccount) -> Iterator[tuple[Folder, int]]:
    """Open the queue's folder, which must be no link; yields it with its owner."""
    with open_folder(os.path.dirname(queue), os.path.basename(queue) or ".") as top:
        if lacking := _REQUIRED - set(top.names()):
            raise NotAQueue(queue, f"it has no {', '.join(sorted(lacking))}")
        owner = os.fstat(top.descriptor).st_uid
        if owner == front_end.user:
            raise ConfigurationError(
                f"{queue} belongs to user {owner} itself, who may do all in it: name the front end's user by --user, "
                "or give the queue to the workers' user (chown -R)"
            )
        yield top, owner


class _Sharer:
    """Changes the rights of one queue, once."""

    def __init__(self, top: Folder, owner: int, front_end: FrontEndAccount) -> None:
        self._top = top
        self._owner = owner
        self._front_end = front_end
        self.result = SharingResult()

    def share_all(self) -> None:
        """Change private folders first, and last the queue's own folder, which gives the group access."""
        for place in ("", ".maildefer"):
            with self._folder(place) as folder:
                if folder is not None:
                    self._make_private(folder, place)
        for place in _PLACES:
            with self._folder(place) as folder:
                if folder is not None:
                    self._set_file_rights(folder, place)
        for place, mode in FOLDER_MODES.items():
            with self._folder(place) as folder:
                if folder is not None:
                    self._set_folder_rights(folder.descriptor, place, mode, self._front_end.group)
        self._set_folder_rights(self._top.descriptor, "", QUEUE_MODE, self._front_end.group)

    @contextmanager
    def _folder(self, below: str) -> Iterator[Folder | None]:
        """Open a folder of the queue; None if it is missing, or if a link has its name."""
        with ExitStack() as stack:
            folder: Folder | None = self._top
            for name in below.split("/") if below else ():
                try:
                    folder = stack.enter_context(folder.folder(name)) if folder is not None else None
                except FileNotFoundError:
                    folder = None
                except NotADirectoryError:
                    self._note_left(below, "is a link, or no folder")
                    folder = None
            yield folder

    def _make_private(self, folder: Folder, below: str) -> None:
        """Make all files and folders in it private, except those to which the front end has rights."""
        for name in folder.names():
            place = f"{below}/{name}".lstrip("/")
            facts = folder.lstat(name)
            if stat.S_ISDIR(facts.st_mode):
                with self._folder(place) as inner:
                    if inner is not None:
                        self._set_folder_rights(
                            inner.descriptor,
                            place,
                            PRIVATE_FOLDER_MODE if place not in FOLDER_MODES else None,
                        )
            elif place == ".maildefer/format":
                self._set_rights(folder, name, place, FORMAT_MODE, self._front_end.group)
            elif stat.S_ISREG(facts.st_mode):
                if facts.st_uid != self._owner:
                    self._note_left(place, f"belongs to user {facts.st_uid}: see what it is, and remove it")
                self._set_rights(folder, name, place, facts.st_mode & 0o600)
            else:
                self._note_left(place, "is a link, or no folder")

    def _set_file_rights(self, folder: Folder, below: str) -> None:
        """Set the rights of entries or records: of the owner's and the front end's; others only lose rights."""
        for name in folder.names():
            try:
                facts = folder.lstat(name)
            except FileNotFoundError:  # claimed meanwhile
                continue
            if not stat.S_ISREG(facts.st_mode):
                continue
            if facts.st_uid == self._owner:
                self._set_rights(folder, name, below, OWNERS_FILE_MODE)
            elif facts.st_uid == self._front_end.user:
                self._set_rights(folder, name, below, OTHERS_FILE_MODE, self._front_end.group)
            else:
                self._set_rights(folder, name, below, facts.st_mode & (0o600 | OTHERS_FILE_MODE))

    def _set_rights(self, folder: Folder, name: str, below: str, mode: int, group: int | None = None) -> None:
        facts = folder.lstat(name)
        if _has(facts, mode, group):
            return
        try:
            descriptor = folder.open(name, _READ)
        except OSError as fault:
            self._note_left(below, f"has a file that can't be opened: {fault.strerror}")
            return
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
                self._note_left(below, "has a file of more than one name: see whose it is, and remove it")
            else:
                self._change(descriptor, facts, mode, group)
        finally:
            os.close(descriptor)

    def _set_folder_rights(
        self, descriptor: int, below: str, mode: int | None, group: int | None = None
    ) -> None:
        """Set the rights of a folder that belongs to the owner, or to root, which then gets the owner."""
        facts = os.fstat(descriptor)
        if facts.st_uid == 0 != self._owner and os.geteuid() == 0:
            os.fchown(descriptor, self._owner, -1)
            self.result.changed += 1
        elif facts.st_uid != self._owner:
            self._note_left(
                below, f"belongs to user {facts.st_uid}, not to the queue's owner: see what it is"
            )
            return
        self._change(descriptor, facts, stat.S_IMODE(facts.st_mode) if mode is None else mode, group)

    def _change(self, descriptor: int, facts: os.stat_result, mode: int, group: int | None) -> None:
        if _has(facts, mode, group):
            return
        if group is not None and facts.st_gid != group:
            os.fchown(descriptor, -1, group)
        os.fchmod(descriptor, mode)
        self.result.changed += 1

    def _note_left(self, below: str, why: str) -> None:
        if (text := f"{below} {why}") not in self.result.left:
            self.result.left.append(text)


def _has(facts: os.stat_result, mode: int, group: int | None) -> bool:
    return stat.S_IMODE(facts.st_mode) == mode and group in (None, facts.st_gid)
