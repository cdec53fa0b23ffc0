"""`queue`: what waits, is claimed or deferred, and what operators may do with it."""

from __future__ import annotations

from itertools import chain
from typing import Annotated

import typer

from maildefer.cli import entries, output
from maildefer.cli.commands.queue_legacy import QueueGroup, salmon
from maildefer.cli.due_time import After, At, due
from maildefer.cli.entries import All, Json, Keys, Limit, OlderThan, OneKey, QueuePath, Yes
from maildefer.cli.parameters import Commands
from maildefer.errors import EntryNotFound
from maildefer.host.identity import this_host
from maildefer.maildir.layout import open_queue
from maildefer.maildir.operator import entries as operate
from maildefer.maildir.operator import schedule
from maildefer.maildir.operator.entries import FOLDERS, Folder, FoundEntry
from maildefer.maildir.operator.inspection import look_into_queue
from maildefer.maildir.push import Pusher

app = Commands("Look at queued messages and change what becomes of them.", cls=QueueGroup)
_LIVE: tuple[Folder, ...] = ("waiting", "claimed", "deferred")
_CLEARED: tuple[Folder, ...] = ("waiting", "deferred")

In = Annotated[
    str | None, typer.Option("--in", metavar="FOLDER", help="Only waiting, claimed, deferred or dead ones.")
]


app.command("salmon", hidden=True)(salmon)


@app.command("list")
def list_(
    queue: QueuePath,
    folder: In = None,
    limit: Limit = None,
    envelope: Annotated[bool, typer.Option(help="Read sender and recipient from each file.")] = True,
    json: Json = False,
) -> None:
    """List what waits, is claimed and is deferred, the oldest first."""
    layout = look_into_queue(queue)
    listed = chain.from_iterable(operate.list_entries(layout, each) for each in _folders(folder, _LIVE))
    shown = entries.by_age(listed, limit)
    for found in shown:
        facts = entries.entry_facts(layout, found, envelope=envelope)
        output.record(facts) if json else entries.show_line(facts)
    if len(shown) == limit:
        output.say(f"there may be more: `maildefer queue count {queue}` counts them")


@app.command()
def show(
    queue: QueuePath,
    key: OneKey,
    whole: Annotated[bool, typer.Option("--file", help="With the envelope's lines, as the file is.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what is known about it, in JSON.")] = False,
) -> None:
    """Show one message, wherever it is."""
    layout = look_into_queue(queue)
    found = entries.find_one(layout, key)
    if json:
        output.record(entries.entry_facts(layout, found))
        return
    output.say(f"{found.folder}: {found.path}")
    entries.show_message(found, whole=whole)


@app.command()
def count(queue: QueuePath, folder: In = None, json: Json = False) -> None:
    """Count the entries."""
    layout = look_into_queue(queue)
    folders = _folders(folder, FOLDERS)
    counts: dict[str, object] = {each: sum(1 for _ in operate.list_entries(layout, each)) for each in folders}
    if json:
        output.record({"queue": layout.path, **counts})
    elif folder is not None:
        output.line(str(counts[folder]))
    else:
        output.table([(number, name) for name, number in counts.items()])


@app.command()
def requeue(queue: QueuePath, keys: Keys = None, all: All = False, older_than: OlderThan = None) -> None:
    """Put dead letters back into the queue, their attempts counted anew."""
    layout = open_queue(queue)
    wanted = entries.selection(keys, all, older_than=older_than)
    entries.apply(layout, ("dead",), wanted, lambda found: operate.requeue(layout, found), "requeued")


@app.command()
def release(queue: QueuePath, keys: Keys = None, all: All = False, older_than: OlderThan = None) -> None:
    """Let deferred entries be tried at once."""
    layout = open_queue(queue)
    wanted = entries.selection(keys, all, older_than=older_than)
    entries.apply(
        layout, ("deferred",), wanted, lambda found: operate.release_deferred(layout, found), "released"
    )


@app.command()
def reschedule(
    queue: QueuePath,
    keys: Keys = None,
    all: All = False,
    older_than: OlderThan = None,
    after: After = None,
    at: At = None,
) -> None:
    """Have waiting or deferred entries tried at another time."""
    layout, host = open_queue(queue), this_host().label
    if after is None and at is None:
        raise typer.BadParameter("Say when, by --after or --at.")
    when, wanted = (
        due(Pusher(layout, host=host), after, at),
        entries.selection(keys, all, older_than=older_than),
    )

    def move(found: FoundEntry) -> None:
        if not schedule.move(layout, found, when, host=host):
            raise EntryNotFound(found.key, layout.path)

    entries.apply(layout, _CLEARED, wanted, move, "rescheduled", lists_first=True)


@app.command()
def delete(
    queue: QueuePath, keys: Keys = None, all: All = False, older_than: OlderThan = None, yes: Yes = False
) -> None:
    """Delete waiting or deferred entries for good, which cancels what they ask for."""
    layout = open_queue(queue)
    wanted = entries.selection(keys, all, older_than=older_than, deletes=True)
    if not wanted.keys and not wanted.is_empty and not output.confirmed(f"Delete entries of {queue}?", yes):
        raise typer.Exit(1)
    entries.apply(layout, _CLEARED, wanted, lambda found: operate.delete(layout, found), "deleted")


@app.command()
def clear(queue: QueuePath, folder: In = None, yes: Yes = False) -> None:
    """Delete all that wait (or, with --in, are deferred or dead) for good."""
    layout = open_queue(queue)
    (chosen,) = _folders(folder, ("waiting",))
    if chosen == "claimed":
        raise typer.BadParameter("Claimed entries are in workers' hands: stop or pause the pools first.")
    if not output.confirmed(f"Delete all {chosen} entries of {queue}?", yes):
        raise typer.Exit(1)
    number = operate.clear(layout, chosen)
    output.say(f"{output.count(number, 'entry', 'entries')} deleted from {queue}")


def _folders(given: str | None, default: tuple[Folder, ...]) -> tuple[Folder, ...]:
    if given is None:
        return default
    for folder in FOLDERS:
        if folder == given:
            return (folder,)
    raise typer.BadParameter(f"--in: {given!r} is not one of {', '.join(FOLDERS)}.")
