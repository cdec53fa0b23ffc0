"""What the mail server in front has found out about a message's author (RFC 8601), as far as it can be believed.

Nothing is looked up or verified here. A field `Authentication-Results` is believed if it has the name of a server that
the settings name, is the topmost of such fields, and stands above what came from outside. The server must remove the
fields in its own name from what it receives (RFC 8601, section 5): it is the only one that can tell them apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from maildefer.errors import ConfigurationError
from maildefer.message.envelope import HEADER_LIMIT_BYTES
from maildefer.message.mime.authentication_results import (
    QUOTED,
    AuthenticationResult,
    comment_end,
    read_field,
)

_LINE_END: Final = re.compile(rb"\r\n|\n")
_NAME: Final = re.compile(rb"([!-9;-~]+)[ \t]*:")
_LONE_RETURN: Final = re.compile(rb"\r(?!\n)").search
_FROM_TOKEN: Final = re.compile(rf'{QUOTED}|\(|[^"()\\]++', re.DOTALL).match
_ADDRESS: Final = re.compile(
    r"[^\s@<>,:;]++@((?:[a-z0-9](?:[a-z0-9-]*+))(?:\.[a-z0-9][a-z0-9-]*+)++)"
).fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedServers:
    """The setting `authentication_config`."""

    servers: frozenset[str] = frozenset()
    """The names by which our mail servers write their results, in lower case."""
    fields: int = 1
    """How many fields the server writes for each message: more than one where several programs write their own."""
    hops: int = 1
    """How many Received lines our own servers have written; a field below the next one came from outside."""
    strict: bool = False
    """Whether a domain speaks for itself alone, and not for the names below it."""


configured = TrustedServers()
"""What the settings say; without any, nothing is believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authentication:
    """The results that are believed. `author`: the address in From, in lower case, empty unless it has exactly one."""

    server: str = ""
    """The name of the server whose results these are; empty if none are believed."""
    results: tuple[AuthenticationResult, ...] = ()
    author: str = ""
    strict: bool = False

    @property
    def author_domain(self) -> str:
        """The domain of the author, which alone can be verified: it knows whose the part before the @ is."""
        return self.author.rpartition("@")[2]

    @property
    def is_verified(self) -> bool:
        """Whether the message has the consent of its author's domain."""
        return self.verified_by is not None

    @property
    def verified_by(self) -> str | None:
        """`dmarc`, `dkim` or `spf`: the method by which the author's domain is verified; None if it is not.

        The server's result for DMARC decides, if it has one: it knows the domain's policy and the public suffixes.
        Otherwise a signature or an envelope sender has to be of the author's domain, or one above it.
        """
        if not self.author:
            return None
        dmarc = [one for one in self.results if one.method == "dmarc"]
        if any(one.result == "pass" for one in dmarc):
            is_ours = all(
                one.result == "pass" and _domain(one, "header.from") == self.author_domain for one in dmarc
            )
            return "dmarc" if is_ours else None
        if any(one.result not in ("none", "bestguesspass") for one in dmarc):
            return None
        for method, names in _IDENTITIES.items():
            for one in self.results:
                if one.method == method and one.result == "pass" and self.aligned(_domain(one, *names)):
                    return method
        return None

    def result(self, method: str) -> str:
        """The server's word for the method: `pass` if it says so of any signature; `none` if it says nothing."""
        words = [one.result for one in self.results if one.method == method]
        return "pass" if "pass" in words else words[0] if words else "none"

    def vouches_for(self, sender: str) -> bool:
        """Whether the domain of an envelope's sender consents: by SPF, or as the author's, which is verified."""
        domain = sender.rpartition("@")[2].lower()
        spf = [one for one in self.results if one.method == "spf" and one.result == "pass"]
        if domain and any(_domain(one, "smtp.mailfrom") == domain for one in spf):
            return True
        return self.is_verified and domain == self.author_domain

    def aligned(self, domain: str) -> bool:
        """Whether a domain can speak for the author's: the same, or, unless `strict`, one above it.

        A zone's owner can sign for all names below it anyway. That two names have the same owner since both are below
        a third is not assumed, nor that a name speaks for those above it: that takes the list of public suffixes.
        """
        own = self.author_domain
        if not own or "." not in domain:
            return False
        return domain == own or (not self.strict and own.endswith(f".{domain}"))


_IDENTITIES: Final = {"dkim": ("header.d", "header.i"), "spf": ("smtp.mailfrom",)}


def authentication_of(data: bytes | str, trusted: TrustedServers | None = None) -> Authentication:
    """What is believed about a message as it came, by the settings unless `trusted` is given."""
    trusted = configured if trusted is None else trusted
    fields = _fields(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
    authors = [value for name, value in fields if name == "from"]
    author = _address(authors[0]) if len(authors) == 1 else ""
    server, results = _believed(fields, trusted)
    return Authentication(server=server, results=results, author=author, strict=trusted.strict)


def trusted_servers(config: object) -> TrustedServers:
    """The setting, read. Raises ConfigurationError."""
    example = (
        'give {"servers": ["mx.osb.example"]}, and perhaps "fields": 2, "hops": 2, "alignment": "strict"'
    )
    if not isinstance(config, Mapping) or not config.keys() <= {"servers", "fields", "hops", "alignment"}:
        raise ConfigurationError(f"authentication_config is {config!r}: {example}")
    servers, fields, hops = config.get("servers"), config.get("fields", 1), config.get("hops", 1)
    alignment = config.get("alignment", "relaxed")
    names = servers if isinstance(servers, list | tuple) else ()
    counts = all(type(count) is int and count >= 1 for count in (fields, hops))
    if not names or not all(isinstance(name, str) and name.strip() for name in names) or not counts:
        raise ConfigurationError(f"authentication_config is {config!r}: {example}")
    if alignment not in ("relaxed", "strict"):
        raise ConfigurationError(f"authentication_config: alignment is {alignment!r}: give relaxed or strict")
    return TrustedServers(
        servers=frozenset(name.strip().lower() for name in names),
        fields=fields,
        hops=hops,
        strict=alignment == "strict",
    )


def _believed(
    fields: list[tuple[str, str]], trusted: TrustedServers
) -> tuple[str, tuple[AuthenticationResult, ...]]:
    server, count, hops = "", 0, 0
    results: tuple[AuthenticationResult, ...] = ()
    for name, value in fields if trusted.servers else ():
        if name == "received":
            hops += 1
            if hops > trusted.hops:
                break
        elif name == "authentication-results":
            found = read_field(value)
            if found is None or (count and found.server != server):
                break
            if found.server not in trusted.servers:
                continue
            server, count, results = found.server, count + 1, results + found.results
            if count == trusted.fields:
                break
    return server, results


def _fields(data: bytes) -> list[tuple[str, str]]:
    """The header fields: names in lower case, values with their folds; none if programs could read them in two ways."""
    ends = [at for at in (data.find(b"\n\n"), data.find(b"\n\r\n")) if at >= 0]
    head = (data[: min(ends)] if ends else data.removesuffix(b"\n")).removesuffix(b"\r")
    if len(head) > HEADER_LIMIT_BYTES or _LONE_RETURN(head) or b"\0" in head:
        return []
    fields: list[tuple[bytes, list[bytes]]] = []
    for line in _LINE_END.split(head):
        if line[:1] in (b" ", b"\t"):
            if fields:
                fields[-1][1].append(line)
            continue
        name = _NAME.match(line)
        if name is None:
            if not fields and line.startswith(b"From "):  # of an mbox
                continue
            return []
        fields.append((name[1].lower(), [line[name.end() :]]))
    return [
        (name.decode("ascii"), b"\n".join(lines).decode("utf-8", "surrogateescape")) for name, lines in fields
    ]


def _address(value: str) -> str:
    """The one address in a From field; empty if there are none or several, or one that could be read in two ways."""
    at, text = 0, ""
    while at < len(value):
        token = _FROM_TOKEN(value, at)
        if token is None:
            return ""
        at = token.end()
        if token[0] == "(":
            at = comment_end(value, at)
            if at < 0:
                return ""
        elif token[0][0] != '"':
            text += token[0]
    before, bracket, rest = text.strip().partition("<")
    if bracket:
        if "@" in before or any(sign in before for sign in ",:;>") or rest[-1:] != ">":
            return ""
        text = rest[:-1]
    address = text.strip().lower()
    return address if _ADDRESS(address) else ""


def _domain(result: AuthenticationResult, *names: str) -> str:
    """The domain in the first of the properties that there are."""
    properties: Mapping[str, str] = result.properties
    value = next((properties[name] for name in names if name in properties), "")
    return value.strip("<>").rpartition("@")[2].rstrip(".").lower()
