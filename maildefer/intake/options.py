"""What the front end is told on its command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from maildefer.intake import limits, process_options
from maildefer.intake import listening_sockets as doors
from maildefer.intake.access import options
from maildefer.intake.access.options import AccessOptions
from maildefer.intake.listening_sockets import ListeningSocket, SocketProtocol


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeOptions(AccessOptions):
    """`routes_path` None: every recipient is taken. `lifeline_fd`: a pipe whose end ends this process."""

    queue: str
    doors: tuple[ListeningSocket, ...]
    routes_path: str | None = None
    lifeline_fd: int | None = None
    ready_fd: int | None = None

    @property
    def socket_fds(self) -> tuple[int, ...]:
        return tuple(door.fd for door in self.doors)


def parse(arguments: Sequence[str] | None = None) -> IntakeOptions:
    """Read the command line; ends the process with 2 and a usage line when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m maildefer.intake", description="Take mail from a listening socket into a queue."
    )
    add = parser.add_argument
    add(
        "--socket-fd",
        metavar="N[:KIND]",
        action="append",
        required=True,
        help="an inherited bound socket, and smtp, smtps or lmtp; repeatable",
    )
    add("--queue", required=True, help="the queue's directory")
    add("--routes", metavar="FILE", help="the probe's JSON, '-' for standard input; without it all are taken")
    add("--hostname", default="", help="the name to greet with")
    add(
        "--lmtp", action="store_true", help="speak LMTP, one reply for each recipient, where no kind is given"
    )
    limits.add_arguments(parser)
    options.add_arguments(parser)
    add("--lifeline-fd", type=int, help="an inherited pipe: end when its other end is closed")
    add("--ready-fd", type=int, help="an inherited pipe: a byte is written to it once connections are taken")
    process_options.add_arguments(parser)
    given = parser.parse_args(arguments)
    default = SocketProtocol.LMTP if given.lmtp else SocketProtocol.SMTP
    try:
        found = tuple(doors.read(text, default) for text in given.socket_fd)
    except ValueError as fault:
        parser.error(f"--socket-fd: {fault}")
    return IntakeOptions(
        queue=given.queue,
        doors=found,
        routes_path=given.routes,
        lifeline_fd=given.lifeline_fd,
        ready_fd=given.ready_fd,
        **process_options.given(given),
        **limits.given(given),
        **options.given(given),
    )
