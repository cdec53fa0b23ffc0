"""Which modes what is made in a queue has, where a front end of another user shares it.

A queue is its user's, and as far as the umask goes its group's. `maildefer permissions` shares it with a front end that
runs as another user, a member of a group that the workers' user is in too:

    queue/                   3710   sticky, which changes nothing here: it says that the queue is so shared
        tmp/  new/           3770   the group puts in, and takes out what is its own; the owner takes out all
        .maildefer/          2710
            format           0640
            journal/         3730   the group puts in
            all else         2700, 0600
        all else             2700, 0600

So what the owner makes in `tmp/` is for nobody else, and what others make is for the group to read, since the owner
must read it.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, replace
from typing import Final

from maildefer.maildir.rights.confined import inside, unconfined
from maildefer.maildir.rights.folder import opened
from maildefer.maildir.system import SYSTEM, System

QUEUE_MODE: Final = 0o3710
FORMAT_MODE: Final = 0o640
PRIVATE_FOLDER_MODE: Final = 0o2700
FOLDER_MODES: Final = {  # by the path below the queue; all others are private
    "tmp": 0o3770,
    "new": 0o3770,
    ".maildefer": 0o2710,
    ".maildefer/journal": 0o3730,
}
OWNERS_FILE_MODE: Final = 0o600
OTHERS_FILE_MODE: Final = 0o640
_SHARED: Final = stat.S_ISVTX | stat.S_ISGID
_WRITABLE: Final = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """Of what one process makes in one queue."""

    is_shared: bool = False
    file_mode: int = 0o660
    folder_mode: int = 0o770
    owner: int = -1  # to whom root gives what it makes,
    group: int = -1  # and the group that it has by then from its folder
    exceeds_umask: bool = False

    def give(self, descriptor: int) -> None:
        """What was just made gets its owner, or what the umask has taken from it: mostly nothing. Raises OSError."""
        if self.owner >= 0:
            if (
                os.fstat(descriptor).st_gid != self.group
            ):  # else by a link it gives away what is in another folder
                raise PermissionError(errno.EPERM, "what was made there did not get the queue's group")
            os.fchown(descriptor, self.owner, -1)
        if self.exceeds_umask:
            os.fchmod(descriptor, self.file_mode)

    def of_format(self) -> Rights:
        """For the one file that the front end may read."""
        return replace(self, file_mode=FORMAT_MODE, exceeds_umask=True) if self.is_shared else self


PLAIN: Final = Rights()


def rights_in(path: str, system: System = SYSTEM) -> Rights:
    """What this process's files are to be in the queue at that path. A model of a filesystem knows no users."""
    if unconfined(system) is not SYSTEM:
        return PLAIN
    try:
        facts = os.stat(path)
    except OSError:
        return PLAIN
    if not is_shared(facts):
        return PLAIN
    user = os.geteuid()
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
    )


def is_shared(queue: os.stat_result) -> bool:
    """Whether a queue whose folder is this is shared with a front end of another user."""
    return queue.st_mode & _SHARED == _SHARED and not queue.st_mode & _WRITABLE


def is_shared_at(path: str, system: System = SYSTEM) -> bool:
    """Whether the queue at that path is; also where nobody can tell now, so that no fault is taken for a no."""
    try:
        return is_shared(system.lstat(f"{path}/."))  # not of a link, where the queue's path is one
    except OSError:
        return True


def make_in(queue: str, below: str, system: System) -> bool:
    """A folder of a queue, whose group it inherits; whether it was made now, by this call. Raises OSError.

    One that is to be moved elsewhere is made private, and gets the modes of its new place by `give_folder`.
    """
    rights = rights_in(queue, system)
    if not make_directory(f"{queue}/{below}", rights.folder_mode, inside(queue, system)):
        return False
    if rights.is_shared:
        give_folder(queue, below, rights)
    return True


def make_directory(path: str, mode: int, system: System) -> bool:
    """Whether it was made now, by this call: else it is there, made before, or by another host just now."""
    try:
        system.mkdir(path, mode)
    except FileExistsError:
        return False
    except PermissionError as fault:
        try:  # NFS says this of what is there too, where nothing more may be made beside it
            system.lstat(path)
        except OSError:
            raise fault from None
        return False
    return True


def give_folder(queue: str, below: str, rights: Rights) -> None:
    """A folder that we have just made gets the mode, and from root the owner, that it is to have. Raises OSError."""
    with opened(queue, *below.split("/")) as made:
        if rights.owner >= 0:
            os.fchown(made.descriptor, rights.owner, -1)
        mode = FOLDER_MODES.get(below, PRIVATE_FOLDER_MODE)
        # Mostly it has inherited that, and a service may be forbidden to set such bits (RestrictSUIDSGID=).
        if stat.S_IMODE(os.fstat(made.descriptor).st_mode) != mode:
            os.fchmod(made.descriptor, mode)


def umask() -> int:
    """This process's, which can't be asked for but by setting another: one that hides more, for that moment."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
