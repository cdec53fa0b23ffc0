"""The command line of the process that answers for health and metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maildefer.intake.options import FrontEndOptions, add_arguments, parsed_options


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorOptions(FrontEndOptions):
    """Its options; `pidfile` is the one of the process that it answers for."""

    pidfile: str
    socket_fds: tuple[int, ...]
    alerts: Mapping[str, Any] | None = None


def parse(arguments: Sequence[str] | None = None) -> MonitorOptions:
    """Read the command line; ends the process with 2 and a usage line when it is wrong."""
    import argparse  # only in the process that has a command line

    parser = argparse.ArgumentParser(
        prog="python -m maildefer.monitoring", description="Answer for health and metrics by HTTP."
    )
    parser.add_argument("--pidfile", required=True, help="of the process to answer for")
    parser.add_argument(
        "--socket-fd", type=int, action="append", default=[], help="an inherited bound socket"
    )
    parser.add_argument("--lifeline-fd", type=int, help="an inherited pipe: end when its other end is closed")
    parser.add_argument("--alerts", type=json.loads, metavar="JSON", help="the command, and its limits")
    add_arguments(parser, http=True)
    parser.set_defaults(
        max_connections=100,
        max_connections_per_client=50,
        idle_seconds=30.0,
        command_seconds=5.0,
        drain_seconds=0.5,
    )
    parsed = parser.parse_args(arguments)
    return MonitorOptions(
        alerts=parsed.alerts,
        lifeline_fd=parsed.lifeline_fd,
        pidfile=parsed.pidfile,
        socket_fds=tuple(parsed.socket_fd),
        **parsed_options(parsed, http=True),
    )
