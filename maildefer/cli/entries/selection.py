"""Which entries a command is for: by their keys, all, or those that fit a filter."""

from __future__ import annotations

import heapq
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Annotated, Final

import typer

from maildefer.cli import output
from maildefer.cli.entries.listing import BURIED, arrived_at, envelope_of, reason_line
from maildefer.cli.entries.patterns import address_pattern, has_text
from maildefer.cli.parameters import with_options
from maildefer.errors import EntryNotFound, MaildeferError
from maildefer.maildir import reasons
from maildefer.maildir.layout import Layout
from maildefer.maildir.operator import entries
from maildefer.maildir.operator.entries import FOLDERS, Folder, FoundEntry
from maildefer.maildir.operator.inspection import look_into_queue
from maildefer.maildir.operator.schedule import is_held
from maildefer.units import seconds_in

_MOST_OFFERED: Final = 100  # to a shell that completes a key


def _keys_of(context: typer.Context, incomplete: str) -> list[str]:
    """The keys that begin so, for the shell that completes them."""
    try:
        return keys_in([context.params["queue"]], incomplete)
    except (KeyError, TypeError):  # no queue is named yet
        return []


def keys_in(queues: Iterable[str], incomplete: str) -> list[str]:
    """Return keys in these queues that begin so, for the shell that completes them."""
    try:
        layouts = [look_into_queue(queue) for queue in queues]
        found = (
            one for layout in layouts for folder in FOLDERS for one in entries.list_entries(layout, folder)
        )
        return list(
            islice((one.entry.unique_key for one in found if one.name.startswith(incomplete)), _MOST_OFFERED)
        )
    except (MaildeferError, OSError):  # it can't be read
        return []


QueuePath = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's directory.")]
Keys = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY]...", help="Entries by their keys, or how these begin.", autocompletion=_keys_of
    ),
]
OneKey = Annotated[
    str,
    typer.Argument(metavar="KEY", help="The entry's key, or how it alone begins.", autocompletion=_keys_of),
]
All = Annotated[bool, typer.Option("--all", "-a", help="All that are there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON Lines.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Limit = Annotated[
    int | None, typer.Option("--limit", "-n", metavar="N", min=1, help="Only so many, the oldest.")
]

_LEAST_TO_DELETE: Final = 10  # characters of a key that is cut short: the seconds of its push
_READ_BYTES: Final = 64 << 20  # in which `--text` looks


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryFilter:
    """The options by which entries are chosen without their keys; `with_filter` gives them to a command, as `where`."""

    sender: Annotated[
        str | None,
        typer.Option("--sender", metavar="ADDRESS", help="Those from it, or from @domain; * fits any text."),
    ] = None
    recipient: Annotated[
        str | None,
        typer.Option("--recipient", metavar="ADDRESS", help="Those for it, or for @domain; * fits any text."),
    ] = None
    text: Annotated[
        str | None, typer.Option("--text", metavar="TEXT", help="Those in whose message this stands.")
    ] = None
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Dead ones whose reason contains this.")
    ] = None
    reason_is: Annotated[
        str | None,
        typer.Option(
            "--reason-is",
            metavar="LINE",
            help="Dead ones whose reason is this, as the page and `top` show it.",
        ),
    ] = None
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="Those older than 90s, 15m, 6h, 2d.")
    ] = None
    newer_than: Annotated[
        str | None, typer.Option("--newer-than", metavar="AGE", help="Those not as old as that.")
    ] = None

    @property
    def is_empty(self) -> bool:
        return all(getattr(self, name) is None for name in self.__slots__)


with_filter = with_options(EntryFilter, "where")


@dataclass(frozen=True, kw_only=True)
class EntrySelection:
    """Which entries a command is for. Raises BadParameter for what is empty, as of an unset variable."""

    keys: list[str] = field(default_factory=list)
    all: bool = False
    where: EntryFilter = field(default_factory=EntryFilter)
    deletes: bool = False
    is_held: bool | None = None
    """True: only those on hold; False: those only where a key names them."""

    def __post_init__(self) -> None:
        if "" in self.keys:
            raise typer.BadParameter("A key is empty.")
        for name in ("sender", "recipient", "text", "reason", "reason_is"):
            value = getattr(self.where, name)
            if value is not None and not value.strip():
                hint = "; the null sender is <>" if name == "sender" else ""
                raise typer.BadParameter(
                    f"--{name.replace('_', '-')}: it is empty; all are chosen by --all{hint}."
                )
        _ = self._ages  # what is no age is told before anything is listed

    @property
    def is_empty(self) -> bool:
        return not self.keys and not self.all and self.where.is_empty

    @property
    def has_reason(self) -> bool:
        return self.where.reason is not None or self.where.reason_is is not None

    def fits(self, layout: Layout, found: FoundEntry) -> bool:
        """Whether the filter has nothing against the entry. What costs nothing is looked at first."""
        if (
            self.is_held is not None
            and is_held(found.entry) != self.is_held
            and (self.is_held or not self.keys)
        ):
            return False
        return self.where.is_empty or (
            self._fits_record(layout, found) and self._fits_envelope(found) and self._fits_text(found)
        )

    def _fits_record(self, layout: Layout, found: FoundEntry) -> bool:
        """By what its name and its reason say. The age of a dead letter counts from its burial."""
        older, newer = self._ages
        if self.where.reason_is is not None and (
            found.folder not in BURIED or reason_line(layout, found.entry) != self.where.reason_is
        ):
            return False
        if self.where.reason is None and older is None and newer is None:
            return True
        record = reasons.read_reason(layout, found.entry) if found.folder in BURIED else {}
        said = f"{record.get('reason', '')}\n{record.get('error', '')}"  # the log of some has the latter
        if self.where.reason is not None and self.where.reason.lower() not in said.lower():
            return False
        if older is None and newer is None:
            return True
        when = record.get("time")
        since = float(when) if isinstance(when, int | float) else arrived_at(found.entry.key)
        if since is None:
            return False
        age = time.time() - since
        return (older is None or age > older) and (newer is None or age <= newer)

    def _fits_envelope(self, found: FoundEntry) -> bool:
        sender, recipient = self._patterns
        if sender is None and recipient is None:
            return True
        envelope = envelope_of(found.path)
        return envelope is not None and all(
            pattern is None or pattern.fullmatch(address) is not None
            for pattern, address in ((sender, envelope.sender), (recipient, envelope.recipient))
        )

    def _fits_text(self, found: FoundEntry) -> bool:
        if self.where.text is None:
            return True
        try:
            return has_text(entries.read_found(found, _READ_BYTES), self.where.text)
        except EntryNotFound:  # moved meanwhile
            return False
        except MaildeferError as fault:  # too large, or no plain file
            output.complain(f"{fault}: passed over by --text")
            return False

    @cached_property
    def _ages(self) -> tuple[float | None, float | None]:
        return seconds_of(self.where.older_than), seconds_of(self.where.newer_than)

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str] | None, re.Pattern[str] | None]:
        sender, recipient = self.where.sender, self.where.recipient
        return address_pattern(sender) if sender else None, address_pattern(recipient) if recipient else None


def select_entries(
    layout: Layout, folders: tuple[Folder, ...], wanted: EntrySelection
) -> Iterator[FoundEntry]:
    """The chosen entries, lazily. Keys of no entry are named at the end.

    Raises OSError, EntryNotFound; before the first, EntryAmbiguous for a key that begins several, and BadParameter for
    one of which hardly anything is given, where entries are deleted, and for a reason where none can have one.
    """
    if wanted.has_reason and not set(BURIED).intersection(folders):
        raise typer.BadParameter(
            "Only dead letters have a reason, and this command chooses none of them here."
        )
    if not wanted.keys:
        for folder in folders:
            yield from (found for found in entries.list_entries(layout, folder) if wanted.fits(layout, found))
        return
    named = entries.find_named(layout, wanted.keys, folders)
    if wanted.deletes:
        _refuse_short_keys(named)
    for matches in named.values():
        yield from (found for found in matches if wanted.fits(layout, found))
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


def find_one(layout: Layout, key: str, folders: tuple[Folder, ...] = FOLDERS) -> FoundEntry:
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
    pushed = arrived_at(found.entry.key)
    return pushed is None, pushed or 0.0, found.name


def seconds_of(age: str | None) -> float | None:
    """The seconds of an age such as 90s, 15m, 6h or 2d. Raises BadParameter."""
    if age is None:
        return None
    try:
        return float(seconds_in(age))
    except ValueError as fault:
        why = f"{age!r} is no age: give a number and a unit, such as 90s, 15m, 6h or 2d."
        raise typer.BadParameter(why) from fault
