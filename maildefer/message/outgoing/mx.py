"""The hosts that take a domain's mail (RFC 5321, section 5.1)."""

from __future__ import annotations

import importlib
from typing import Any

from maildefer.errors import MaildeferError


class RelayUnresolved(MaildeferError):
    """No host is known that takes mail for the recipient."""


def exchangers(domain: str) -> list[str]:
    """The hosts of a domain's MX records, the preferred first, equals in random order; else the domain itself."""
    try:
        resolver: Any = importlib.import_module("dns.resolver")  # optional: maildefer[mx]
    except ImportError as error:
        raise RelayUnresolved(
            f"the mail host of {domain} can't be looked up without dnspython: "
            "install maildefer[mx], or give the relay a host"
        ) from error
    try:
        answers = list(resolver.resolve(domain, "MX"))
    except (resolver.NoAnswer, resolver.NXDOMAIN):
        return [domain]
    import random  # few of a pool's workers need it

    random.shuffle(answers)  # so that hosts of one preference share the load
    answers.sort(key=lambda answer: int(answer.preference))
    hosts = [str(answer.exchange).rstrip(".") for answer in answers]
    if hosts == [""]:
        raise RelayUnresolved(f"{domain} takes no mail: it publishes a null MX (RFC 7505)")
    return list(dict.fromkeys(host for host in hosts if host)) or [domain]
