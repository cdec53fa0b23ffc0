"""Reading the files of a queue's journal, which are untrusted: every user that may push may write to them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from maildefer.maildir.journal_file import unquoted
from maildefer.maildir.layout import Layout
from maildefer.maildir.rights.confined import confined_to
from maildefer.untrusted import UntrustedRecord, open_plain

_NAME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(\.[a-zA-Z0-9-]+){2,4}\.(pushed|settled)")
_PARTS: Final = re.compile(rb"\0+|[^\0]+").findall
_LONGEST_BYTES: Final = 1 << 14  # of a record: its names may be quoted, and its path be long
_MOST_PASSED_BYTES: Final = 1 << 20  # of what is no record; beyond, no journal's file
_MOST_ROOM_BYTES: Final = 1 << 26  # at one place; a power cut may take half a minute's records


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """One record: when, by its writer's clock, and what became of a key."""

    when: float
    verb: str
    key: str
    detail: str | None
    told: str = ""  # the detail as it stands there

    @property
    def facts(self) -> dict[str, str]:
        """The facts of a note."""
        parts = (one.partition("=") for one in self.told.split(","))
        return {name: unquoted(value) for name, equals, value in parts if equals}


def list_files(queue: Layout) -> list[str]:
    """The names of the journal's files, by day; other names are passed over. Raises OSError."""
    return sorted(name for name in confined_to(queue.path).listdir(queue.journal) if _NAME.fullmatch(name))


def read_lines(path: str, at: int = 0) -> Iterator[tuple[bytes, int]]:
    """Yield the whole lines from an offset on, each with the offset of the next; an unfinished last line is left out.

    NUL bytes are room that a mapped file has ahead, or what a power cut has taken. Where they were read just before a
    process wrote there, and what follows them after that, the rest is left for the next reading.
    Raises OSError, and UntrustedRecord for a file that is none of a journal.
    """
    passed, is_journal, end, room_at = 0, at > 0, at, -1
    with open(open_plain(path)[0], "rb") as file:
        file.seek(at)
        while line := file.readline(_LONGEST_BYTES):
            begin, end = end, end + len(line)
            for part in _PARTS(line) if b"\0" in line else (line,):
                begin += len(part)
                if part[0] == 0:
                    room_at = begin - len(part) if room_at < 0 else room_at
                    if begin - room_at > _MOST_ROOM_BYTES:
                        raise UntrustedRecord("holds what are no records")
                    continue
                if room_at >= 0 and os.pread(file.fileno(), 1, room_at) != b"\0":
                    return
                room_at = -1
                if part.endswith((b"\n", b" .")):
                    is_journal = True
                    yield part.rstrip(b"\n"), begin
                elif len(line) == _LONGEST_BYTES:
                    passed += len(part)
                    if passed > _MOST_PASSED_BYTES:
                        raise UntrustedRecord("holds what are no records")
    if passed and not is_journal:
        raise UntrustedRecord("holds no record")


def kept_since(queue: Layout) -> float | None:
    """The time since which the queue keeps its journal, by the notes of its beginnings; None where no note is left.

    Raises OSError.
    """
    found = []
    for name in list_files(queue):
        if name.endswith(".pushed"):
            # Deleted meanwhile, or reported when the whole file is read.
            with suppress(OSError, UntrustedRecord):
                lines = read_lines(f"{queue.journal}/{name}")
                first = next((record for line, _ in lines if (record := parse_record(line))), None)
                if first is not None and first.verb == "begin":
                    found.append(beginning_of(first))
    return min(found, default=None)


def beginning_of(begin: JournalRecord) -> float:
    """The time since which a journal is kept, by one note of a beginning: the note's own time, or the first note's."""
    try:
        return min(begin.when, float(begin.detail or "nan"))
    except ValueError:
        return begin.when


def parse_record(line: bytes) -> JournalRecord | None:
    """Parse the record of a line; None for an empty line. Raises UntrustedRecord for a torn one."""
    text = line.decode("ascii", "replace").rstrip("\n")
    if not text:
        return None
    fields = text.split(" ")
    try:
        when, verb, key = float(fields[0]), fields[1], unquoted(fields[2])
        detail = unquoted(fields[3]) if len(fields) == 5 else None
    except (ValueError, IndexError) as fault:
        raise UntrustedRecord("is torn") from fault
    if fields[-1] != "." or not 4 <= len(fields) <= 5 or not math.isfinite(when) or "\0" in f"{key}{detail}":
        raise UntrustedRecord("is torn")
    return JournalRecord(when, verb, key, detail, fields[3])
