"""What the front end allows, and unless told otherwise: options of its command line and of the settings.

The figures are those of Postfix where it has such a limit, and RFC 5321's least where that says one (section 4.5.3).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import argparse  # the supervisor reads the names here, and needs no parser

MAX_ENTRY_BYTES: Final = 64 << 20  # what a worker reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """As one process is told them; `docs/delivery.md` has the table."""

    max_bytes: int = MAX_ENTRY_BYTES
    max_recipients: int = 1000
    max_connections: int = 500
    max_connections_per_client: int = 50
    domains: str = ""
    policy: str = ""
    exempt_networks: str = "127.0.0.0/8 ::1 unix"
    max_errors: int = 20
    max_commands: int = 100
    max_hops: int = 50
    max_deliveries: int = 1
    idle_seconds: float = 300.0
    command_seconds: float = 60.0
    data_seconds: float = 3600.0
    tarpit_seconds: float = 1.0
    tarpit_max_seconds: float = 10.0
    buffer_bytes: int = 256 << 10
    max_held_bytes: int = 256 << 20
    max_backlog: int = 0
    min_free_bytes: int = 64 << 20
    policy_seconds: float = 10.0
    policy_processes: int = 2
    threads: int = 32
    drain_seconds: float = 5.0


_HELP: Final = {
    "max_bytes": "the largest entry, told in EHLO and looked at in MAIL FROM and while a message comes",
    "max_recipients": "of a message; the rest may come later (452)",
    "max_connections": "at a time, of all processes of a front end",
    "max_connections_per_client": "at a time from one IPv4 address or IPv6 /64; 0: no limit",
    "domains": "that mail is taken for, whatever the routes say; empty: those of the routes",
    "policy": "a function of the project's, module.function, that is asked for each recipient (docs/delivery.md)",
    "exempt_networks": "whose clients are not counted, slowed down or sent away: relays of our own",
    "max_errors": "replies of 4yz and 5yz to a client that brings no message; then it is sent away",
    "max_commands": "commands of a client that bring no message on, such as NOOP and RSET; then it is sent away",
    "max_hops": "Received lines, after which a message goes around in circles",
    "max_deliveries": "Delivered-To lines with a recipient, after which it is a loop for this one; 0: not looked at",
    "idle_seconds": "wait so long for a command to begin, or for more of a message",
    "command_seconds": "wait so long for the end of a command that has begun",
    "data_seconds": "wait so long for the end of a message",
    "tarpit_seconds": "the first wait before an error's reply, once a client has made half of max_errors; 0: none",
    "tarpit_max_seconds": "the longest such wait, which doubles with each error",
    "buffer_bytes": "of a message kept in memory; what is larger goes to tmp/ as it comes",
    "max_held_bytes": "kept in memory, of all messages together",
    "max_backlog": "refuse for now above so many waiting entries; 0: no limit",
    "min_free_bytes": "refuse for now under so much free space",
    "policy_seconds": "wait so long for the policy's answer",
    "policy_processes": "that ask the policy, if there is one",
    "threads": "batches of messages that are being stored at a time",
    "drain_seconds": "finish transactions at TERM so long",
}
NAMES: Final = frozenset(_HELP)


def add_arguments(parser: argparse.ArgumentParser, names: Collection[str] = NAMES) -> None:
    """An option for each limit, or for those of some names."""
    for field in fields(Limits):
        if field.name not in names:
            continue
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=field.default,
            metavar="TEXT" if field.type == "str" else "N",
            help=f"{_HELP[field.name]} ({field.default})",
        )


def given(parsed: argparse.Namespace, names: Collection[str] = NAMES) -> dict[str, Any]:
    """What the command line says of them, to make an instance of."""
    return {name: getattr(parsed, name) for name in names}
