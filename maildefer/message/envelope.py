"""The envelope block: the lines at the top of an entry's file, which holds one message for one recipient.

    Return-Path: <SENDER>
    Delivered-To: RECIPIENT
    Maildefer-DSN: PARAMETERS
    Received: [from CLIENT ]by HOST (maildefer) with VIA id STEM; DATE

The third is there only where the sender has given parameters of RFC 3461 (see `dsn.parameters`).
STEM is the stem of the entry's key, so a block counts as ours only in the entry that it was made for: a message
whose own text begins with such lines cannot have them cut off. Everything below the block is the message, byte for
byte (I9). The forms are those of RFC 5321, section 4.4; addresses beyond ASCII stand there as UTF-8 (RFC 6532).
All functions here are pure and may be called from any thread or process.
"""

from __future__ import annotations

import re
import time
from functools import lru_cache
from typing import Final, NamedTuple

from maildefer.errors import AddressRefused

ADDRESS_LIMIT_BYTES: Final = 900  # RFC 5322 allows a line 998 bytes; RFC 5321 an address 254
TOP_LIMIT_BYTES: Final = 4096  # a block has at most some 3,600
CLIENT_CHARACTERS: Final = 600  # of the client's description in the Received line
HEADER_LIMIT_BYTES: Final = 1 << 20  # how far a header section is searched for its end

# Tried at the first byte only, within TOP_LIMIT_BYTES: half the time of four `bytes.find`, which it replaced.
# A client's name may hold anything printable: the greedy dots find the last "(maildefer) with", which is ours.
_BLOCK: Final = re.compile(
    rb"Return-Path: <([^\n]*)>\nDelivered-To: ([^\n]+)\n(?:Maildefer-DSN: ([ -~]+)\n)?"
    rb"Received: [^\n]*\(maildefer\) with ([!-~]+) id ([!-:<-~]+);[^\n]*\n"
).match

HANDOFF: Final = "handoff"  # the `via` of an entry that was copied to another filesystem, under a fresh key
_FIRST_KEY: Final = re.compile(
    rb"\nReceived: from key ([!-~]+) by [^\n]* \(maildefer\) with handoff id "
).search

# Quoted strings (RFC 5321's local parts) and characters that can neither end nor leave the line they stand in.
_ADDRESS: Final = re.compile(
    r'(?:[^\s"<>\\\x00-\x1f\x7f-\x9f]|\\[^\s\x00-\x1f\x7f-\x9f]'
    r'|"(?:[^"\\\x00-\x1f\x7f-\x9f\u2028\u2029]|\\[^\x00-\x1f\x7f-\x9f\u2028\u2029])*")+'
)
_RECEIVED: Final = re.compile(rb"\nreceived[ \t]*:").findall  # in lower case
_DSN: Final = re.compile(r"[!-~]+(?: [!-~]+)*").fullmatch
_MOST_OF_DSN: Final = 800  # characters, of some 690 that the limits of RFC 3461 allow
_TOKEN: Final = re.compile(r"[!-:=?-~]+")  # printable, no space, none of ; < >
_UNPRINTABLE: Final = re.compile(r"[^ -~]")
_UNFIT: Final = "{!r} cannot stand in a Received line"
_DAYS: Final = b"Mon Tue Wed Thu Fri Sat Sun".split()
_MONTHS: Final = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()

# What delivery agents put above the message; only the first two are read, the others may stand between them.
_TRACE: Final = {b"return-path", b"delivered-to", b"x-original-to", b"envelope-to", b"delivery-date"}


class Envelope(NamedTuple):
    """Reverse-path and recipient of one entry, as given, in their own case.

    A tuple and not a dataclass: one is made for each claim, and this costs a third.
    """

    sender: str
    """The reverse-path; empty for the null sender of bounces."""
    recipient: str

    @property
    def dsn(self) -> str:
        """What the sender asks of reports, as `dsn.parameters` has it."""
        return ""


class AskingEnvelope(Envelope):
    """The envelope of a sender that asks for anything; it is equal to another one of the same addresses."""

    dsn: str = ""
    is_passed_on = False
    """Whether the message went on with what its sender asks, so that others report its success."""
    relayed: object = None
    """What a server has said that has taken the message and sends no reports; see `notices`."""

    def __new__(cls, sender: str, recipient: str, dsn: str) -> AskingEnvelope:
        made = super().__new__(cls, sender, recipient)
        made.dsn = dsn
        return made


def asking(sender: str, recipient: str, dsn: str) -> Envelope:
    """The envelope of a sender that may have given parameters."""
    return AskingEnvelope(sender, recipient, dsn) if dsn else Envelope(sender, recipient)


def block(
    stem: str,
    sender: str,
    recipient: str,
    *,
    host: str,
    when: float,
    via: str,
    client: str = "",
    dsn: str = "",
) -> bytes:
    """The lines to prepend to a message at its push.

    `stem` is the key's stem, `when` in Unix seconds, `via` the protocol (`ESMTP`, `LMTP`, `push`), `client` the client
    that sent it, if known (`helo.example ([192.0.2.1])`), `dsn` what `dsn.parameters` has checked.
    Raises `AddressRefused` for an address that cannot stand on one line unambiguously, and for an empty recipient: a
    message without recipient is pushed without a block.
    """
    if not (stem.isascii() and stem.isprintable()) or " " in stem or ";" in stem:  # quicker than a match
        raise ValueError(_UNFIT.format(stem))
    return b"%b%b; %b\n" % (
        _up_to_the_id(sender, recipient, host, via, client, dsn),
        stem.encode("ascii"),
        _date(int(when)),
    )


@lru_cache(maxsize=1024)  # a push takes a few microseconds in all, and most envelopes repeat
def _up_to_the_id(sender: str, recipient: str, host: str, via: str, client: str, dsn: str) -> bytes:
    if not recipient:
        raise AddressRefused(recipient, "a recipient cannot be empty")
    for word in (host, via):
        if not _TOKEN.fullmatch(word):
            raise ValueError(_UNFIT.format(word))
    if dsn and (len(dsn) > _MOST_OF_DSN or not _DSN(dsn)):
        raise ValueError(f"{dsn[:100]!r} cannot stand in a Maildefer-DSN line")
    origin = f"from {_printable(client)} " if client else ""
    return b"Return-Path: <%b>\nDelivered-To: %b\n%bReceived: %bby %b (maildefer) with %b id " % (
        encode_address(sender),
        encode_address(recipient),
        f"Maildefer-DSN: {dsn}\n".encode("ascii") if dsn else b"",
        origin.encode("ascii"),
        host.encode("ascii"),
        via.encode("ascii"),
    )


def split(data: bytes, key: str | None = None) -> tuple[Envelope | None, int]:
    """The envelope of an entry's bytes, and the offset where the pushed bytes begin.

    The offset is 0 when the top is not a block of ours; another writer's topmost Return-Path and Delivered-To are
    read then and left in place (a missing Return-Path reads as the null sender; `trace` tells the two apart).
    With `key`, the block must have been made for that entry. Takes any bytes; looks only at the top.
    """
    if (own := own_block(data, key)) is not None:
        sender, recipient, dsn, _, end = own
        return asking(sender, recipient, dsn), end
    foreign_sender, foreign_recipient = trace(data)
    if foreign_recipient is None:
        return None, 0
    return Envelope(foreign_sender or "", foreign_recipient), 0


def own_block(data: bytes, key: str | None = None) -> tuple[str, str, str, bool, int] | None:
    """Sender, recipient, DSN parameters of a block of ours, whether `handed` may tell more, and the block's length.

    None where it is not there. It does for each claim, without an `Envelope`, what `split` does.
    """
    own = _BLOCK(data, 0, TOP_LIMIT_BYTES)
    if own is None:
        return None
    sender, recipient, dsn, via, stem = own.groups()
    if key is not None and not key.startswith(f"{stem.decode()},") and key != stem.decode():
        return None
    asked = "" if dsn is None else dsn.decode()
    try:
        return sender.decode(), recipient.decode(), asked, via == b"handoff", own.end()
    except UnicodeDecodeError:
        return _text(sender), _text(recipient), asked, via == b"handoff", own.end()


def stem_of(data: bytes) -> str | None:
    """The stem of the key of the entry that a block on top was made for; None without one. It proves nothing."""
    own = _BLOCK(data, 0, TOP_LIMIT_BYTES)
    return None if own is None else own[5].decode()


def handed(data: bytes, offset: int) -> str | None:
    """The first key of an entry that came from a queue on another filesystem, as its block says; else None.

    `offset` is where `split` found the end of our own block.
    """
    found = _FIRST_KEY(data[:offset])
    return found[1].decode() if found else None


def strip(data: bytes, key: str | None = None) -> bytes:
    """The bytes below our own block, or all of them when there is none.

    For the file of an entry that is pushed again. Not for a request's `Data`, and not for data from the network: those
    are the message itself, whatever its first lines look like (I9).
    """
    offset = split(data, key)[1]
    return data[offset:] if offset else data


def trace(data: bytes) -> tuple[str | None, str | None]:
    """Sender and recipient in another program's topmost trace lines; None for each that is absent.

    Postfix, Dovecot, qmail, Courier and Exim put such lines on top, in different orders. The first line of another
    kind ends the search, since the author of the message could have written everything from there on.
    """
    sender = recipient = None
    for name, value in _fields(data[:TOP_LIMIT_BYTES]):
        if name not in _TRACE:
            break
        if name == b"return-path" and sender is None:
            sender = _bare(value)
        elif name == b"delivered-to" and recipient is None:
            recipient = _bare(value) or None
    return sender, recipient


def _fields(top: bytes) -> list[tuple[bytes, bytes]]:
    """The whole header fields at the top, unfolded; a field cut off by the limit is left out."""
    fields: list[tuple[bytes, bytes]] = []
    for line in top.split(b"\n")[:-1]:
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] = (fields[-1][0], fields[-1][1] + line)
            continue
        name, colon, value = line.partition(b":")
        if not colon:
            break
        fields.append((name.rstrip(b" \t").lower(), value))
    return fields


def _bare(value: bytes) -> str:
    text = _text(b" ".join(value.split()))
    return text[1:-1].strip() if text.startswith("<") and text.endswith(">") else text


def hops(data: bytes) -> int:
    """The number of Received lines in the message, without our own block on top; for the detection of mail loops.

    Only the header section is counted, and of that at most its first MiB.
    """
    start = split(data)[1]
    header = data[start : start + HEADER_LIMIT_BYTES]
    ends = [at for at in (header.find(b"\n\n"), header.find(b"\n\r\n")) if at >= 0]
    header = header[: min(ends)] if ends else header
    return len(_RECEIVED(b"\n" + header.lower()))


@lru_cache(maxsize=1024)
def encode_address(address: str) -> bytes:
    """The bytes of an address in a block. Raises `AddressRefused` for an address that could forge a line.

    One pair of angle brackets around the whole is taken off; quoted local parts and UTF-8 are kept as they are.
    """
    if address.startswith("<") and address.endswith(">"):
        address = address[1:-1]
    if not address:
        return b""
    try:
        encoded = address.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise AddressRefused(address, "it has characters that no encoding knows") from error
    if len(encoded) > ADDRESS_LIMIT_BYTES:
        raise AddressRefused(address, f"it is longer than {ADDRESS_LIMIT_BYTES} bytes")
    # Escaped bytes side by side may be the UTF-8 of a control character: check the decoded text.
    if not _ADDRESS.fullmatch(_text(encoded)):
        raise AddressRefused(
            address, "control characters, bare spaces, quotes, angle brackets have no place in it"
        )
    return encoded


def date(when: float) -> str:
    """The date of RFC 5322, in UTC; `time.strftime` would use the language of the locale."""
    return _date(int(when // 1)).decode("ascii")


@lru_cache(maxsize=4)  # many messages a second have one date
def _date(when: int) -> bytes:
    year, month, day, hour, minute, second, weekday = time.gmtime(when)[:7]
    figures = _DAYS[weekday], day, _MONTHS[month - 1], year, hour, minute, second
    return b"%b, %02d %b %04d %02d:%02d:%02d +0000" % figures


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("?", text)[:CLIENT_CHARACTERS]
