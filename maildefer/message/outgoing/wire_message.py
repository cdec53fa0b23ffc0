"""The bytes of a message as they go over the wire: its line ends, the fields that it lacks, its signature."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from maildefer.message.outgoing import dkim_signature
from maildefer.message.outgoing.answer import answered_by
from maildefer.message.outgoing.stamps import stamped
from maildefer.message.request import MailRequest

if TYPE_CHECKING:
    from maildefer.message.outgoing.sent_message import SentMessage

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class WireMessage:
    """A message as it goes over the wire, and its envelope; `dsn` as in `envelope.block`."""

    sender: str
    recipients: list[str]
    data: bytes
    dsn: str
    sent: SentMessage | None
    """Of a handler: the same message at all its attempts."""


@runtime_checkable
class _ByteMessage(Protocol):
    def to_bytes(self) -> bytes: ...


def wire_bytes(message: Any) -> bytes:
    """The message with the line ends of SMTP, since bare ones allow smuggling; `smtplib` doubles leading dots."""
    if isinstance(message, bytes):
        data = message
    elif isinstance(message, _ByteMessage):
        data = message.to_bytes()
    elif hasattr(message, "get_content_maintype"):  # of the `email` package
        data = message.as_bytes()
    else:
        data = str(message).encode("utf-8", "surrogateescape")
    return _LINE_END.sub(b"\r\n", data)


def completed(
    message: object, data: bytes, *, sender: str, recipients: list[str], name: str | None, host: str
) -> bytes:
    """`data`, the message's bytes, with what it lacks; a received message as it is. `name`, `host`: see `stamped`."""
    if isinstance(message, MailRequest):
        return data
    data = stamped(data, sender, name, host, answered_by(message, recipients))
    return dkim_signature.signed(message, data) if dkim_signature.configured else data
