"""Entries of a queue as the pages show them: a folder's, with the reasons of burials, and one of them, as text.

It touches the mount, and hangs with it: call it in a child with a time limit.
"""

from __future__ import annotations

import heapq
import shlex
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from maildefer.cli import output
from maildefer.cli.entries import listing
from maildefer.errors import EntryNotFound, EntryTooLarge
from maildefer.maildir import reasons
from maildefer.maildir.layout import Layout
from maildefer.maildir.operator import entries
from maildefer.maildir.operator.entries import Folder, FoundEntry
from maildefer.maildir.operator.inspection import look_into_queue
from maildefer.message.envelope import split

SECONDS: Final = 1.0  # for reading reasons
_MOST_NAMES: Final = 200_000
_MOST_READ: Final = 5000  # reasons
_MOST_PARSED: Final = 10_000  # names
_MOST_SHOWN: Final = 100
_READ_BYTES: Final = 64 << 20
_SHOWN_BYTES: Final = 64 << 10
_MENDS: Final[dict[str, tuple[str, ...]]] = {
    "dead": ("dead requeue", "dead show", "dead delete"),
    "undeliverable": ("dead show",),
    "deferred": ("queue release", "queue hold"),
    "waiting": ("queue hold", "queue show"),
    "claimed": ("queue show",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryLine:
    """One entry in one line. All of it is untrusted."""

    key: str
    people: str
    age: str
    size: str
    tries: int
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderPage:
    """A folder's entries, `of` which so many were seen; reasons were counted for `read` of them."""

    lines: tuple[EntryLine, ...]
    reasons: tuple[tuple[str, int, str], ...]  # with the command that tries all of them again
    of: int
    read: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryPage:
    """One entry: what is known of it, the beginning of its message, and commands for it."""

    folder: str
    facts: tuple[tuple[str, str], ...]
    text: str
    left_out_bytes: int
    commands: tuple[str, ...]


def folder_page(queue: str, name: str, folder: Folder, reason: str | None) -> FolderPage:
    """The newest dead letters, of a reason if one is given, or the oldest entries of another folder. Raises OSError.

    `name` is how a command calls the queue.
    """
    layout = look_into_queue(queue)
    found = list(islice(entries.list_entries(layout, folder), _MOST_NAMES))
    if folder not in listing.BURIED:
        is_later = folder == "deferred" and len(found) <= _MOST_PARSED
        chosen = heapq.nsmallest(_MOST_SHOWN, found, key=_due if is_later else _name)
        return FolderPage(lines=_lines(layout, chosen), reasons=(), of=len(found), read=0)
    counted: Counter[str] = Counter()
    chosen, read, deadline = [], 0, time.monotonic() + SECONDS
    for one in heapq.nlargest(_MOST_READ, found, key=_name):
        if time.monotonic() > deadline:
            break
        read += 1
        text = listing.reason_line(layout, one.entry)
        counted[text] += 1
        if len(chosen) < _MOST_SHOWN and reason in (None, text):
            chosen.append(one)
    rows = [
        (text, number, shell_line("dead requeue", name, reason=text))
        for text, number in counted.most_common(_MOST_SHOWN)
    ]
    return FolderPage(lines=_lines(layout, chosen), reasons=tuple(rows), of=len(found), read=read)


def entry_page(queue: str, name: str, key: str) -> EntryPage:
    """One entry by its key. Raises EntryNotFound, EntryAmbiguous, StorageFault's kinds."""
    layout = look_into_queue(queue)
    matches = (
        entries.find_named(layout, [key])[key] or entries.find_named(layout, [key], ("undeliverable",))[key]
    )
    if not matches:
        raise EntryNotFound(key, layout.path)
    found = matches[0]
    facts = _facts(layout, found)
    if found.folder in listing.BURIED:
        facts |= reasons.read_reason(layout, found.entry)
    try:
        data = entries.read_found(found, _READ_BYTES)
        body = data[split(data)[1] :]
    except EntryTooLarge as fault:
        body = str(fault).encode()
    return EntryPage(
        folder=found.folder,
        facts=tuple((word, _text(word, value)) for word, value in facts.items() if value not in (None, "")),
        text=body[:_SHOWN_BYTES].decode("utf-8", "backslashreplace").replace("\r\n", "\n"),
        left_out_bytes=max(0, len(body) - _SHOWN_BYTES),
        commands=tuple(shell_line(verb, name, found.entry.unique_key) for verb in _MENDS[found.folder]),
    )


def shell_line(verb: str, *words: str, reason: str | None = None) -> str:
    """A command of maildefer for a shell, which takes its words as they are, whatever is in them."""
    options = [] if reason is None else [f"--reason-is={reason}"]
    ends_options = ["--"] if any(word.startswith("-") for word in words) else []
    return " ".join(["maildefer", verb, *map(_word, [*options, *ends_options, *words])])


def _word(text: str) -> str:
    if text.isprintable():
        return shlex.quote(text)
    escaped = "".join(
        c
        if c.isprintable() and c not in "\\'"
        else "".join(f"\\x{b:02x}" for b in c.encode(errors="surrogateescape"))
        for c in text
    )
    return f"$'{escaped}'"  # bash(1), zsh(1), ksh(1)


def _name(found: FoundEntry) -> str:
    """What orders many entries cheaply: names of maildefer begin with the time of the push, in as many digits."""
    return found.name


def _due(found: FoundEntry) -> tuple[float, str]:
    return found.entry.due or 0.0, found.name


def _lines(layout: Layout, found: Iterable[FoundEntry]) -> tuple[EntryLine, ...]:
    return tuple(_line(one, listing.entry_facts(layout, one)) for one in found)


def _line(found: FoundEntry, facts: dict[str, Any]) -> EntryLine:
    arrival, size = facts["arrival_time"], facts["message_size"]
    return EntryLine(
        key=found.entry.unique_key,
        people=listing.people_of(facts),
        age="?" if arrival is None else output.duration(time.time() - arrival),
        size="?" if size is None else output.size(size),
        tries=facts["attempts"],
        note=listing.note_of(facts),
    )


def _facts(layout: Layout, found: FoundEntry) -> dict[str, object]:
    facts = listing.entry_facts(layout, found)
    line = _line(found, facts)
    known: dict[str, object] = {"from and to": line.people, "age": line.age, "size": line.size}
    return known | {"attempts": line.tries, "note": line.note, "file": found.path}


def _text(word: str, value: object) -> str:
    if word == "time" and isinstance(value, int | float) and 0 < value < 1 << 34:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(value))
    return str(value).strip()
