"""The errors that maildefer raises, each named for a fact.

Each has its facts as attributes, and its text says what happened, to which thing, and what to do next.
The base of all, and those by which the filesystem refuses, are in `maildefer.storage_faults`.
"""

from __future__ import annotations

from maildefer.storage_faults import (
    ClaimRefused,
    EntryReadRefused,
    MaildeferError,
    MarkersRefused,
    MountFault,
    NameTooLong,
    NoSpace,
    PermissionRefused,
    QueueError,
    QuotaExceeded,
    ReadOnly,
    ReadRefused,
    ResourcesExhausted,
    StaleHandle,
    StorageFault,
)
from maildefer.storage_faults import raise_named as raise_named
from maildefer.storage_faults import storage_fault as storage_fault


class ConfigurationError(MaildeferError):
    """The settings, a handler module or a command's arguments cannot be used; commands exit with 78."""


class ModuleUnusable(ConfigurationError, ImportError):
    """A module of the project is not there, or what it imports is not."""


class HandlerMissing(ConfigurationError):
    """A `"module.FUNCTION"` that no queue, or more than one, lists."""


class HandlerNotRun(MaildeferError, TypeError):
    """A function returned a coroutine or the like instead of doing its work, or an exception without raising it."""

    def __init__(self, function: str, what: str) -> None:
        super().__init__(f"{function} returned {what}")
        self.function = function


class HandlerTimedOut(MaildeferError, TimeoutError):
    """An `async def` handler was cancelled at its time limit."""

    def __init__(self, function: str, limit_seconds: float) -> None:
        super().__init__(
            f"{function} was cancelled at its time limit of {limit_seconds:g} s: give it more by @timeout, "
            "or look at what it awaited"
        )
        self.function, self.limit_seconds = function, limit_seconds


class RouteNotFound(MaildeferError):
    """No route of the queue matches the recipient."""

    def __init__(self, recipient: str) -> None:
        super().__init__(f"no route matches {recipient!r}: `maildefer routes` shows those that there are")
        self.recipient = recipient


class RouteTooSlow(MaildeferError):
    """A route's regular expression takes too long on an address: it backtracks without end, or nearly so."""

    def __init__(self, regex: str, address: str, limit_seconds: float) -> None:
        super().__init__(
            f"the route {regex} takes more than {limit_seconds:g} s on {address[:80]!r}: it has a repeat in a repeat, "
            "or too many; write it so that each text can be matched in one way only"
        )
        self.regex, self.address, self.limit_seconds = regex, address, limit_seconds


class RouteUntried(MaildeferError):
    """It is not known whether a route matches: there is no process for the match, or the match fails."""

    def __init__(self, regex: str, address: str, why: str, *, failed: bool) -> None:
        super().__init__(
            f"the route {regex} was not tried on {address[:80]!r}: {why}; "
            "write it so that each text can be matched in one way only, and look for limits of processes and memory"
        )
        self.regex, self.address = regex, address
        self.failed = failed  # on this address; else no match could be tried

    @classmethod
    def failing(cls, regex: str, address: str, why: str) -> RouteUntried:
        return cls(regex, address, f"it fails ({why})", failed=True)


class NotRunning(MaildeferError):
    """No live process stands behind the pid file or the runtime record."""


class AlreadyRunning(MaildeferError):
    """Another process of this host holds the same pid file; `pid` is None if it has not said which."""

    def __init__(self, pidfile: str, pid: int | None) -> None:
        holder = f"process {pid}" if pid else "another process"
        remedy = "stop it, or give another one with --pid"
        super().__init__(f"{holder} already runs with the pid file {pidfile}: {remedy}")
        self.pidfile, self.pid = pidfile, pid


class PidFileUnusable(MaildeferError):
    """A pid file that can't be read, or names no process: no process is signalled for it."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"the pid file {path} {what}: if nothing runs with it, remove it")
        self.path = path


class UnsafeRuntimeDirectory(MaildeferError):
    """Another user could write to the host's runtime directory, so nothing in it can be trusted."""

    def __init__(self, path: str, what: str) -> None:
        remedy = "remove it, or name another in MAILDEFER_RUNTIME_DIR"
        super().__init__(f"the runtime directory {path} {what}: {remedy}")
        self.path = path


class UnsafeMount(MaildeferError):
    """The doctor found a mount on which a message could be lost."""


class AddressRefused(MaildeferError, ValueError):
    """An address that can't be written in an envelope unambiguously."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"the address {address[:100]!r} is refused: {why}; give it as local@domain")
        self.address, self.why = address, why


class UniqueKeyRefused(MaildeferError, ValueError):
    """A unique key that is empty, too long, or no text that can be encoded."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(
            f"the unique key {key[:60]!r} {why}: give 1 to 1024 bytes of text, such as an order's number"
        )
        self.key, self.why = key, why


class EffectNameRefused(MaildeferError, ValueError):
    """A name for `MailRequest.once` that is empty, too long, or no text that can be encoded."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(
            f"once({name[:60]!r}) {why}: give 1 to 1024 bytes of text, such as an invoice's number"
        )
        self.name, self.why = name, why


class EffectLost(MaildeferError):
    """The end of a block of `MailRequest.once` whose effect another attempt, or a block in it, has begun meanwhile."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: another attempt has begun it meanwhile, as this one's claim was lost, or a block within this one "
            "of the same name: it may be done twice"
        )
        self.what = what


class MessageHasNoKey(MaildeferError):
    """`MailRequest.once` of a message that is from no queue, for which nothing can be remembered."""

    def __init__(self) -> None:
        super().__init__(
            "once: the message is from no queue: call it in the handlers of a queue, or in tests"
        )


class EncodingError(MaildeferError):
    """A message that cannot be decoded, or cannot be written in canonical form."""


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


class NotAQueue(QueueError):
    """Something is at the queue's path, but it is not a Maildir."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path} is not a Maildir ({what}): give the folder with tmp, new and cur", path)
        self.path = path


class FormatUnknown(QueueError):
    """The queue was laid out by another, newer version, or its format file is damaged."""

    def __init__(self, path: str, found: str) -> None:
        remedy = f"upgrade maildefer on this host, or put {path}/.maildefer/format right"
        super().__init__(f"{path} has {found}: {remedy}", path)
        self.path, self.found = path, found


class JournalMissing(QueueError):
    """The queue keeps no journal, so nothing can be proven of it from outside."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} keeps no journal: `maildefer audit --on {path}` begins one", path)
        self.path = path


class EntryNotFound(QueueError, KeyError):
    """No entry of that key is in the folder that was searched."""

    def __init__(self, key: str, where: str) -> None:
        super().__init__(
            f"no entry {key} in {where}: `maildefer queue list {where}` shows what there is, "
            f"`maildefer dead list {where}` its dead letters; or it was handled meanwhile",
            key,
        )
        self.key = key

    __str__ = Exception.__str__  # KeyError's would quote the sentence


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
    """A dead letter can't be requeued, since another entry of its unique key has not ended."""

    def __init__(self, key: str, holder: str) -> None:
        remedy = "requeue it when that has ended, or delete one of the two"
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


__all__ = [
    "MessageHasNoKey",
    "EffectNameRefused",
    "EffectLost",
    "AddressRefused",
    "AlreadyRunning",
    "ClaimLost",
    "ClaimRefused",
    "ConfigurationError",
    "EncodingError",
    "EntryAmbiguous",
    "EntryMalformed",
    "EntryNotFound",
    "EntryReadRefused",
    "EntryTooLarge",
    "FormatUnknown",
    "HandlerMissing",
    "HandlerNotRun",
    "HandlerTimedOut",
    "JournalMissing",
    "LeaseFenced",
    "MaildeferError",
    "MarkersRefused",
    "ModuleUnusable",
    "MountFault",
    "NameTooLong",
    "NoSpace",
    "NotAQueue",
    "NotRunning",
    "PermissionRefused",
    "PidFileUnusable",
    "QueueError",
    "QueueMissing",
    "QueueUnlisted",
    "QuotaExceeded",
    "ReadOnly",
    "ReadRefused",
    "ResourcesExhausted",
    "RouteNotFound",
    "RouteTooSlow",
    "RouteUntried",
    "StaleHandle",
    "StorageFault",
    "UniqueKeyHeld",
    "UniqueKeyRefused",
    "UnsafeMount",
    "UnsafeRuntimeDirectory",
    "UseAfterFork",
]
