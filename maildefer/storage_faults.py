"""The errors by which the filesystem refuses, one for each kind, each with its remedy; and their bases."""

from __future__ import annotations

import errno
from typing import ClassVar, NoReturn


class MaildeferError(Exception):
    """The base of every error of this package."""


class QueueError(MaildeferError):
    """Something is wrong with a queue or an entry; `data` is the thing it happened to."""

    def __init__(self, msg: str, data: object = None) -> None:
        super().__init__(msg)
        self.data = data


class StorageFault(QueueError):
    """The filesystem refused; the entry is where it was."""

    remedy: ClassVar[str] = "see the system's log"
    temporary: ClassVar[bool] = True
    is_charged = True  # as a failure, to the message whose handler raises it

    def __init__(self, path: str, fault: OSError) -> None:
        super().__init__(f"{path}: {fault.strerror or fault}: {self.remedy}", path)
        self.path, self.errno = path, fault.errno


class NoSpace(StorageFault):
    remedy = "free space or inodes on that filesystem; what was not accepted can be sent again"


class QuotaExceeded(StorageFault):
    remedy = "raise the quota of this user on that filesystem; what was not accepted can be sent again"


class ReadOnly(StorageFault):
    remedy = "mount the filesystem read-write"


class PermissionRefused(StorageFault):
    remedy = "give this user (or the shared group) write permission to the queue's folders, or run this as their owner"


class MarkersRefused(PermissionRefused):
    remedy = "a user who may only put entries into this queue can't push with a unique key: push as the queue's owner"


class SigningRefused(PermissionRefused):
    remedy = (
        "it signs calls of tasks, and whoever has it can have the workers call any task: defer as the workers' user, "
        "or push a message for a handler that defers"
    )


class ReadRefused(PermissionRefused):
    remedy = "give this user (or the shared group) permission to read the queue's folders, or run this as their owner"


class ClaimRefused(PermissionRefused):
    remedy = "if it is another user's directory, only that user or root can move it; else let this user write to new/"


class EntryReadRefused(PermissionRefused):
    remedy = "give this user (or the shared group) permission to read this file; it is tried again"


class MountFault(StorageFault):
    remedy = "the filesystem or its server is at fault: see the kernel's log; use a hard mount for NFS"


class StaleHandle(StorageFault):
    remedy = "the server lost this file or folder: if it lasts, mount the filesystem anew"


class NameTooLong(StorageFault):
    remedy = "this filesystem takes no names of 255 bytes: move the queue to one that does"
    temporary = False


class ResourcesExhausted(StorageFault):
    remedy = "raise the limits on open files, memory or processes of this user"


_BY_ERRNO: dict[int, type[StorageFault]] = {
    errno.ENOSPC: NoSpace,
    errno.EDQUOT: QuotaExceeded,
    errno.EROFS: ReadOnly,
    **dict.fromkeys((errno.EACCES, errno.EPERM), PermissionRefused),
    errno.EIO: MountFault,
    errno.ESTALE: StaleHandle,
    errno.ENAMETOOLONG: NameTooLong,
    **dict.fromkeys((errno.EMFILE, errno.ENFILE, errno.ENOMEM), ResourcesExhausted),
}


def storage_fault(
    path: str, fault: OSError, *, refused: type[PermissionRefused] = PermissionRefused
) -> StorageFault:
    """The named error for what the filesystem answered about `path`; `refused` for a lack of permission."""
    kind = _BY_ERRNO.get(fault.errno or 0, MountFault)
    return (refused if kind is PermissionRefused else kind)(path, fault)


def raise_named(
    path: str, fault: OSError, *, refused: type[PermissionRefused] = PermissionRefused
) -> NoReturn:
    """Raise the named error for `fault`, with it as the cause."""
    raise storage_fault(path, fault, refused=refused) from fault


for _one in list(vars().values()):
    if isinstance(_one, type) and issubclass(_one, MaildeferError):
        _one.__module__ = "maildefer.errors"  # where programs find it, and tracebacks name it
