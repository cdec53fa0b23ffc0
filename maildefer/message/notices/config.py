"""The setting `notices`, read; what acts on it is loaded with the first message that is given up."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from maildefer.errors import ConfigurationError

Action = Literal["failed", "delayed", "relayed", "delivered"]  # RFC 3464, section 2.3.3

EXPIRED: Final = "4.4.7"  # RFC 3463: delivery time expired
MOST_AN_HOUR: Final = 5000  # the most that a rate can have


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeSettings:
    """The setting `notices`."""

    queue: str
    """Where reports go, and whose own failures are always reported."""
    author: str
    """The address in their From."""
    rejects: str = "never"
    """`never`, `authenticated` or `always`: whether what is buried in other queues is reported, too."""
    per_sender: int = 10
    """Reports in an hour to one sender."""
    in_all: int = 100
    """Reports in an hour."""
    delay_seconds: int = 4 * 3600
    """How old a message is when its sender is told that it is late, if it asks for that."""


_ADDRESS: Final = re.compile(r"[!-;=?A-~]+@[A-Za-z0-9.-]+").fullmatch
_REJECTS: Final = ("never", "authenticated", "always")


def notice_settings(config: object, queue: str | None, host: object = None) -> NoticeSettings:
    """The setting, read; `queue` is that of `relay_config`, `host` what `outgoing_config` calls this host.

    Raises ConfigurationError.
    """
    example = '{"queue": "run/outgoing", "author": "postmaster@osb.example", "rejects": "authenticated"}'
    facts: dict[str, Any] = {"queue": queue, "author": f"mailer-daemon@{host or os.uname().nodename}"}
    if not isinstance(config, Mapping) or not config.keys() <= set(NoticeSettings.__slots__):
        raise ConfigurationError(
            f"notices is {config!r}: give {example}, and perhaps per_sender, in_all, delay_seconds"
        )
    facts |= config
    if not isinstance(facts["queue"], str):
        raise ConfigurationError(f"notices names no queue, nor does relay_config: give {example}")
    if not isinstance(facts["author"], str) or not _ADDRESS(facts["author"]):
        raise ConfigurationError(
            f"notices: author is {facts['author']!r}: give the address in a report's From"
        )
    if config.get("rejects", "never") not in _REJECTS:
        raise ConfigurationError(f"notices: rejects is {config['rejects']!r}: give {', '.join(_REJECTS)}")
    for name, most in (("per_sender", MOST_AN_HOUR), ("in_all", MOST_AN_HOUR), ("delay_seconds", 31 * 86400)):
        if not (type(count := config.get(name, 1)) is int and 1 <= count <= most):
            raise ConfigurationError(f"notices: {name} is {count!r}: give 1 to {most}")
    return NoticeSettings(**facts)
