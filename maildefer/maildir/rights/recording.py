"""The right to write to a queue's journal: every user that may push must have it, or the audit misses records."""

from __future__ import annotations

import errno
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Final

from maildefer.maildir.rights.confined import unconfined
from maildefer.maildir.rights.folder import open_folder
from maildefer.maildir.rights.modes import FOLDER_MODES, Rights, is_shared, rights_in
from maildefer.maildir.system import SYSTEM, System

JOURNAL: Final = ".maildefer/journal"
_READABLE: Final = 0o644
_ACCESS_LIST: Final = "system.posix_acl_access"


def give_journal_rights(queue: str) -> None:
    """Give the journal's folder the queue's owner, and the group and mode of `new/`: a user that may push may record.

    In a queue that a front end shares, the mode is that of `maildefer permissions`. Root changes all of this; another
    user only what it owns, as far as it may. A second call changes nothing. Raises OSError.
    """
    with open_folder(queue) as top, open_folder(queue, *JOURNAL.split("/"), listing=False) as journal:
        owner = os.fstat(top.descriptor)
        if is_shared(owner):
            group, mode = owner.st_gid, FOLDER_MODES[JOURNAL]
        else:
            new = top.lstat("new")
            group, mode = new.st_gid, stat.S_IMODE(new.st_mode)
        path = f"/proc/self/fd/{journal.descriptor}"  # it is opened by O_PATH, as it may not be readable
        facts = os.fstat(journal.descriptor)
        user = os.geteuid()
        if user not in (0, facts.st_uid) or facts.st_uid not in (0, user, owner.st_uid):
            return  # it belongs to another user, whom `barred_writers` may name
        if user == 0 and facts.st_uid != owner.st_uid:
            os.chown(path, owner.st_uid, -1)
        if facts.st_gid != group:
            with suppress(PermissionError):  # of a group that this user is no member of
                os.chown(path, -1, group)
        if stat.S_IMODE(os.fstat(journal.descriptor).st_mode) != mode:
            os.chmod(path, mode)


def record_rights(queue: str, system: System) -> Rights:
    """Return the rights of a file of the journal; root's files in another user's queue are readable for all."""
    rights = rights_in(queue, system)
    if rights.is_shared or os.geteuid() != 0 or unconfined(system) is not SYSTEM:
        return rights
    try:
        owner = os.stat(queue).st_uid
    except OSError:
        return rights
    return replace(rights, file_mode=_READABLE, exceeds_umask=True) if owner else rights


def barred_writers(queue: str) -> Iterator[str]:
    """Name, in words, the users who own, serve or now read the queue, and certainly can't write to its journal.

    Owner, group and mode decide. Where there is an access list nothing is known; nor of members of a group, except
    root's group.
    """
    try:
        facts = os.stat(f"{queue}/{JOURNAL}")
        owner = os.stat(queue).st_uid
    except OSError:
        return
    has_list = _has_access_list(f"{queue}/{JOURNAL}")
    users = {owner: "who owns the queue"} | dict.fromkeys(_serving(queue), "who serves the queue")
    for user, role in users.items():
        if user == os.geteuid():
            may = os.access(f"{queue}/{JOURNAL}", os.W_OK | os.X_OK)
        else:
            may = has_list or may_write(facts, user)
        if not may:
            yield f"user {_name(user)}, {role}, may not write to {JOURNAL}/"


def may_write(facts: os.stat_result, user: int) -> bool:
    """Whether that user may make files in the folder, as far as is known."""
    if user == 0:
        return True
    if facts.st_uid == user:
        needed = stat.S_IWUSR | stat.S_IXUSR
        return facts.st_mode & needed == needed
    if facts.st_mode & stat.S_IWOTH:
        return True
    return bool(facts.st_mode & stat.S_IWGRP) and (facts.st_gid != 0 or _is_in_roots_group(user))


def _serving(queue: str) -> Iterator[int]:
    """Return the users to whom the leases belong."""
    folder = f"{queue}/.maildefer/leases"
    with suppress(OSError):
        for name in os.listdir(folder):
            with suppress(OSError):  # it has beaten meanwhile
                if stat.S_ISREG((facts := os.lstat(f"{folder}/{name}")).st_mode):
                    yield facts.st_uid


def _is_in_roots_group(user: int) -> bool:
    try:
        account = pwd.getpwuid(user)
    except KeyError:
        return False
    return 0 in os.getgrouplist(account.pw_name, account.pw_gid)


def _has_access_list(path: str) -> bool:
    try:
        return _ACCESS_LIST in os.listxattr(path)
    except OSError as fault:
        return fault.errno not in (errno.ENOTSUP, errno.ENODATA)


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
