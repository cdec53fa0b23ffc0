"""`--after` and `--at`, as the commands `push` and `queue reschedule` have them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from maildefer.maildir.push import Pusher
from maildefer.units import seconds_in

After = Annotated[
    str | None, typer.Option("--after", metavar="TIME", help="Handle it in 60s, 15m, 6h or 2d from now.")
]
At = Annotated[
    str | None,
    typer.Option("--at", metavar="TIME", help="Handle it then: 2027-01-31T18:00+01:00, or with Z for UTC."),
]


def due(pusher: Pusher, after: str | None, at: str | None) -> int | None:
    """The due time that the options ask for, by the mount's time; None for now. Raises BadParameter, StorageFault."""
    if after is not None and at is not None:
        raise typer.BadParameter("--after and --at are two ways to say when: give one.")
    try:
        seconds = None if after is None else seconds_in(after)
    except ValueError as fault:
        raise typer.BadParameter(f"--after: {fault}") from fault
    try:
        return pusher.due(after=seconds, at=None if at is None else _moment(at))
    except ValueError as fault:
        raise typer.BadParameter(f"--{fault}") from fault


def _moment(text: str) -> datetime:
    example = "such as 2027-01-31T18:00+01:00, or with Z for UTC"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"at={text!r}: give a date and a time with its zone, {example}") from None
    if moment.utcoffset() is None:
        raise ValueError(f"at={text!r}: give it with its zone, {example}")
    return moment
