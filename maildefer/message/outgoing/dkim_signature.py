"""Signs messages that are made here (DKIM, RFC 6376), by `dkimpy`, for the domains of the setting `dkim_config`.

Never signed is what was received, nor what a handler sends in the name of a message's author whom the mail server in
front has not verified: a signature would make a forgery of strangers into mail of the domain.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any, Final

from maildefer import log_context
from maildefer.errors import ConfigurationError
from maildefer.message import addresses
from maildefer.message.authentication import authentication_of
from maildefer.message.request import MailRequest
from maildefer.message.response import MailResponse

# Signed as often as they are there, and once more, so that none can be added (RFC 6376, section 8.15).
_CLOSED: Final = (
    *(b"from", b"to", b"cc", b"reply-to", b"subject", b"date", b"message-id"),
    *(b"mime-version", b"content-type", b"content-transfer-encoding"),
)
_SIGNED: Final = frozenset(
    (
        *_CLOSED,
        *(b"sender", b"in-reply-to", b"references", b"auto-submitted", b"list-id", b"list-post"),
        *(b"list-unsubscribe", b"list-unsubscribe-post"),
    )
)
_FIELD: Final = re.compile(rb"^([!-9;-~]+)[ \t]*:", re.MULTILINE)
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*").fullmatch
_KNOWN: Final = {"selector", "key", "domain"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DkimKey:
    """A private key in PEM, the domain that signs, and the selector under which its public key is in the DNS."""

    domain: str
    selector: str
    pem: bytes


configured: Mapping[str, DkimKey] = {}
"""By the domain of From, as the settings say."""


def load_keys(config: Mapping[str, Any], folder: str) -> dict[str, DkimKey]:
    """The keys of the setting; paths begin at `folder`. Each key has signed once when this returns.

    Raises ConfigurationError for whatever would keep a message from being signed.
    """
    return {domain.lower(): _key(domain.lower(), entry, folder) for domain, entry in config.items()}


def signed(message: object, data: bytes) -> bytes:
    """`data`, the message with CRLF line ends, below a signature of its author's domain, if there is a key for that."""
    if not _is_made_here(message):
        return data
    author = authentication_of(data).author
    key = configured.get(author.rpartition("@")[2])
    if key is None or _is_in_a_strangers_name(author):
        return data
    return _signature(data, key) + data


def _is_made_here(message: object) -> bool:
    """Whether it is a response or a message of `email`, and not a received message in that form."""
    if isinstance(message, MailResponse):
        return True
    return isinstance(message, Message) and getattr(message, "wire_form", None) is None


def _is_in_a_strangers_name(author: str) -> bool:
    about = log_context.current()
    handled = () if about is None else about[0] if isinstance(about[0], list) else (about[0],)
    for message in handled:
        if isinstance(message, MailRequest):
            named = addresses.every(message._readable().raw("from"))
            claimed = message.authentication
            is_verified = claimed.author == author and claimed.is_verified
            if author in {message.From, *(one.lower() for one in named)} and not is_verified:
                return True
    return False


def _signature(data: bytes, key: DkimKey) -> bytes:
    import dkim  # 3 MB: only where a message is signed

    head = data[: data.find(b"\r\n\r\n") + 2]
    present = [name for name in map(bytes.lower, _FIELD.findall(head)) if name in _SIGNED]
    made: bytes = dkim.DKIM(data).sign(
        key.selector.encode(),
        key.domain.encode(),
        key.pem,
        canonicalize=(b"relaxed", b"relaxed"),
        include_headers=[*present, *_CLOSED],
    )
    return made


def _key(author_domain: str, entry: Any, folder: str) -> DkimKey:
    where = f"dkim_config[{author_domain!r}]"
    if not isinstance(entry, Mapping) or not {"selector", "key"} <= entry.keys() <= _KNOWN:
        raise ConfigurationError(f'{where} is {entry!r}: give {{"selector": "mail", "key": "conf/dkim.pem"}}')
    domain, selector = str(entry.get("domain", author_domain)).lower(), str(entry["selector"])
    for name in (author_domain, domain, selector.lower()):
        if not _NAME(name):
            raise ConfigurationError(
                f"{where}: {name!r} cannot stand in the DNS: give a name such as osb.example"
            )
    if domain != author_domain and not author_domain.endswith(f".{domain}"):
        raise ConfigurationError(
            f"{where}: a signature of {domain} says nothing about {author_domain}: sign by it or a domain above it"
        )
    path = os.path.join(folder, str(entry["key"]))
    try:
        with open(path, "rb") as file:
            mode, pem = os.fstat(file.fileno()).st_mode, file.read(1 << 16)
    except OSError as fault:
        raise ConfigurationError(f"{where}: the key {path} cannot be read: {fault.strerror}") from fault
    if mode & stat.S_IROTH:
        raise ConfigurationError(f"{where}: any user can read the key {path}: chmod o= {path}")
    key = DkimKey(domain=domain, selector=selector, pem=pem.replace(b"\r\n", b"\n"))
    try:
        _signature(b"From: a@%b\r\n\r\n" % author_domain.encode(), key)
    except ImportError as fault:
        raise ConfigurationError(f"{where}: dkimpy is missing: pip install 'maildefer[dkim]'") from fault
    except Exception as fault:  # raised by dkimpy's own reader of keys: of any type
        raise ConfigurationError(
            f"{where}: {path} is no RSA key that can sign ({type(fault).__name__}): make one by "
            f"openssl genrsa -out {path} 2048"
        ) from fault
    return key
