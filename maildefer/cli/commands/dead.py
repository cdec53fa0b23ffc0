"""`dead`: the dead letters of a queue and their reasons."""

from __future__ import annotations

import time
from itertools import islice
from shlex import quote
from typing import Annotated, Final

import typer

from maildefer.cli import output
from maildefer.cli.entries import listing
from maildefer.cli.entries.actions import apply
from maildefer.cli.entries.selection import (
    All,
    EntryFilter,
    EntrySelection,
    Json,
    Keys,
    Limit,
    OneKey,
    QueuePath,
    Yes,
    by_age,
    find_one,
    select_entries,
    with_filter,
)
from maildefer.cli.parameters import Commands
from maildefer.cli.schemas.schema import Schema
from maildefer.maildir import reasons
from maildefer.maildir.layout import open_queue
from maildefer.maildir.operator import entries as operate
from maildefer.maildir.operator.inspection import look_into_queue

_KEPT: Final = (
    "what a program gave to {queue} as undeliverable waits there already: "
    "to try it again, list the queue with handlers in `queues` of the settings"
)

app = Commands("Look at dead letters, requeue, edit or delete them.")


@app.command("list")
@with_filter
def list_(
    queue: QueuePath,
    where: EntryFilter,
    keys: Keys = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List dead letters with their reasons, the oldest first."""
    layout = look_into_queue(queue)
    wanted = EntrySelection(keys=keys or [], all=not keys, where=where)
    letters = select_entries(layout, listing.BURIED, wanted)
    number = 0
    folders: set[str] = set()
    for found in islice(letters, limit) if keys else by_age(letters, limit):
        number += 1
        facts = listing.entry_facts(layout, found)
        output.record(facts) if json else listing.show_line(facts)
        folders.add(found.folder)
    if number and not json:
        more = f", `maildefer dead requeue {quote(queue)} …` tries again" if "dead" in folders else ""
        output.say(f"`maildefer dead show {quote(queue)} KEY` tells more{more}")
        if "undeliverable" in folders:
            output.say(_KEPT.format(queue=queue))


@app.command()
def show(
    queue: QueuePath,
    key: OneKey,
    raw: Annotated[bool, typer.Option("--raw", help="Print only the message, byte for byte.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print only the reason, in JSON.")] = False,
) -> None:
    """Show one dead letter: why it was buried, and the message."""
    layout = look_into_queue(queue)
    found = find_one(layout, key, listing.BURIED)
    record = reasons.read_reason(layout, found.entry)
    if json:
        output.record(listing.entry_facts(layout, found) | Schema("dead show").fitted(record))
        return
    if not raw:
        for name, value in record.items():
            if value not in (None, ""):
                text = _moment(value) if name == "time" else str(value)
                if name == "traceback" and "Traceback (" not in text and 'File "' not in text:
                    name = "detail"  # what the pool says itself
                output.line(f"{output.clean(name)}: {output.clean_lines(text.strip())}")
        output.line("")
    listing.show_message(found, whole=False)


@app.command()
@with_filter
def requeue(
    queue: QueuePath,
    where: EntryFilter,
    keys: Keys = None,
    all: All = False,
) -> None:
    """Put dead letters back into the queue, their attempts counted anew."""
    layout = open_queue(queue)
    wanted = EntrySelection(keys=keys or [], all=all, where=where)
    number = apply(layout, ("dead",), wanted, lambda found: operate.requeue(layout, found), "requeued")
    if not number and not wanted.keys and any(select_entries(layout, ("undeliverable",), wanted)):
        output.say(_KEPT.format(queue=queue))


@app.command()
def edit(queue: QueuePath, key: OneKey) -> None:
    """Edit a copy of a dead letter in $VISUAL or $EDITOR, and requeue that; the dead letter stays."""
    from maildefer.cli.entries import editing  # loads what makes messages

    layout = open_queue(queue)
    found = find_one(layout, key, ("dead",))
    new = editing.edit(layout, found)
    output.line(output.clean(f"{found.key}  {new}"))
    output.say(f"the dead letter stays: `maildefer dead delete {quote(queue)} KEY` deletes it")


@app.command()
@with_filter
def delete(
    queue: QueuePath,
    where: EntryFilter,
    keys: Keys = None,
    all: All = False,
    yes: Yes = False,
) -> None:
    """Delete dead letters and their reasons for good."""
    layout = open_queue(queue)
    wanted = EntrySelection(keys=keys or [], all=all, where=where, deletes=True)
    if (
        not wanted.keys
        and not wanted.is_empty
        and not output.confirmed(f"Delete dead letters of {queue}?", yes)
    ):
        raise typer.Exit(1)
    apply(layout, listing.BURIED, wanted, lambda found: operate.delete(layout, found), "deleted")


def _moment(value: object) -> str:
    """The time of a burial as people read it; by the clock of the host that buried the entry."""
    if not isinstance(value, int | float):
        return str(value)
    try:
        then = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(value))
    except (ValueError, OverflowError, OSError):  # no year of the calendar
        return str(value)
    return f"{then}, {output.duration(time.time() - value)} ago"
