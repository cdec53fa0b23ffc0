"""Errors of queues, entries and claims, each named for a fact; as public names in `maildefer.errors`."""

from __future__ import annotations

from shlex import quote
from typing import ClassVar

from maildefer.storage_faults import QueueError


class QueueMissing(QueueError):
    """There is no directory at the queue's path."""

    def __init__(self, path: str, advice: str = "") -> None:
        advice = advice or "check the spelling, or name it in `queues` of conf/settings.py to have it made"
        super().__init__(f"no queue at {path}{', ' if advice.startswith('nor ') else ': '}{advice}", path)
        self.path = path


class QueueUnlisted(QueueMissing):
    """The queue does not exist, and the project's settings list other queues and not this one."""

    def __init__(self, path: str, settings: str, name: str) -> None:
        remedy = f'correct the name, or add "{name}": [] there if programs, and no handlers, are to read it'
        super().__init__(path, f"nor is it in `queues` of {settings}: {remedy}")


class MountMissing(QueueMissing):
    """There is no queue at a path whose mount is away, or seems to be, and none is made there."""

    temporary: ClassVar[bool] = True  # as of a StorageFault

    def __init__(self, path: str, why: str, *, point: str | None = None) -> None:
        super().__init__(path, why)
        self.point = point  # at which nothing is mounted, where that is known


class NotAQueue(QueueError):
    """Something is at the queue's path, but it is not a Maildir."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path} is not a Maildir ({what}): give the folder with tmp, new and cur", path)
        self.path = path


class FormatUnknown(QueueError):
    """The queue was laid out by another, newer version, or its format file is damaged."""

    def __init__(self, path: str, found: str) -> None:
        remedy = f"upgrade maildefer on this host, or, if it is damaged, put {path}/.maildefer/format right"
        super().__init__(f"{path} has {found}: {remedy}", path)
        self.path, self.found = path, found


class JournalMissing(QueueError):
    """The queue keeps no journal, so nothing can be proven of it from outside."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} keeps no journal: `maildefer audit --on {quote(path)}` begins one", path)
        self.path = path


class EntryNotFound(QueueError, KeyError):
    """No entry of that key is in the folder that was searched."""

    def __init__(self, key: str, where: str) -> None:
        super().__init__(
            f"no entry {key} in {where}: `maildefer queue list {quote(where)}` shows what there is, "
            f"`maildefer dead list {quote(where)}` its dead letters; or it was handled meanwhile",
            key,
        )
        self.key = key

    __str__ = Exception.__str__  # KeyError's would quote the sentence


class EntryClaimed(EntryNotFound):
    """The entry of that key is a worker's for now."""

    def __init__(self, key: str, where: str) -> None:
        QueueError.__init__(
            self,
            f"{key} in {where} is claimed, a worker handles it: do it when that has ended, as "
            f"`maildefer queue show {quote(where)} {key}` tells",
            key,
        )
        self.key = key


class EntryAmbiguous(QueueError):
    """The given text begins several keys, or is the key of several entries, as another user can make them."""

    def __init__(
        self, key: str, candidates: list[str], where: str, what: str = "begins several keys"
    ) -> None:
        some = ", ".join(candidates[:3]) + (", …" if len(candidates) > 3 else "")
        super().__init__(f"{key} {what} in {where}: give more of one of {some}", where)
        self.key, self.candidates = key, candidates


class EntryMalformed(QueueError):
    """An entry that is no plain file: a directory, a link, a device."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path} is {what}, not a message", path)
        self.path = path


class EntryTooLarge(QueueError):
    """An entry with more bytes than the limit; it was not read."""

    def __init__(self, path: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"{path} has {size_bytes} bytes, more than the limit of {limit_bytes}", path)
        self.path, self.size_bytes, self.limit_bytes = path, size_bytes, limit_bytes


class UniqueKeyHeld(QueueError):
    """An entry can't be requeued or replayed, since another one of its unique key has not ended."""

    def __init__(self, key: str, holder: str) -> None:
        remedy = "do it when that has ended, or delete one of the two"
        super().__init__(f"{key} has the unique key of {holder}, which has not ended: {remedy}", key)
        self.key, self.holder = key, holder


class ClaimLost(QueueError):
    """The claim was fenced and reclaimed: another worker handles, or has handled, the entry."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the claim {name} is lost: its lease was fenced; another worker has it", name)
        self.name = name


class LeaseFenced(QueueError):
    """Another host has fenced this lease, since its owner seemed dead."""

    def __init__(self, lease: str) -> None:
        super().__init__(f"the lease {lease} was fenced: this host was silent for longer than the TTL", lease)
        self.lease = lease


class UseAfterFork(QueueError):
    """A consumer or claim was used in a process other than the one that made it."""
