"""The hosts that take a domain's mail (RFC 5321, section 5.1), and the name of this one for them."""

from __future__ import annotations

import importlib
import ipaddress
import socket
from collections.abc import Collection
from functools import lru_cache
from typing import Any

from maildefer.errors import MaildeferError

_LONGEST = 255  # characters of a name in an error

configured_name = ""
"""The name of this host for other servers, if the settings say one."""


class RelayUnresolved(MaildeferError):
    """No host is known that takes mail for the recipient; for good, where it has a `final_code`, of SMTP."""

    def __init__(self, text: str, final_code: int | None = None) -> None:
        super().__init__(text)
        self.final_code = final_code


def exchangers(domain: str, own_names: Collection[str] = ()) -> list[str]:
    """The hosts of a domain's MX records, the preferred first, equals in random order; else the domain itself.

    Of an address literal, such as `[192.0.2.1]` or `[IPv6:2001:db8::1]`, the address. Where one of the hosts has one of
    `own_names`, only those that are preferred to it count (RFC 5321, section 5.1). Raises `RelayUnresolved`, by which a
    domain that does not exist, that takes no mail (RFC 7505) or whose mail would come back here is final; and what
    dnspython raises where the DNS does not answer.
    """
    if domain.startswith("["):
        return [_address_in(domain)]
    try:
        resolver: Any = importlib.import_module("dns.resolver")  # optional: maildefer[mx]
    except ImportError as error:
        raise RelayUnresolved(
            f"the mail host of {domain} can't be looked up without dnspython: "
            "install maildefer[mx], or give the relay a host"
        ) from error
    try:
        importlib.import_module("dns.name").from_text(domain)
    except Exception as error:  # empty and long labels, and what IDNA does not take: the types differ
        raise RelayUnresolved(f"{domain[:_LONGEST]!r} is no domain: {error}", 501) from error
    try:
        answers = list(resolver.resolve(domain, "MX"))
    except resolver.NoAnswer:
        return [domain]
    except resolver.NXDOMAIN as error:
        if _is_known_otherwise(domain):
            return [domain]
        raise RelayUnresolved(f"the domain {domain} does not exist", 550) from error
    import random  # few of a pool's workers need it

    random.shuffle(answers)  # so that hosts of one preference share the load
    answers.sort(key=lambda answer: int(answer.preference))
    records = [(int(answer.preference), str(answer.exchange).rstrip(".").lower()) for answer in answers]
    if [host for _, host in records] == [""]:
        raise RelayUnresolved(f"{domain} takes no mail: it publishes a null MX (RFC 7505)", 556)
    own = min((preference for preference, host in records if host in own_names), default=None)
    hosts = [host for preference, host in records if host and (own is None or preference < own)]
    if own is not None and not hosts:
        raise RelayUnresolved(f"mail for {domain} loops back to this host, its preferred MX", 554)
    return list(dict.fromkeys(hosts)) or [domain]


def _is_known_otherwise(domain: str) -> bool:
    """Whether it is a host's name that is not in the DNS: of /etc/hosts, say."""
    try:
        return bool(socket.getaddrinfo(domain, None))
    except (OSError, UnicodeError):
        return False


def _address_in(literal: str) -> str:
    """The address of a literal (RFC 5321, section 4.1.3). Raises RelayUnresolved."""
    text = literal.removeprefix("[").removesuffix("]")
    tag, _, rest = text.partition(":")
    try:
        if not literal.endswith("]"):
            raise ValueError("it does not end")
        if tag.lower() == "ipv6":
            return str(ipaddress.IPv6Address(rest))
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise RelayUnresolved(f"{literal} is no address literal", 501) from None


def own_name() -> str:
    """The name for EHLO, and for what a message gets that has none."""
    return configured_name or _looked_up()


@lru_cache(maxsize=1)
def _looked_up() -> str:
    """The host's name, looked up once in a process.

    By itself `smtplib` asks the DNS for it at each connection, which takes seconds where a name server is slow.
    """
    name = socket.getfqdn()
    if "." in name:
        return name
    try:
        return f"[{socket.gethostbyname(socket.gethostname())}]"
    except OSError:
        return "[127.0.0.1]"
