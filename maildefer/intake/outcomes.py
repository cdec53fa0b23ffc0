"""What became of a message, as values: made where it happens, put into words by `replies` and by the HTTP endpoint."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from maildefer.errors import AddressRefused, MaildeferError, NoSpace, QuotaExceeded


class Refusal(Enum):
    """Why a message is not stored: for all of its recipients, or for one."""

    QUEUE_FULL = "queue full"
    """Too little free space, no free inode, no quota, or too large a backlog."""
    STORAGE_FAILED = "storage failed"
    """The queue can't be written to, or its writer is gone."""
    INTERNAL_ERROR = "internal error"
    ADDRESS_REFUSED = "address refused"
    """No entry can be made for this recipient."""
    MAIL_LOOP = "mail loop"
    TOO_LARGE = "too large"
    TOO_MUCH_HELD = "too much held"
    """The messages that are coming take more memory than they may together."""
    DUE_REFUSED = "due time refused"
    KEY_REUSED = "key reused"
    """By another message, which was to be pushed once under the same name. HTTP only, as is the one before."""


class Stored(NamedTuple):
    """How the push for one recipient ended: durable under its key (I1), or with a fault and an empty key."""

    key: str
    fault: Refusal | None = None
    reason: str = ""
    """Of the fault, for the log."""
    is_repeated: bool = False
    """Whether a request before this one has stored it."""


class QueueFull(MaildeferError):
    """What is short, so that nothing more is stored."""


class DueRefused(MaildeferError):
    """A time that a message can't be pushed for."""


def refusal_of(fault: MaildeferError) -> Refusal:
    """What an error of the queue means for its client: `ADDRESS_REFUSED` is all that sending again can't cure."""
    match fault:
        case NoSpace() | QuotaExceeded() | QueueFull():
            return Refusal.QUEUE_FULL
        case AddressRefused():
            return Refusal.ADDRESS_REFUSED
        case DueRefused():
            return Refusal.DUE_REFUSED
        case _:
            return Refusal.STORAGE_FAILED
