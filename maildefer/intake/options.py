"""What the front end is told on its command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

MAX_ENTRY_BYTES: Final = 64 << 20  # what a worker reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`routes_path` None: every recipient is taken. `lifeline_fd`: a pipe whose end ends this process."""

    queue: str
    socket_fds: tuple[int, ...]
    routes_path: str | None = None
    hostname: str = ""
    lmtp: bool = False
    max_entry_bytes: int = MAX_ENTRY_BYTES
    max_backlog: int = 0
    min_free_bytes: int = 64 << 20
    max_connections: int = 500
    max_recipients: int = 1000
    max_held_bytes: int = 512 << 20
    threads: int = 32
    command_seconds: float = 300.0
    drain_seconds: float = 5.0
    lifeline_fd: int | None = None
    log_format: str | None = None
    log_file: str | None = None


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line; ends the process with 2 and a usage line when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m maildefer.intake", description="Take mail from a listening socket into a queue."
    )
    add = parser.add_argument
    defaults: dict[str, Any] = {each.name: each.default for each in fields(Options)}
    add("--socket-fd", type=int, action="append", required=True, help="an inherited bound socket; repeatable")
    add("--queue", required=True, help="the queue's directory")
    add("--routes", metavar="FILE", help="the probe's JSON, '-' for standard input; without it all are taken")
    add("--hostname", default="", help="the name to greet with")
    add("--lmtp", action="store_true", help="speak LMTP: one reply for each recipient")
    add("--max-bytes", type=int, default=defaults["max_entry_bytes"], help="the largest entry")
    add(
        "--max-backlog", type=int, default=0, help="refuse for now above so many waiting entries; 0: no limit"
    )
    add(
        "--min-free-bytes",
        type=int,
        default=defaults["min_free_bytes"],
        help="refuse for now under so much space",
    )
    add("--max-connections", type=int, default=defaults["max_connections"], help="at a time")
    add("--max-recipients", type=int, default=defaults["max_recipients"], help="of a message")
    add(
        "--max-held-bytes",
        type=int,
        default=defaults["max_held_bytes"],
        help="of all messages not yet stored",
    )
    add("--threads", type=int, default=defaults["threads"], help="pushes at a time")
    add(
        "--command-seconds",
        type=float,
        default=defaults["command_seconds"],
        help="wait for a command so long",
    )
    add(
        "--drain-seconds",
        type=float,
        default=defaults["drain_seconds"],
        help="finish transactions at TERM so long",
    )
    add("--lifeline-fd", type=int, help="an inherited pipe: end when its other end is closed")
    add("--log-format", help="console, logfmt or json")
    add("--log-file", metavar="PATH", help="append the log there, and open it anew on USR1")
    given = parser.parse_args(arguments)
    return Options(
        queue=given.queue,
        socket_fds=tuple(given.socket_fd),
        routes_path=given.routes,
        hostname=given.hostname or os.uname().nodename,
        lmtp=given.lmtp,
        max_entry_bytes=given.max_bytes,
        max_backlog=given.max_backlog,
        min_free_bytes=given.min_free_bytes,
        max_connections=given.max_connections,
        max_recipients=given.max_recipients,
        max_held_bytes=given.max_held_bytes,
        threads=given.threads,
        command_seconds=given.command_seconds,
        drain_seconds=given.drain_seconds,
        lifeline_fd=given.lifeline_fd,
        log_format=given.log_format,
        log_file=given.log_file,
    )
