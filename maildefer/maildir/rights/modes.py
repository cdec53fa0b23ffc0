"""The modes of files and folders that are made in a queue, also in one that a front end of another user shares.

A queue belongs to its user, and to its group as far as the umask permits. `maildefer permissions` shares it with a
front end that runs as another user, who is a member of a group that the workers' user is in too:

    queue/                   3710   the sticky bit has no effect here: it marks that the queue is shared in this way
        tmp/  new/           3770   members of the group put files in and remove their own; the owner removes all
        .maildefer/          2710
            format           0640
            journal/         3730   members of the group put files in
            idempotency/     3770   members of the group put folders in, 0770, which the owner empties
            all else         2700, 0600
        all else             2700, 0600

So only the owner can read the files that it makes in `tmp/`, and the group can read the files of others, since the
owner must read them.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, replace
from typing import Final

from maildefer.maildir.rights.confined import confined_to, unconfined
from maildefer.maildir.rights.folder import open_folder
from maildefer.maildir.system import SYSTEM, System

QUEUE_MODE: Final = 0o3710
FORMAT_MODE: Final = 0o640
PRIVATE_FOLDER_MODE: Final = 0o2700
FOLDER_MODES: Final = {  # by the path below the queue; all others are private
    "tmp": 0o3770,
    "new": 0o3770,
    ".maildefer": 0o2710,
    ".maildefer/journal": 0o3730,
    ".maildefer/idempotency": 0o3770,
}
GROUPS_FOLDER_MODE: Final = 0o770
OWNERS_FILE_MODE: Final = 0o600
OTHERS_FILE_MODE: Final = 0o640
_SHARED: Final = stat.S_ISVTX | stat.S_ISGID
_WRITABLE: Final = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """The rights of the files and folders that one process makes in one queue."""

    is_shared: bool = False
    file_mode: int = 0o660
    folder_mode: int = 0o770
    owner: int = -1  # the user to whom root gives what it makes,
    group: int = -1  # and the group: of a shared queue, it must have got that from its folder
    below: str = ""  # of any other queue: where it must lie
    exceeds_umask: bool = False
    only_puts_in: bool = False  # this user may write to `tmp/` and `new/` only

    @property
    def gives(self) -> bool:
        """Whether a new folder needs another owner or mode than it gets by itself."""
        return self.is_shared or self.owner >= 0

    def give(self, descriptor: int) -> None:
        """Give a new file its owner, or the rights that the umask has removed; often there is nothing to do. Raises
        OSError."""
        if self.owner >= 0:
            self._must_be_in_queue(descriptor)
            self.give_owner(descriptor)
        if self.exceeds_umask:
            os.fchmod(descriptor, self.file_mode)

    def give_owner(self, descriptor: int) -> None:
        """Give what is in the queue to its owner; where a server takes root for nobody, it stays as it is."""
        try:
            os.fchown(descriptor, self.owner, self.group)
        except PermissionError:
            if self.is_shared:
                raise

    def _must_be_in_queue(self, descriptor: int) -> None:
        """Raise PermissionError for a file that a link has led to another folder: root would give that away."""
        if self.is_shared:
            if os.fstat(descriptor).st_gid != self.group:
                raise PermissionError(errno.EPERM, "what was made there did not get the queue's group")
        elif not os.readlink(f"/proc/self/fd/{descriptor}").startswith(f"{self.below}/"):
            raise PermissionError(errno.EPERM, "what was made there is not in the queue")

    def of_format(self) -> Rights:
        """Return the rights of the format file, the one file that the front end may read."""
        return replace(self, file_mode=FORMAT_MODE, exceeds_umask=True) if self.is_shared else self


PLAIN: Final = Rights()


def rights_in(path: str, system: System = SYSTEM) -> Rights:
    """Return the rights of this process's files in the queue at that path. A model of a filesystem has no users."""
    if unconfined(system) is not SYSTEM:
        return PLAIN
    user = os.geteuid()
    try:
        facts = os.stat(path)
        if not is_shared(facts):
            return PLAIN if user or not facts.st_uid else _of_another_user(path)
    except OSError:
        return PLAIN
    if user == facts.st_uid:
        return Rights(is_shared=True, file_mode=OWNERS_FILE_MODE, folder_mode=0o700)
    if user == 0:
        private = Rights(is_shared=True, file_mode=OWNERS_FILE_MODE, folder_mode=0o700)
        return replace(private, owner=facts.st_uid, group=facts.st_gid)
    return Rights(
        is_shared=True,
        file_mode=OTHERS_FILE_MODE,
        folder_mode=0o700,
        exceeds_umask=bool(umask() & OTHERS_FILE_MODE),
        only_puts_in=True,
    )


def _of_another_user(path: str) -> Rights:
    """The rights with which root makes what the queue's owner has to read and remove. Raises OSError."""
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        facts = os.fstat(descriptor)
        real = os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return replace(PLAIN, owner=facts.st_uid, group=facts.st_gid, below=real) if facts.st_uid else PLAIN


def is_shared(queue: os.stat_result) -> bool:
    """Whether the queue is shared with a front end of another user, by the mode of its folder."""
    return queue.st_mode & _SHARED == _SHARED and not queue.st_mode & _WRITABLE


def is_shared_at(path: str, system: System = SYSTEM) -> bool:
    """Whether the queue at that path is shared; also True on a fault, so that no fault counts as "not shared"."""
    try:
        return is_shared(system.lstat(f"{path}/."))  # not of a link, where the queue's path is one
    except OSError:
        return True


def make_in(queue: str, below: str, system: System) -> bool:
    """Make a folder in a queue, which inherits its group; returns whether this call made it. Raises OSError.

    A folder that will be moved is made private; `give_folder` then gives it the mode of its new place.
    """
    rights = rights_in(queue, system)
    if not make_directory(f"{queue}/{below}", rights.folder_mode, confined_to(queue, system)):
        return False
    if rights.gives:
        give_folder(queue, below, rights)
    return True


def make_for_group(queue: str, below: str, system: System) -> None:
    """Make a folder that whoever shares the queue may change, unless it is there. Raises OSError."""
    rights = rights_in(queue, system)
    if make_directory(f"{queue}/{below}", rights.folder_mode, system) and rights.gives:
        give_folder(queue, below, rights, GROUPS_FOLDER_MODE)


def make_directory(path: str, mode: int, system: System) -> bool:
    """Make a directory; False if it exists: it was made before, or by another host at the same moment."""
    try:
        system.mkdir(path, mode)
    except FileExistsError:
        return False
    except PermissionError as fault:
        try:  # NFS returns this also for an existing directory, if the user may make nothing in its parent
            system.lstat(path)
        except OSError:
            raise fault from None
        return False
    return True


def give_folder(queue: str, below: str, rights: Rights, mode: int | None = None) -> None:
    """Give a folder that this process has made its mode, and, as root, its owner. Raises OSError."""
    with open_folder(queue, *below.split("/")) as made:
        if rights.owner >= 0:
            rights.give_owner(made.descriptor)
        if not rights.is_shared:
            return
        if mode is None:
            mode = FOLDER_MODES.get(below, PRIVATE_FOLDER_MODE)
        # The mode is often inherited already, and a service may be forbidden to set such bits (RestrictSUIDSGID=).
        if stat.S_IMODE(os.fstat(made.descriptor).st_mode) != mode:
            os.fchmod(made.descriptor, mode)


def umask() -> int:
    """Return this process's umask. It can only be read by setting another: a stricter one, for that moment."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
