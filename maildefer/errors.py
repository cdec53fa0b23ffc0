"""The errors that maildefer raises, each named for a fact.

Each has its facts as attributes, and its text says what happened, to which thing, and what to do next.
The base of all, and those by which the filesystem refuses, are in `maildefer.storage_faults`; those of queues and
entries in `maildefer.queue_errors`.
"""

from __future__ import annotations

from maildefer.queue_errors import (
    ClaimLost,
    EntryAmbiguous,
    EntryClaimed,
    EntryMalformed,
    EntryNotFound,
    EntryTooLarge,
    FormatUnknown,
    JournalMissing,
    LeaseFenced,
    MountMissing,
    NotAQueue,
    QueueMissing,
    QueueUnlisted,
    UniqueKeyHeld,
    UseAfterFork,
)
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
    SigningRefused,
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


__all__ = [
    "AddressRefused",
    "AlreadyRunning",
    "ClaimLost",
    "ClaimRefused",
    "ConfigurationError",
    "EffectLost",
    "EffectNameRefused",
    "EncodingError",
    "EntryAmbiguous",
    "EntryClaimed",
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
    "MessageHasNoKey",
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
    "MountMissing",
    "QueueUnlisted",
    "QuotaExceeded",
    "ReadOnly",
    "ReadRefused",
    "ResourcesExhausted",
    "RouteNotFound",
    "RouteTooSlow",
    "RouteUntried",
    "SigningRefused",
    "StaleHandle",
    "StorageFault",
    "UniqueKeyHeld",
    "UniqueKeyRefused",
    "UnsafeMount",
    "UnsafeRuntimeDirectory",
    "UseAfterFork",
]
