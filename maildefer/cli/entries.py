"""How `queue` and `dead` choose and print entries."""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from maildefer.cli import output
from maildefer.errors import EntryMalformed, EntryNotFound, EntryTooLarge, MaildeferError, UniqueKeyHeld
from maildefer.maildir import durable, reasons
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName, owner_of, pushed_at, pushed_by_us_at, size_of
from maildefer.maildir.operator import entries
from maildefer.maildir.operator.entries import Folder, FoundEntry
from maildefer.maildir.scan import priority_of
from maildefer.message.envelope import TOP_LIMIT_BYTES, split
from maildefer.units import seconds_in

QueuePath = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's directory.")]
Keys = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY]...", help="Entries by their keys, or how these begin.")
]
OneKey = Annotated[str, typer.Argument(metavar="KEY", help="The entry's key, or how it alone begins.")]
All = Annotated[bool, typer.Option("--all", "-a", help="All that are there.")]
Reason = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Those whose reason contains this.")
]
OlderThan = Annotated[
    str | None,
    typer.Option("--older-than", metavar="AGE", help="Those older than 90s, 15m, 6h, 2d."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON Lines.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Limit = Annotated[
    int | None, typer.Option("--limit", "-n", metavar="N", min=1, help="Only so many, the oldest.")
]

BURIED: tuple[Folder, ...] = ("dead", "undeliverable")  # those with a reason beside them
_LEAST_TO_DELETE = 10  # characters of a key that is cut short: the seconds of its push
_MOST_NAMED = 20  # of those that something can't be done to
_SHOWN_BYTES = 1 << 30  # more than any queue's `max_bytes` allows in earnest


@dataclass(frozen=True, slots=True, kw_only=True)
class EntrySelection:
    """Which entries a command is for."""

    keys: list[str] = field(default_factory=list)
    all: bool = False
    reason: str | None = None
    older_than_seconds: float | None = None
    deletes: bool = False

    @property
    def is_empty(self) -> bool:
        return not self.keys and not self.all and self.reason is None and self.older_than_seconds is None


def selection(
    keys: list[str] | None,
    all: bool,
    reason: str | None = None,
    older_than: str | None = None,
    *,
    deletes: bool = False,
) -> EntrySelection:
    """The choice that arguments ask for. Raises BadParameter for an empty key or reason, as of an unset variable."""
    if "" in (keys or []):
        raise typer.BadParameter("A key is empty.")
    if reason is not None and not reason.strip():
        raise typer.BadParameter("--reason: it is empty; all are chosen by --all.")
    return EntrySelection(
        keys=keys or [], all=all, reason=reason, older_than_seconds=_seconds(older_than), deletes=deletes
    )


def select_entries(
    layout: Layout, folders: tuple[Folder, ...], wanted: EntrySelection
) -> Iterator[FoundEntry]:
    """The chosen entries, lazily. Keys of no entry are named at the end.

    Raises OSError, EntryNotFound; before the first, EntryAmbiguous for a key that begins several, and BadParameter for
    one of which hardly anything is given, where entries are deleted.
    """
    if not wanted.keys:
        for folder in folders:
            yield from (
                found for found in entries.list_entries(layout, folder) if _fits(layout, found, wanted)
            )
        return
    named = entries.find_named(layout, wanted.keys, folders)
    if wanted.deletes:
        _refuse_short_keys(named)
    for matches in named.values():
        yield from (found for found in matches if _fits(layout, found, wanted))
    errors = entries.not_found(layout, sorted(key for key, matches in named.items() if not matches))
    for error in errors[1:]:
        output.complain(str(error))
    if errors:
        raise errors[0]


def _refuse_short_keys(named: dict[str, list[FoundEntry]]) -> None:
    """A number that belongs to an option, or half a pasted key, begins a key where there is only one entry."""
    for key, matches in named.items():
        for found in matches:
            if len(key) < _LEAST_TO_DELETE and key not in (found.key, found.entry.unique_key, found.name):
                raise typer.BadParameter(
                    f"{key!r} is too short to delete {output.clean(found.key)} by: "
                    f"give its whole key, or at least {_LEAST_TO_DELETE} characters of it."
                )


def find_one(layout: Layout, key: str, folders: tuple[Folder, ...] = entries.FOLDERS) -> FoundEntry:
    """The entry of a key or of a key's beginning. Raises EntryNotFound, EntryAmbiguous, OSError."""
    if not key:
        raise typer.BadParameter("The key is empty.")
    if not (matches := entries.find_named(layout, [key], folders)[key]):
        raise EntryNotFound(key, layout.path)
    return matches[0]


def by_age(found: Iterable[FoundEntry], limit: int | None) -> list[FoundEntry]:
    """Entries with the oldest first, by their keys; with a limit, no more than that are in memory."""
    return sorted(found, key=_age) if limit is None else heapq.nsmallest(limit, found, key=_age)


def _age(found: FoundEntry) -> tuple[bool, float, str]:
    pushed = _arrived_at(found.entry.key)
    return pushed is None, pushed or 0.0, found.name


def _arrived_at(key: str) -> float | None:
    """When the entry was pushed, also if it was pushed for later."""
    own = pushed_by_us_at(key)
    return pushed_at(key) if own is None else own


def apply(
    layout: Layout,
    folders: tuple[Folder, ...],
    wanted: EntrySelection,
    action: Callable[[FoundEntry], object],
    done: str,
    *,
    lists_first: bool = False,
) -> int:
    """Call a function for each chosen entry and print its key; returns how many.

    With `lists_first`, none is listed after the first was moved, for a function that moves them within these folders.

    An entry that another process moved first is named and passed over. EntryMalformed or UniqueKeyHeld is raised after
    the others are done, for the first that was refused.
    """
    if wanted.is_empty:
        raise typer.BadParameter("Name the entries by their keys, or choose them by an option such as --all.")
    number, malformed, first = 0, 0, None
    listed = select_entries(layout, folders, wanted)
    for found in list(listed) if lists_first else listed:
        try:
            action(found)
        except (EntryMalformed, UniqueKeyHeld) as fault:
            malformed += isinstance(fault, EntryMalformed)
            if first is None:  # which is named by the error
                first = fault
            elif malformed <= _MOST_NAMED or isinstance(fault, UniqueKeyHeld):
                output.complain(str(fault))
            continue
        except EntryNotFound:
            output.complain(f"{found.key} was moved by somebody else meanwhile")
            continue
        output.line(output.clean(found.key))
        number += 1
    output.say(f"{output.count(number, 'entry', 'entries')} {done}")
    if (more := malformed - _MOST_NAMED) > 0:
        output.complain(f"and {more} more, for reasons of that kind")
    if first is not None:
        raise first
    return number


def entry_facts(layout: Layout, found: FoundEntry, *, envelope: bool = True) -> dict[str, Any]:
    """The facts of an entry, under the names of `postqueue -j` where it has them."""
    entry = found.entry
    pushed, size, owner = _arrived_at(entry.key), size_of(entry.key), owner_of(found.name)
    facts: dict[str, Any] = {
        "queue_name": found.folder,
        "queue_id": entry.key,
        "entry_name": found.name,
        "queue": layout.path,
        "arrival_time": None if pushed is None else int(pushed),
        "message_size": size if size is not None else _size(found.path),
        "priority": priority_of(entry.key),
        "attempts": entry.attempts,
        "failures": entry.failures,
        "crashes": entry.crashes,
        "handoffs": entry.handoffs,
        "due_time": entry.due,
        "owner": None if owner is None else {"lease": owner.lease, "pid": owner.pid},
    }
    if envelope:
        facts |= _envelope(found.path)
    if found.folder in BURIED:
        facts |= {"reason": str(reasons.read_reason(layout, entry).get("reason", ""))}
    return facts


def show_line(facts: dict[str, Any]) -> None:
    """Print one entry in one line; columns are not aligned, since a listing may be endless."""
    arrival, size = facts["arrival_time"], facts["message_size"]
    age = output.duration(time.time() - arrival) if arrival is not None else "?"
    people = f"<{facts.get('sender') or ''}> → {', '.join(r['address'] for r in facts.get('recipients', [])) or '?'}"
    tries = f"try {facts['attempts']}" + (f", {facts['crashes']} crashed" if facts["crashes"] else "")
    note = ""
    if facts["due_time"] is not None:
        seconds = facts["due_time"] - time.time()
        note = f"due {'in' if seconds > 0 else 'since'} {output.duration(abs(seconds))}"
    elif facts["owner"]:
        note = f"held by {facts['owner']['lease']}.{facts['owner']['pid']}"
    elif facts.get("reason"):
        note = facts["reason"]
    words = [
        f"{facts['queue_name']:<8}",
        f"{age:>7}",
        f"{size if size is not None else '?':>9}",
        f"{tries:<6}",
    ]
    if facts["priority"] != "normal":
        words.append(facts["priority"])
    key = EntryName.parse(facts["entry_name"]).unique_key  # as a command takes it
    output.line(output.clean("  ".join([*words, key, people, note]).rstrip()))


def show_message(found: FoundEntry, *, whole: bool) -> None:
    """Print the message as it was pushed, or the raw file: bytes into a pipe, escaped on a terminal.

    What no worker would read, such as a sparse file, is printed as a raw file only.
    """
    try:
        data = entries.read_found(found) if whole else entries.read_found(found, _SHOWN_BYTES)
    except EntryTooLarge as fault:
        raise MaildeferError(f"{fault}: `maildefer queue show QUEUE KEY --file` prints all of it") from fault
    shown = data if whole else data[split(data)[1] :]
    if os.isatty(1):
        output.line(output.clean_lines(shown.decode("utf-8", "backslashreplace").replace("\r\n", "\n")))
    else:
        output.raw(shown)


def _fits(layout: Layout, found: FoundEntry, wanted: EntrySelection) -> bool:
    if wanted.reason is None and wanted.older_than_seconds is None:
        return True
    record = reasons.read_reason(layout, found.entry) if found.folder in BURIED else {}
    said = f"{record.get('reason', '')}\n{record.get('error', '')}"  # the log of some has the latter
    if wanted.reason is not None and wanted.reason.lower() not in said.lower():
        return False
    if wanted.older_than_seconds is not None:
        when = record.get("time")
        since = float(when) if isinstance(when, int | float) else _arrived_at(found.entry.key)
        return since is not None and time.time() - since > wanted.older_than_seconds
    return True


def _envelope(path: str) -> dict[str, Any]:
    try:
        top = durable.read_small(path, limit_bytes=TOP_LIMIT_BYTES)
    except OSError:  # moved meanwhile, or no plain file
        return {}
    envelope = split(top)[0]
    if envelope is None:
        return {}
    return {"sender": envelope.sender, "recipients": [{"address": envelope.recipient}]}


def _size(path: str) -> int | None:
    try:
        return os.lstat(path).st_size
    except OSError:  # moved meanwhile
        return None


def _seconds(age: str | None) -> float | None:
    if age is None:
        return None
    try:
        return float(seconds_in(age))
    except ValueError as fault:
        raise MaildeferError(
            f"{age!r} is no age: give a number and a unit, such as 90s, 15m, 6h or 2d"
        ) from fault
