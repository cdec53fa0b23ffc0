"""A received message with its envelope, as handlers get it, parsed only as far as it is read.

Making a request costs about a microsecond and imports nothing. The first access to a header parses the headers, and
the first one to the body the whole message. A request belongs to one thread. Here are also the bytes and the envelope
of any message that can be pushed.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from maildefer.errors import AddressRefused
from maildefer.message import addresses
from maildefer.message.dsn.asked import HasDsnParameters, passed_on, passing_on
from maildefer.message.envelope import Envelope, asking, block, handed, own_block, trace
from maildefer.message.mime.header_access import HeaderAccess
from maildefer.message.once import HasEffects

if TYPE_CHECKING:
    from maildefer.message.attachments import ReceivedAttachment
    from maildefer.message.authentication import Authentication
    from maildefer.message.bounce import BounceAnalyzer
    from maildefer.message.mime.mail import MailBase
    from maildefer.message.mime.mime_part import MIMEPart

# The header that tells the recipient when there is no envelope; set it by its name in `maildefer.mail`.
ROUTABLE_TO_HEADER = "to"

_NO_ENVELOPE = Envelope("", "")


class MailRequest(HeaderAccess, HasEffects, HasDsnParameters):
    """A received message: `Peer`, `From`, `To`, `Data`, and by `request["Subject"]`, `.body()`, … what is in it.

    `From` and `To` are bare addresses in lower case. They are the envelope's if one is given; if not, they are read
    from the headers when first asked for, the first address where there are several, and empty where there is none.
    An empty `From` beside a `To` is the null sender, and no header takes its place.
    `Data` is the message byte for byte (I9). `key`, `attempt` and `queue` are None outside a queue; `key` stays the
    same over all attempts and handoffs; across filesystems the copied entry names the first key.
    """

    __slots__ = (
        *("Data", "From", "Peer", "To", "attempt", "key", "queue"),
        *("__dict__", "__weakref__", "_head", "base"),
    )

    Peer: Any
    From: str
    To: str
    Data: bytes | str
    base: MailBase
    _head: MailBase
    key: str | None
    attempt: int | None
    queue: str | None
    copied_as: str | None = None
    """The key of the entry itself, where `key` is that of the first entry: see `pool.worker.cross_device`."""
    captures: Mapping[str, str | None]
    """The named groups of its route; only in a message that comes in a `@batch`."""
    bounce: BounceAnalyzer | None
    """The analysis of the message as a bounce; None until `is_bounce` is called."""

    def __init__(self, Peer: Any, From: addresses.Given, To: addresses.Given, Data: bytes | str) -> None:
        self.Peer = Peer
        self.Data = Data
        self.key = self.attempt = self.queue = None
        if From == [None]:
            From = None
        if To and To != [None]:
            self.To = addresses.first(To)
        if From or (From is not None and To):
            self.From = addresses.first(From)

    if not TYPE_CHECKING:  # a type checker should go on finding misspelt attributes

        def __getattr__(self, name):
            """Fill `base`, `From` or `To` at the first access; afterwards they are plain slots."""
            if name == "base":
                value = self._parsed()
            elif name == "_head":
                value = self._parsed(only_headers=True)
            elif name == "From":
                value = addresses.first(self._readable().raw("from"))
            elif name == "To":
                value = addresses.first(self._readable().raw(ROUTABLE_TO_HEADER))
            elif name == "bounce":
                value = None
            else:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            setattr(self, name, value)
            return value

    def _readable(self) -> MailBase:
        try:
            parsed: MailBase = object.__getattribute__(self, "base")
            return parsed
        except AttributeError:
            return self._head

    def _parsed(self, only_headers: bool = False) -> MailBase:
        # The e-mail package: see the module's docstring.
        from maildefer.message.mime.parser import from_string, headers_from_string

        base = headers_from_string(self.Data) if only_headers else from_string(self.Data)
        for name in ("From", "To"):
            try:
                address = object.__getattribute__(self, name)
            except AttributeError:  # not given, and not read yet
                continue
            if address and name not in base:
                base[name] = address
                if base.wire_form is not None:  # None for headers that are only read
                    base.wire_form.filled_in = (*base.wire_form.filled_in, base.raw(name) or "")
        return base

    def body(self) -> Any:
        """The body of the first part, or of the message if it has no parts: text, or bytes for other types.

        The lines of text end with LF, whichever way the message came; in `Data` they end as they were sent.
        """
        part = self.base
        while part.parts:
            part = part.parts[0]
        return part.body.replace("\r\n", "\n") if isinstance(part.body, str) else part.body

    @property
    def attachments(self) -> list[ReceivedAttachment]:
        """The files in the message: each has a safe `filename`, a `content_type`, and its bytes, `data`."""
        from maildefer.message.attachments import attachments_of  # parses

        return attachments_of(self.base)

    def all_parts(self) -> list[MailBase]:
        """The direct parts; none for a message of a single part."""
        return self.base.parts

    def walk(self) -> Iterator[MailBase]:
        """All parts, depth first, without the message itself."""
        return self.base.walk()

    def is_bounce(self, threshold: float = 0.3) -> bool:
        """Whether the message is a bounce. The first call analyses it; `bounce` then holds the analysis."""
        if self.bounce is None:
            from maildefer.message.bounce import detect  # parses the message

            self.bounce = detect(self)
        return self.bounce.probable(threshold)

    @property
    def is_automatic(self) -> bool:
        """Whether no program may answer it: a program wrote it, or a list sent it, or it has no sender (RFC 3834)."""
        return self.automatic_sign is not None

    @property
    def automatic_sign(self) -> str | None:
        """What shows that it is automatic, such as `Precedence: bulk`; None if nothing does."""
        from maildefer.message.automatic import automatic_sign  # reads headers

        return automatic_sign(self._readable(), self.From)

    @cached_property
    def authentication(self) -> Authentication:
        """What the mail server in front says of its author, as far as `authentication_config` has it believed."""
        from maildefer.message.authentication import authentication_of  # only for handlers that ask

        return authentication_of(self.Data)

    def to_message(self) -> MIMEPart:
        """The message as an object of the `email` package; what was not changed stands in it as it came."""
        from maildefer.message.mime.canonical import to_message

        return to_message(self.base)

    def to_bytes(self) -> bytes:
        """The bytes to send or push on: `Data`; if headers, body or parts were changed, `Data` with these changes."""
        data = self.Data if isinstance(self.Data, bytes) else self.Data.encode("utf-8", "surrogateescape")
        try:
            base: MailBase = object.__getattribute__(self, "base")
        except AttributeError:  # never parsed
            return data
        from maildefer.message.mime.canonical import is_unchanged, to_string

        return data if is_unchanged(base) else to_string(base).encode("utf-8", "surrogateescape")

    __bytes__ = to_bytes

    def __str__(self) -> str:
        from maildefer.message.mime.canonical import to_string

        return to_string(self.base)

    def __repr__(self) -> str:
        return f"<MailRequest key={self.key!r} From={self.From!r} To={self.To!r}>"

    @property
    def original(self) -> bytes | str:
        """Salmon's old name of `Data`."""
        warnings.warn("`original` is the old name of `Data`", DeprecationWarning, stacklevel=2)
        return self.Data


def received(data: bytes, key: str | None, attempt: int | None, queue: str | None, peer: Any) -> MailRequest:
    """The request for an entry's bytes: envelope from the block or trace lines on top, `Data` from below the block.

    No content of the bytes raises an error. `attempt` is 1 the first time.
    """
    request = MailRequest.__new__(MailRequest)
    request.Peer, request.key, request.attempt, request.queue = peer, key, attempt, queue
    if (own := own_block(data, key)) is not None:
        sender, recipient, dsn, is_handed, offset = own
        request.Data = data[offset:]
        if is_handed and (first := handed(data, offset)) is not None:
            request.key, request.copied_as = first, key
        request.From, request.To = by, to = sender.lower(), recipient.lower()
        if dsn or to != recipient or by != sender:
            request.came_with = asking(sender, recipient, dsn)
        return request
    request.Data = data
    theirs, whose = trace(data)  # of another program; what is absent comes from the headers
    if theirs is not None:
        request.From = addresses.first(theirs)
    if whose is not None:
        request.To = addresses.first(whose)
    return request


def bytes_of(message: object) -> bytes:
    """The bytes to store. Bytes are kept as they are, as is a request's `Data` unless the request was changed (I9).

    Raises TypeError for objects whose `str()` is no message, such as a file, None or a list.
    """
    if isinstance(message, bytes):
        return message
    if isinstance(message, MailRequest):
        return message.to_bytes()
    if isinstance(message, (bytearray, memoryview)):
        return bytes(message)
    if hasattr(message, "get_content_maintype"):  # of the `email` package
        return bytes(message.as_bytes())  # type: ignore[attr-defined]
    if not isinstance(message, str) and (
        type(message).__str__ is object.__str__ or isinstance(message, (os.PathLike, BaseException))
    ):
        raise TypeError(f"{type(message).__name__} is no message: {_meant(message)}")
    return str(message).encode("utf-8", "surrogateescape")


def envelope_of(message: object) -> Envelope:
    """A request's envelope as it came or was set, whatever its headers say; an empty recipient where there is none."""
    if not isinstance(message, MailRequest):
        return _NO_ENVELOPE
    return asking(sender := _given(message, "From"), _given(message, "To"), passed_on(message, sender))


def _meant(message: object) -> str:
    if hasattr(message, "read"):
        return "give what its .read() returns, of a file that is open for bytes"
    if isinstance(message, os.PathLike):
        return "give what the file holds, such as Path(…).read_bytes()"
    return "give bytes, a str, a message of the `email` package or of maildefer, or an object with a __str__ of its own"


def _given(message: MailRequest, name: str) -> str:
    try:
        found = object.__getattribute__(message, name)
    except AttributeError:  # it would be read from the headers
        return ""
    return found if isinstance(found, str) else ""


def compose_of(
    message: object, sender: str | None, recipient: str | None, *, host: str, dsn: str = ""
) -> Callable[[str], tuple[bytes, ...]]:
    """Return what writes an entry of a message for its key: see `Queue.push`. Raises TypeError, AddressRefused.

    `dsn`: what its sender asks of reports, where the message does not tell.
    """
    if recipient is not None and not isinstance(recipient, str):
        raise TypeError(f"push(recipient={recipient!r}): give one address, and push once for each")
    if sender is not None and not isinstance(sender, str):
        raise TypeError(f'push(sender={sender!r}): give one address, or "" for the null sender')
    if type(message) is bytes:  # the ordinary case: the envelope is in the arguments
        data, known = message, _NO_ENVELOPE
    else:
        data, known = bytes_of(message), envelope_of(message)
    to = recipient if recipient is not None else known.recipient
    by = sender if sender is not None else known.sender
    asks = dsn or passing_on(message, by)
    if not to and sender is None and recipient is None:
        return lambda stem: (data,)
    if not to and recipient is None:
        why = f"push(sender={sender!r}) needs a recipient beside it: give recipient=…, too"
        raise AddressRefused(to, why)
    return lambda stem: (block(stem, by, to, host=host, when=time.time(), via="push", dsn=asks), data)
