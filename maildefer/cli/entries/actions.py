"""Doing something to each entry that is chosen, and telling what became of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import typer

from maildefer.cli import output
from maildefer.cli.entries.selection import EntrySelection, by_age, select_entries
from maildefer.cli.progress import counted
from maildefer.errors import EntryMalformed, EntryNotFound, UniqueKeyHeld
from maildefer.host import identity  # noqa: F401  # which names the journal's files by this host's label
from maildefer.maildir.layout import Layout
from maildefer.maildir.operator.entries import Folder, FoundEntry

_MOST_NAMED: Final = 20  # of those that something can't be done to


def apply(
    layout: Layout,
    folders: tuple[Folder, ...],
    wanted: EntrySelection,
    action: Callable[[FoundEntry], object],
    done: str,
    *,
    lists_first: bool = False,
    shows_key: bool = False,
) -> int:
    """Call a function for each chosen entry and print its key; returns how many.

    With `shows_key`, the function returns a key, which is printed behind it.
    With `lists_first`, the oldest is first, and none is listed after the first was moved, for a function that moves
    them within these folders, or pushes them anew.

    An entry that another process moved first is named and passed over. EntryMalformed or UniqueKeyHeld is raised after
    the others are done, for the first that was refused.
    """
    if wanted.is_empty:
        raise typer.BadParameter("Name the entries by their keys, or choose them by an option such as --all.")
    number, malformed, first = 0, 0, None
    listed = select_entries(layout, folders, wanted)
    for found in counted(by_age(listed, None) if lists_first else listed, done):
        try:
            result = action(found)
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
        output.line(output.clean(f"{found.key}  {result}" if shows_key else found.key))
        number += 1
    output.say(f"{output.count(number, 'entry', 'entries')} {done}")
    if (more := malformed - _MOST_NAMED) > 0:
        output.complain(f"and {more} more, for reasons of that kind")
    if first is not None:
        raise first
    return number
