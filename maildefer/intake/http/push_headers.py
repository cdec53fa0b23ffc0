"""The header fields of a push: `Maildefer-After` or `Maildefer-At`, `Maildefer-DSN`, and `Idempotency-Key`.

Source of the last: draft-ietf-httpapi-idempotency-key-header, whose values are strings of RFC 9651 (`"8e03978e"`); most
clients send the same without the quotes, which is taken as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from maildefer.digest import blake2b
from maildefer.intake.writer.protocol import Message
from maildefer.message.dsn.parameters import ParameterRefused, checked
from maildefer.units import seconds_in

AFTER: Final = "Maildefer-After"
AT: Final = "Maildefer-At"
KEY: Final = "Idempotency-Key"
DSN: Final = "Maildefer-DSN"
_OURS: Final = "maildefer-"
_KNOWN: Final = frozenset({AFTER.lower(), AT.lower(), DSN.lower()})
MAX_KEY_CHARACTERS: Final = 255
_SECONDS: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?").fullmatch
_BARE: Final = re.compile(r"[!#-~][!-~]*").fullmatch  # printable, without spaces, and not begun by a quote
_QUOTED: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"').fullmatch


class Fields(Protocol):
    """The header of a request, as aiohttp has it."""

    def __iter__(self) -> Iterator[str]:
        """Yield the names of its fields, as they were sent."""

    def getall(self, name: str, default: Sequence[str]) -> Sequence[str]:
        """Return all values of a field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushHeaders:
    """What a request asks for besides the push itself; nothing, mostly."""

    after_seconds: float | None = None
    at: str = ""
    """A time in UTC, in ISO 8601."""
    idempotency_key: str = ""
    dsn: str = ""
    """What is asked of reports: see `message/dsn/parameters`."""


NOTHING: Final = PushHeaders()


def parse(header: Fields) -> PushHeaders:
    """Read them. Raises ValueError, which names the field, for a value that is none, and for a name that is none."""
    for name in header:
        if name[: len(_OURS)].lower() == _OURS and name.lower() not in _KNOWN:
            shown = f" {name[:30]}" if name.isascii() and name.isprintable() else ""
            raise ValueError(f"no such field{shown}: give {AFTER} or {AT}, {DSN}, and {KEY}")
    after, at, key, dsn = (_value(header, name) for name in (AFTER, AT, KEY, DSN))
    if after is None and at is None and key is None and dsn is None:
        return NOTHING
    if after is not None and at is not None:
        raise ValueError(f"give {AFTER} or {AT}, not both")
    return PushHeaders(
        after_seconds=None if after is None else _seconds(after),
        at="" if at is None else _time(at),
        idempotency_key="" if key is None else _key(key),
        dsn="" if dsn is None else _dsn(dsn),
    )


def request_name(token: bytes, key: str) -> str:
    """Return the name of all requests with that token and key: no client meets another's answers."""
    return blake2b(b"%d %b %b" % (len(token), token, key.encode()), digest_size=16).hexdigest()


def fingerprint(message: Message) -> blake2b:
    """Begin the digest of a request, to which the body is added: another envelope, time or body is another request."""
    same: tuple[object, ...] = (message.sender, message.recipients, message.after_seconds, message.at)
    same += (message.dsn,) if message.dsn else ()
    return blake2b(repr(same).encode("utf-8", "backslashreplace") + b"\n", digest_size=16)


def _value(header: Fields, name: str) -> str | None:
    values = header.getall(name, ())
    if len(values) > 1:
        raise ValueError(f"{name} is given {len(values)} times")
    return values[0].strip(" \t") if values else None


def _seconds(text: str) -> float:
    try:
        return float(text) if _SECONDS(text) else float(seconds_in(text if len(text) < 13 else ""))
    except ValueError:
        raise ValueError(f"{AFTER} takes a number of seconds, or a time such as 15m, 6h or 2d") from None


def _time(text: str) -> str:
    """Return the time in UTC, so that a request is the same in whichever zone it names the moment."""
    try:
        at = datetime.fromisoformat(text.upper())  # RFC 3339 allows `t` and `z`
        if at.utcoffset() is None:
            raise ValueError
        return at.astimezone(UTC).isoformat()
    except ValueError:
        raise ValueError(f"{AT} takes a time with its zone, such as 2027-01-31T08:00:00+01:00") from None
    except OverflowError:  # at either end of the calendar: refused as any time that is past, or too late
        return text


def _dsn(text: str) -> str:
    try:
        return checked(text)
    except ParameterRefused as fault:
        raise ValueError(f"{DSN}: {fault}") from None


def _key(text: str) -> str:
    quoted = _QUOTED(text)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text
    if not key:
        raise ValueError(f"{KEY} is empty")
    if len(key) > MAX_KEY_CHARACTERS:
        raise ValueError(f"{KEY} has more than {MAX_KEY_CHARACTERS} characters")
    if not quoted and not _BARE(text):
        raise ValueError(
            f'{KEY} takes printable ASCII characters, in quotes ("8e03978e") where it has spaces'
        )
    return key
