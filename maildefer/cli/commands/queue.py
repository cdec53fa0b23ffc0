"""`queue`: what waits, is claimed or deferred, and what operators may do with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from itertools import chain
from shlex import quote
from typing import Annotated, Final

import typer

from maildefer.cli import output
from maildefer.cli.commands.queue_legacy import QueueGroup, salmon
from maildefer.cli.due_time import After, At, due
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
from maildefer.cli.entries.shape import EDGES_MINUTES, shape_of
from maildefer.cli.parameters import Commands
from maildefer.errors import EntryNotFound
from maildefer.host.identity import this_host
from maildefer.maildir.layout import Layout, open_queue
from maildefer.maildir.operator import entries as operate
from maildefer.maildir.operator import schedule
from maildefer.maildir.operator.entries import ALL_FOLDERS, Folder, FoundEntry
from maildefer.maildir.operator.inspection import look_into_queue
from maildefer.maildir.push import Pusher

app = Commands("Look at queued messages and change what becomes of them.", cls=QueueGroup)
_LIVE: Final[tuple[Folder, ...]] = ("waiting", "claimed", "deferred")
_UNCLAIMED: Final[tuple[Folder, ...]] = ("waiting", "deferred")
_HELD: Final = "held"  # deferred until `unhold`

In = Annotated[
    str | None,
    typer.Option(
        "--in",
        metavar="FOLDER",
        help="Only waiting, claimed, deferred, held, dead or kept ones.",
        autocompletion=lambda: ["waiting", "claimed", "deferred", "held", "dead", "kept"],
    ),
]

ToClear = Annotated[
    str | None,
    typer.Option(
        "--in",
        metavar="FOLDER",
        help="Those that are deferred, dead or kept, in place of those that wait.",
        autocompletion=lambda: ["waiting", "deferred", "dead", "kept"],
    ),
]

app.command("salmon", hidden=True)(salmon)


@app.command("list")
@with_filter
def list_(
    queue: QueuePath,
    where: EntryFilter,
    keys: Keys = None,
    folder: In = None,
    limit: Limit = None,
    envelope: Annotated[bool, typer.Option(help="Read sender and recipient from each file.")] = True,
    json: Json = False,
) -> None:
    """List what waits, is claimed and is deferred, the oldest first."""
    layout = look_into_queue(queue)
    wanted = EntrySelection(keys=keys or [], all=not keys, where=where)
    listed = select_entries(layout, _folders(folder, _LIVE), wanted)
    shown = by_age((found for found in listed if folder != _HELD or schedule.is_held(found.entry)), limit)
    reasons = listing.reasons_of(layout, shown)
    for found in shown:
        facts = listing.entry_facts(layout, found, envelope=envelope, reason=reasons.get(found.key))
        output.record(facts) if json else listing.show_line(facts)
    if len(shown) == limit:
        output.say(f"there may be more: `maildefer queue count {quote(queue)}` counts them")


@app.command()
def shape(
    queue: QueuePath,
    folder: In = None,
    senders: Annotated[
        bool, typer.Option("--senders", "-s", help="By the senders' domains, not the recipients'.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="So many domains.")] = 20,
    json: Json = False,
) -> None:
    """Count what waits, is claimed and is deferred by domain and by age in minutes, as qshape(1) does."""
    layout = look_into_queue(queue)
    chosen = chain.from_iterable(operate.list_entries(layout, each) for each in _folders(folder, _LIVE))
    if folder == _HELD:
        chosen = chain(found for found in chosen if schedule.is_held(found.entry))
    shaped = shape_of(chosen, senders=senders)
    rows = sorted(shaped.items(), key=lambda row: (-sum(row[1]), row[0]))
    total = [sum(column) for column in zip(*shaped.values(), strict=True)] or [0] * (len(EDGES_MINUTES) + 1)
    if json:
        for domain, counts in rows:
            output.record({"domain": domain, "total": sum(counts), "by_age": counts})
        return
    head = ("", "T", *map(str, EDGES_MINUTES), f"{EDGES_MINUTES[-1]}+")
    output.table([(name, sum(counts), *counts) for name, counts in [("TOTAL", total), *rows[:limit]]], head)
    if len(rows) > limit:
        output.say(f"and {len(rows) - limit} more domains: --limit shows them")


@app.command()
def show(
    queue: QueuePath,
    key: OneKey,
    whole: Annotated[bool, typer.Option("--file", help="With the envelope's lines, as the file is.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what is known about it, in JSON.")] = False,
) -> None:
    """Show one message, wherever it is."""
    layout = look_into_queue(queue)
    found = find_one(layout, key, ALL_FOLDERS)
    reason = listing.reasons_of(layout, [found]).get(found.key)
    facts = listing.entry_facts(layout, found, reason=reason)
    if json:
        output.record(facts)
        return
    output.say(f"{found.folder}: {found.path}")
    if note := listing.note_of(facts):
        output.say(output.clean(note))
    listing.show_message(found, whole=whole)


@app.command()
@with_filter
def count(queue: QueuePath, where: EntryFilter, folder: In = None, json: Json = False) -> None:
    """Count the entries."""
    layout = look_into_queue(queue)
    wanted = EntrySelection(all=True, where=where)
    counts: dict[str, int] = dict.fromkeys((*_LIVE, _HELD, "dead", "kept"), 0)
    for found in select_entries(layout, _folders(folder, ALL_FOLDERS), wanted):
        counts[_HELD if schedule.is_held(found.entry) else found.folder] += 1
    if json:
        output.record(
            {"queue": layout.path, **{name: counts[name] for name in counts if folder in (None, name)}}
        )
    elif folder is not None:
        output.line(str(counts[folder]))
    else:
        output.table([(number, name) for name, number in counts.items()])


@app.command()
@with_filter
def requeue(queue: QueuePath, where: EntryFilter, keys: Keys = None, all: All = False) -> None:
    """Put dead letters back into the queue, their attempts counted anew."""
    layout = open_queue(queue)
    wanted = EntrySelection(keys=keys or [], all=all, where=where)
    apply(layout, ("dead",), wanted, lambda found: operate.requeue(layout, found), "requeued")


@app.command()
@with_filter
def release(queue: QueuePath, where: EntryFilter, keys: Keys = None, all: All = False) -> None:
    """Let deferred entries be tried at once; those on hold stay there."""
    layout = open_queue(queue)
    wanted = EntrySelection(keys=keys or [], all=all, where=where, is_held=False)
    apply(layout, ("deferred",), wanted, lambda found: operate.release_deferred(layout, found), "released")


@app.command()
@with_filter
def hold(queue: QueuePath, where: EntryFilter, keys: Keys = None, all: All = False) -> None:
    """Put waiting or deferred entries aside: nobody tries them until `unhold`."""
    layout, host = open_queue(queue), this_host().label
    wanted = EntrySelection(keys=keys or [], all=all, where=where, is_held=False)
    moved = _moved(lambda found: schedule.hold(layout, found, host=host))
    apply(layout, _UNCLAIMED, wanted, moved, "held", lists_first=True)


@app.command()
@with_filter
def unhold(queue: QueuePath, where: EntryFilter, keys: Keys = None, all: All = False) -> None:
    """Let entries that are on hold be tried, at once or when they were pushed for."""
    layout, host = open_queue(queue), this_host().label
    wanted = EntrySelection(keys=keys or [], all=all, where=where, is_held=True)
    now = Pusher(layout, host=host).due(after=0) or 0
    moved = _moved(lambda found: schedule.unhold(layout, found, now=now, host=host))
    apply(layout, ("deferred",), wanted, moved, "let go", lists_first=True)


@app.command()
@with_filter
def move(
    queue: QueuePath,
    to: Annotated[str, typer.Option("--to", metavar="QUEUE", help="The other queue's directory.")],
    where: EntryFilter,
    keys: Keys = None,
    all: All = False,
) -> None:
    """Move waiting or deferred entries to another queue, their attempts counted anew."""
    layout, other, host = open_queue(queue), open_queue(to), this_host().label
    if os.path.samefile(layout.path, other.path):
        raise typer.BadParameter(f"--to: {to} is the queue that they are in.")
    wanted = EntrySelection(keys=keys or [], all=all, where=where)
    moved = _moved(lambda found: schedule.move_to(layout, found, other, host=host))
    apply(layout, _UNCLAIMED, wanted, moved, f"moved to {to}")


@app.command()
@with_filter
def reschedule(
    queue: QueuePath,
    where: EntryFilter,
    keys: Keys = None,
    all: All = False,
    after: After = None,
    at: At = None,
) -> None:
    """Have waiting or deferred entries tried at another time."""
    layout, host = open_queue(queue), this_host().label
    if after is None and at is None:
        raise typer.BadParameter("Say when, by --after or --at.")
    when = due(Pusher(layout, host=host), after, at)
    wanted = EntrySelection(keys=keys or [], all=all, where=where, is_held=False)
    moved = _moved(lambda found: schedule.move(layout, found, when, host=host))
    apply(layout, _UNCLAIMED, wanted, moved, "rescheduled", lists_first=True)


@app.command()
@with_filter
def delete(
    queue: QueuePath, where: EntryFilter, keys: Keys = None, all: All = False, yes: Yes = False
) -> None:
    """Delete waiting or deferred entries for good, which cancels what they ask for."""
    layout = open_queue(queue)
    wanted = EntrySelection(keys=keys or [], all=all, where=where, deletes=True)
    if not wanted.keys and not wanted.is_empty and not output.confirmed(f"Delete entries of {queue}?", yes):
        raise typer.Exit(1)
    apply(layout, _UNCLAIMED, wanted, partial(_delete, layout), "deleted")


def _delete(layout: Layout, found: FoundEntry) -> None:
    operate.delete(layout, found)
    if found.entry.is_handled:
        output.complain(
            f"{found.key}: its handlers were done; what they had sent and nobody had seen is given up"
        )


@app.command()
def clear(queue: QueuePath, folder: ToClear = None, yes: Yes = False) -> None:
    """Delete all that wait (or, with --in, are deferred, dead or kept) for good."""
    layout = open_queue(queue)
    if folder == _HELD:
        raise typer.BadParameter("What is on hold is deleted by `delete`, by keys or a filter.")
    (chosen,) = _folders(folder, ("waiting",))
    if chosen == "claimed":
        raise typer.BadParameter("Claimed entries are in workers' hands: stop or pause the pools first.")
    if not output.confirmed(f"Delete all {chosen} entries of {queue}?", yes):
        raise typer.Exit(1)
    number = operate.clear(layout, chosen)
    output.say(f"{output.count(number, 'entry', 'entries')} deleted from {queue}")


def _moved(action: Callable[[FoundEntry], bool]) -> Callable[[FoundEntry], None]:
    """The action, for which an entry that another process has moved first is one that is not found."""

    def move_one(found: FoundEntry) -> None:
        if not action(found):
            raise EntryNotFound(found.key, found.directory)

    return move_one


def _folders(given: str | None, default: tuple[Folder, ...]) -> tuple[Folder, ...]:
    if given is None:
        return default
    if given == _HELD:
        return ("deferred",)
    for folder in ALL_FOLDERS:
        if folder == given:
            return (folder,)
    raise typer.BadParameter(f"--in: {given!r} is not one of {', '.join((*ALL_FOLDERS, _HELD))}.")
