"""What the process is told on its command line, and what settings may say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from maildefer.errors import ConfigurationError
from maildefer.intake import limits, process_options
from maildefer.intake.process_options import ProcessOptions

# Of the limits of `maildefer.intake.limits`, those that mean something here.
LIMITS: Final = (
    "max_bytes",
    "max_recipients",
    "max_connections",
    "max_connections_per_client",
    "exempt_networks",
    "idle_seconds",
    "command_seconds",
    "data_seconds",
    "buffer_bytes",
    "max_held_bytes",
    "max_backlog",
    "min_free_bytes",
    "threads",
    "drain_seconds",
)
OPTIONS: Final = frozenset({"hostname", "user", "group", *LIMITS})
PLACES: Final = frozenset({"host", "port", "token_file", "queues", "processes"})
DEFAULT_PORT: Final = 8826


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions(ProcessOptions):
    """`queues`: the directory of each by its name in the URL."""

    queues: Mapping[str, str]
    socket_fds: tuple[int, ...]
    token_file: str


def parse(arguments: Sequence[str] | None = None) -> HttpOptions:
    """Read the command line; ends the process with 2 and a usage line when it is wrong."""
    import argparse  # the supervisor reads only the names here

    parser = argparse.ArgumentParser(
        prog="python -m maildefer.intake.http", description="Take messages by HTTP: POST /queues/NAME."
    )
    add = parser.add_argument
    add("--socket-fd", type=int, action="append", required=True, help="an inherited bound socket; repeatable")
    add("--queue", metavar="NAME=DIR", action="append", required=True, help="a queue; repeatable")
    add("--token-file", required=True, help="who may push what")
    add("--hostname", default="", help="the name in Received lines")
    limits.add_arguments(parser, LIMITS)
    process_options.add_arguments(parser)
    given = parser.parse_args(arguments)
    queues = dict(text.partition("=")[::2] for text in given.queue)
    if not all(queues) or not all(queues.values()):
        parser.error("--queue: give NAME=DIR")
    return HttpOptions(
        queues=queues,
        socket_fds=tuple(given.socket_fd),
        token_file=given.token_file,
        **limits.given(given, LIMITS),
        **process_options.given(given),
    )


def arguments(said: Mapping[str, Any]) -> list[str]:
    """The options for what `web_config` says."""
    return [
        f"--{name.replace('_', '-')}={said[name]}"
        for name in sorted(OPTIONS & said.keys())
        if said[name] is not None
    ]


def refuse_unknown(said: Mapping[str, Any]) -> None:
    """Raises ConfigurationError for a name that means nothing here, and where nobody could push."""
    known = OPTIONS | PLACES
    if unknown := sorted(said.keys() - known):
        raise ConfigurationError(
            f"web_config: {', '.join(unknown)} means nothing: there are {', '.join(sorted(known))}"
        )
    if not said.get("token_file"):
        raise ConfigurationError(
            "web_config: name a token_file, which says who may push: see docs/delivery.md"
        )
