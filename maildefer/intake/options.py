"""The options of a front end, each defined once: its name, default and help, and where it can be given.

From `FrontEndOptions` come the command line (`add_arguments`), the names that settings may give (`setting_names`), and
the table in docs/delivery.md (which tests/docs/test_delivery_page.py compares). Names end with their unit. The figures
are those of Postfix where it has such a limit, and RFC 5321's least where that says one (section 4.5.3).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field, dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from maildefer.intake.connection_table import ALONE, TableRow, parse_row

if TYPE_CHECKING:
    import argparse  # the supervisor reads the names here, and needs no parser

_T = TypeVar("_T")
MAX_ENTRY_BYTES: Final = 64 << 20  # what a worker reads


def _setting(default: _T, text: str, *, http: bool = False, **facts: Any) -> _T:
    """A field that settings may give; `http`: also those of the front end by HTTP."""
    return field(default=default, metadata={"help": text, "http": http, "setting": True, **facts})


def _limit(default: _T, text: str, *, http: bool = False, least: int = 0) -> _T:
    """A setting that stands in the table of limits, and if it is a number is no smaller than `least`."""
    return _setting(default, text, http=http, limit=True, least=least)


def _for_process(default: _T, text: str, parse: Callable[[str], object] = str, **facts: Any) -> _T:
    """A field that only the process that starts this one gives."""
    return field(default=default, metadata={"help": text, "http": True, "parse": parse, **facts})


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEndOptions:
    """The options of one process, by SMTP, LMTP or HTTP."""

    max_bytes: int = _limit(
        MAX_ENTRY_BYTES,
        "the largest entry; EHLO announces it; 552 at MAIL FROM where the client states a larger "
        "size, else after the message; at twice as much the connection is closed",
        http=True,
        least=1,
    )
    max_recipients: int = _limit(
        1000, "recipients of a message; 452 for each further one", http=True, least=1
    )
    max_connections: int = _limit(
        500,
        "connections of all processes of a front end at a time; 421 for each further one",
        http=True,
        least=1,
    )
    max_connections_per_client: int = _limit(
        50,
        "connections at a time from one IPv4 address or IPv6 /64; 421 for each further one; 0: no limit",
        http=True,
    )
    domains: str = _limit(
        "",
        "the domains for which mail is accepted, whatever the routes say; empty: the domains of the routes",
    )
    policy: str = _limit("", "MODULE.FUNCTION of the project, which is called for each recipient")
    exempt_networks: str = _limit(
        "127.0.0.0/8 ::1 unix",
        "networks whose clients are not counted, slowed down or disconnected: name your own relays",
        http=True,
    )
    max_errors: int = _limit(
        20,
        "4yz and 5yz replies on a connection; then 421, and it is closed; after each accepted message "
        "the count begins at zero",
    )
    max_commands: int = _limit(
        100,
        "commands that do not advance a message (NOOP, RSET, VRFY, an empty BDAT); then 421, and the "
        "connection is closed",
    )
    max_hops: int = _limit(50, "Received lines; 554 5.4.6 for a message with so many")
    max_deliveries: int = _limit(
        1,
        "Delivered-To lines with the recipient; 554 5.4.6 for a message with so many; 0: no limit, "
        "for mail that is fetched from another mailbox of the same name",
    )
    idle_seconds: float = _limit(300.0, "421, where a client sends nothing for so long", http=True)
    command_seconds: float = _limit(
        60.0, "421, where a command has begun and does not end within this time", http=True
    )
    data_seconds: float = _limit(
        3600.0, "421, where a message, or all of its chunks, does not end within this time", http=True
    )
    tarpit_seconds: float = _limit(
        1.0,
        "from half of `max_errors` on, the delay of the reply to an error, doubled at each further "
        "error; 0: no delay",
    )
    tarpit_max_seconds: float = _limit(10.0, "the longest of these delays")
    buffer_bytes: int = _limit(
        256 << 10,
        "memory for one message; a larger one is written to the queue's `tmp/` while it comes",
        http=True,
    )
    max_held_bytes: int = _limit(
        256 << 20, "memory for all messages that are being received; then 452", http=True
    )
    max_backlog: int = _limit(0, "waiting entries; 452 4.3.1 while there are more; 0: no limit", http=True)
    min_free_bytes: int = _limit(
        64 << 20, "free space; 452 4.3.1 while there is less, or no free inode", http=True
    )
    policy_seconds: float = _limit(10.0, "the time for an answer of the policy; then 451")
    policy_processes: int = _limit(2, "processes that run the policy, if there is one")
    threads: int = _limit(32, "batches of messages that are stored at a time", http=True, least=1)
    drain_seconds: float = _limit(
        5.0, "the time in which transactions may be finished after `TERM`; then 421", http=True
    )

    tls_certificate: str = _setting(
        "", "a PEM file with the certificate and its chain: STARTTLS is offered; read again at HUP"
    )
    tls_key: str = _setting("", "a PEM file with its key, where that is not in the certificate's")
    tls_required: bool = _setting(False, "take nothing without encryption")
    auth_file: str = _setting(
        "", "names and hashed passwords, from `maildefer passwd`: AUTH is offered once there is encryption"
    )
    auth_check: str = _setting(
        "", "MODULE.FUNCTION, called with a name and a password in a process of its own, instead of a file"
    )
    auth_required: bool = _setting(False, "take no mail from a client that has not authenticated")
    dsn: bool = _setting(
        False,
        "offer DSN (RFC 3461), as it is where the settings have `notices`: who offers it has to send reports",
    )
    proxy_networks: str = _setting("", "whose connections begin with the PROXY protocol, version 1 or 2")
    xclient_networks: str = _setting("", "who may say by XCLIENT and XFORWARD for whom it speaks")
    hostname: str = _setting("", "the name in greetings and Received lines; else the host's", http=True)
    user: str = _setting("", "become this user, a name or a number, before anything else", http=True)
    group: str = _setting("", "become this group; else the user's and its supplementary ones", http=True)

    log_level: str | None = _for_process(None, "debug, info, warning or error")
    log_format: str | None = _for_process(None, "console, logfmt or json")
    log_file: str | None = _for_process(None, "append the log there, and open it anew on USR1")
    report_fd: int | None = _for_process(
        None, "an inherited file, to which is written what `maildefer status` shows", int
    )
    connection_row: TableRow = _for_process(
        ALONE,
        "an inherited file in memory, in which the processes of a front end count their connections together",
        parse_row,
        metavar="FD:NUMBER:ROWS",
        former="--guestbook",  # of a supervisor that runs on while its package is upgraded
    )
    ready_fd: int | None = _for_process(
        None, "an inherited pipe: a byte is written to it once connections are taken", int, http=False
    )
    lifeline_fd: int | None = _for_process(
        None, "an inherited pipe: end when its other end is closed", int, http=False
    )

    @property
    def inherited_fds(self) -> tuple[int, ...]:
        """Descriptors besides the sockets; none is for the writer."""
        found = (self.report_fd, self.connection_row.descriptor, self.ready_fd, self.lifeline_fd)
        return tuple(fd for fd in found if fd is not None and fd >= 0)


def setting_names(*, http: bool = False) -> frozenset[str]:
    """The names that `receiver_config` may give, or `web_config`, besides where to listen."""
    return frozenset(each.name for each in _fields(http=http) if "setting" in each.metadata)


def add_arguments(parser: argparse.ArgumentParser, *, http: bool = False) -> None:
    """Add an option for each field."""
    for each in _fields(http=http):
        facts, name, default = each.metadata, f"--{each.name.replace('_', '-')}", each.default
        if isinstance(default, bool):
            parser.add_argument(name, action="store_true", help=facts["help"])
            continue
        parse = facts.get("parse", type(default))
        metavar = "TEXT" if parse is str else "N"
        if "least" in facts and parse is not str:
            parse = _number(parse, facts["least"])
        parser.add_argument(
            name,
            *([facts["former"]] if "former" in facts else []),
            type=parse,
            default=default,
            metavar=facts.get("metavar", metavar),
            help=facts["help"] if default in ("", None, ALONE) else f"{facts['help']} ({default})",
        )


def _number(kind: Callable[[str], float], least: int) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not least <= (value := kind(text)) < float("inf"):
            raise ValueError
        return value

    parse.__name__ = f"number ({least} or more)"  # as argparse tells it
    return parse


def parsed_options(parsed: argparse.Namespace, *, http: bool = False) -> dict[str, Any]:
    """The values that the command line gives, to make an instance of."""
    found = {each.name: getattr(parsed, each.name) for each in _fields(http=http)}
    return {**found, "hostname": parsed.hostname or os.uname().nodename}


def _fields(*, http: bool) -> Iterator[Field[Any]]:
    return (each for each in fields(FrontEndOptions) if each.metadata["http"] or not http)


class SocketProtocol(StrEnum):
    """SMTP, offering STARTTLS where there is a certificate; SMTP that begins with TLS (RFC 8314); LMTP."""

    SMTP = "smtp"
    SMTPS = "smtps"
    LMTP = "lmtp"


def address_text(scheme: str, name: object) -> str:
    """Tell the address of a listening socket, as getsockname() has it: `smtp://[::1]:25`, `smtp:/run/smtp`."""
    if not isinstance(name, tuple):
        return f"{'unix' if scheme == 'http' else scheme}:{name}"
    host, port = name[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


class ListeningSocket(NamedTuple):
    """An inherited listening socket, and what is spoken on it."""

    fd: int
    protocol: SocketProtocol


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeOptions(FrontEndOptions):
    """The options of an SMTP or LMTP process. `routes_path` None: every recipient is accepted."""

    queue: str
    sockets: tuple[ListeningSocket, ...]
    routes_path: str | None = None


def parse(arguments: Sequence[str] | None = None) -> IntakeOptions:
    """Read the command line; ends the process with 2 and a usage line when it is wrong."""
    import argparse  # only in the process that has a command line

    parser = argparse.ArgumentParser(
        prog="python -m maildefer.intake", description="Take mail from a listening socket into a queue."
    )
    add = parser.add_argument
    text = "an inherited bound socket, and smtp, smtps or lmtp; repeatable"
    add("--socket-fd", metavar="N[:PROTOCOL]", action="append", required=True, help=text)
    add("--queue", required=True, help="the queue's directory")
    add("--routes", metavar="FILE", help="the probe's JSON, '-' for standard input; without it all are taken")
    add("--lmtp", action="store_true", help="LMTP, one reply for each recipient, where no protocol is given")
    add_arguments(parser)
    parsed = parser.parse_args(arguments)
    default = SocketProtocol.LMTP if parsed.lmtp else SocketProtocol.SMTP
    try:
        sockets = tuple(_parse_socket(text, default) for text in parsed.socket_fd)
    except ValueError as fault:
        parser.error(f"--socket-fd: {fault}")
    return IntakeOptions(
        queue=parsed.queue, sockets=sockets, routes_path=parsed.routes, **parsed_options(parsed)
    )


def _parse_socket(text: str, default: SocketProtocol) -> ListeningSocket:
    """`FD` or `FD:PROTOCOL`. Raises ValueError."""
    number, colon, protocol = text.partition(":")
    return ListeningSocket(int(number), SocketProtocol(protocol) if colon else default)
