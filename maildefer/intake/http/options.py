"""The command line of a process that takes messages by HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from maildefer.intake.options import FrontEndOptions, add_arguments, parsed_options


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions(FrontEndOptions):
    """The options of an HTTP process. `queues`: the directory of each queue by its name in the URL."""

    queues: Mapping[str, str]
    socket_fds: tuple[int, ...]
    token_file: str


def parse(arguments: Sequence[str] | None = None) -> HttpOptions:
    """Read the command line; ends the process with 2 and a usage line when it is wrong."""
    import argparse  # only in the process that has a command line

    parser = argparse.ArgumentParser(
        prog="python -m maildefer.intake.http", description="Take messages by HTTP: POST /queues/NAME."
    )
    add = parser.add_argument
    add("--socket-fd", type=int, action="append", required=True, help="an inherited bound socket; repeatable")
    add("--queue", metavar="NAME=DIR", action="append", required=True, help="a queue; repeatable")
    add("--token-file", required=True, help="who may push what")
    add_arguments(parser, http=True)
    parsed = parser.parse_args(arguments)
    queues = dict(text.partition("=")[::2] for text in parsed.queue)
    if not all(queues) or not all(queues.values()):
        parser.error("--queue: give NAME=DIR")
    return HttpOptions(
        queues=queues,
        socket_fds=tuple(parsed.socket_fd),
        token_file=parsed.token_file,
        **parsed_options(parsed, http=True),
    )
