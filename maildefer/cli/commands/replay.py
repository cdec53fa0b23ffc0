"""`replay`: what was handled, and is kept, is handled again."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from shlex import quote
from typing import Annotated

import typer

from maildefer.cli import output
from maildefer.cli.entries.actions import apply
from maildefer.cli.entries.selection import (
    All,
    EntryFilter,
    EntrySelection,
    Json,
    Keys,
    QueuePath,
    by_age,
    seconds_of,
    select_entries,
    with_filter,
)
from maildefer.cli.parameters import Commands
from maildefer.maildir.layout import Layout, open_queue
from maildefer.maildir.operator.entries import FoundEntry
from maildefer.maildir.operator.inspection import look_into_queue

app = Commands()


@dataclass(frozen=True, kw_only=True)
class KeptSelection(EntrySelection):
    """Those of a selection that were handled in the last seconds, too."""

    seconds: float | None = None

    def fits(self, layout: Layout, found: FoundEntry) -> bool:
        return (self.seconds is None or time.time() - _handled_at(found) <= self.seconds) and super().fits(
            layout, found
        )


@app.command()
@with_filter
def replay(
    queue: QueuePath,
    where: EntryFilter,
    keys: Keys = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="AGE", help="Those handled in the last 90s, 15m, 6h, 2d.")
    ] = None,
    all: All = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Run the handlers here, and show what they would push and send. What they do by other means is done.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Handle kept messages again, under fresh keys; what is kept stays."""
    wanted = KeptSelection(
        keys=keys or [], all=all or since is not None, where=where, seconds=seconds_of(since)
    )
    if wanted.is_empty:
        raise typer.BadParameter(
            "Name the messages by their keys, or choose them by an option such as --since."
        )
    if dry_run:
        return _show(look_into_queue(queue), wanted, json)
    from maildefer.cli.entries import copies  # loads what makes messages

    layout = open_queue(queue)
    number = apply(
        layout,
        ("kept",),
        wanted,
        lambda found: copies.replay(layout, found),
        "replayed",
        lists_first=True,
        shows_key=True,
    )
    if not number:
        output.say(f"`maildefer queue list {quote(queue)} --in kept` shows what is kept")


def _show(layout: Layout, wanted: EntrySelection, json: bool) -> None:
    """Print what the handlers of each message would do."""
    from maildefer.cli.entries.dry_run import DryRunner  # loads the project's handlers
    from maildefer.handling.outcomes import HandedOff, word_of

    runner = DryRunner(layout)
    for found in by_age(select_entries(layout, ("kept",), wanted), None):
        ran = runner.run(found)
        outcome, reason = word_of(ran.outcome), getattr(ran.outcome, "reason", None)
        if json:
            facts = {"handlers": ran.handlers.split(","), "outcome": outcome, "reason": reason}
            output.record({"queue_id": found.key, **facts, "effects": ran.effects})
            continue
        output.line(output.clean(found.key))
        if isinstance(ran.outcome, HandedOff):
            reason = f"to {ran.outcome.module}.{ran.outcome.function}"
        told = f"{outcome}: {reason}" if reason else outcome
        output.line(output.clean(f"  {ran.handlers or 'no handler'}: {told}"))
        for effect in ran.effects:
            output.line(output.clean(f"  would {_line(effect)}"))


def _line(effect: dict[str, object]) -> str:
    facts = dict(effect)
    what = str(facts.pop("effect"))
    if isinstance(recipients := facts.pop("recipients", None), list):
        what += f"  <{facts.pop('sender')}> → {', '.join(recipients)}"
    said = "  ".join(f"{name}={value}" for name, value in facts.items() if value != "")
    return f"{'set the ' if what == 'state' else ''}{what}  {said}"


def _handled_at(found: FoundEntry) -> float:
    """When it was moved there, by the mount's time."""
    with suppress(OSError):
        return os.lstat(found.path).st_ctime
    return 0.0
