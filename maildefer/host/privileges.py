"""Becoming another user for good, as a process that talks to the network does once it has its sockets."""

from __future__ import annotations

import codecs
import os
from dataclasses import dataclass

from maildefer.errors import ConfigurationError
from maildefer.host.linux.prctl import (
    death_signal,
    die_with_parent,
    empty_bounding_set,
    set_no_new_privileges,
)

SHARED_UMASK = 0o027  # entries are for their queue's group to read, and for nobody else


@dataclass(frozen=True, slots=True)
class TargetUser:
    """The user to become: `groups` are the supplementary ones."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def resolve_user(user: str, group: str) -> TargetUser:
    """Find a user by names or numbers; an empty `user` is the present one. Raises ConfigurationError for others.

    Without a group it is the user's own with the supplementary ones; with it, that group alone.
    """
    import grp  # both only where privileges are dropped
    import pwd

    try:
        number = int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid if user else os.geteuid()
        if group:
            return TargetUser(number, int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid)
        account = pwd.getpwuid(number)
    except KeyError as fault:
        raise ConfigurationError(
            f"no such user or group ({fault.args[0]}): make it, or name another by --user and --group"
        ) from fault
    return TargetUser(account.pw_uid, account.pw_gid, tuple(os.getgrouplist(account.pw_name, account.pw_gid)))


def drop_privileges(user: str, group: str) -> None:
    """Become that user and group, with no way back, and a umask for a shared group; nothing to do where both are empty.

    Called before there is any thread. A process that was to end with its parent still does (the kernel forgets that at
    a change of user). Raises ConfigurationError for an unknown user or group, or without the right to become it.
    """
    if not user and not group:
        return
    wanted, parent, signum = resolve_user(user, group), os.getppid(), death_signal()
    codecs.lookup("ascii")  # loaded at its first use, when Python's own library may be out of reach
    try:
        if os.geteuid() == 0:
            os.setgroups(wanted.groups)
            empty_bounding_set()
        os.setresgid(wanted.gid, wanted.gid, wanted.gid)
        os.setresuid(wanted.uid, wanted.uid, wanted.uid)
    except PermissionError as fault:
        raise ConfigurationError(
            f"this process may not become user {user or 'of now'}, group {group or 'of that user'}: "
            "start it as root, or as that very user without --user and --group"
        ) from fault
    set_no_new_privileges()
    if signum:
        die_with_parent(parent, signum)
    os.umask(SHARED_UMASK)
