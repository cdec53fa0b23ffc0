"""What the front end is told on its command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

from maildefer.intake import limits
from maildefer.intake.limits import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(Limits):
    """`routes_path` None: every recipient is taken. `lifeline_fd`: a pipe whose end ends this process."""

    queue: str
    socket_fds: tuple[int, ...]
    routes_path: str | None = None
    hostname: str = ""
    lmtp: bool = False
    lifeline_fd: int | None = None
    user: str = ""
    group: str = ""
    log_format: str | None = None
    log_file: str | None = None


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line; ends the process with 2 and a usage line when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m maildefer.intake", description="Take mail from a listening socket into a queue."
    )
    add = parser.add_argument
    add("--socket-fd", type=int, action="append", required=True, help="an inherited bound socket; repeatable")
    add("--queue", required=True, help="the queue's directory")
    add("--routes", metavar="FILE", help="the probe's JSON, '-' for standard input; without it all are taken")
    add("--hostname", default="", help="the name to greet with")
    add("--lmtp", action="store_true", help="speak LMTP: one reply for each recipient")
    limits.add_arguments(parser)
    add("--lifeline-fd", type=int, help="an inherited pipe: end when its other end is closed")
    add("--user", default="", help="become this user, a name or a number, for good before anything else")
    add("--group", default="", help="become this group; else the user's own and its supplementary ones")
    add("--log-format", help="console, logfmt or json")
    add("--log-file", metavar="PATH", help="append the log there, and open it anew on USR1")
    given = parser.parse_args(arguments)
    return Options(
        queue=given.queue,
        socket_fds=tuple(given.socket_fd),
        routes_path=given.routes,
        hostname=given.hostname or os.uname().nodename,
        lmtp=given.lmtp,
        lifeline_fd=given.lifeline_fd,
        user=given.user,
        group=given.group,
        log_format=given.log_format,
        log_file=given.log_file,
        **limits.given(given),
    )
