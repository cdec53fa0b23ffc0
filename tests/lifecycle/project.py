"""A project in a directory of its own: the application, its queues, what is in them, what its handlers did."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from maildefer.control.audit import Suspect, audit
from maildefer.control.requests import Verb, file_request, live_names
from maildefer.maildir import journal as journals
from maildefer.maildir import reasons, scan
from maildefer.maildir.layout import Format, Layout, create_queue
from maildefer.maildir.markers.finder import Marked
from maildefer.maildir.markers.markers import Markers
from maildefer.maildir.names import EntryName
from maildefer.maildir.push import Compose, Planned, Pusher
from maildefer.message.envelope import block

APPLICATION = Path(__file__).parent / "application"
# By which the handlers of all applications tell what they did, and what those of several can do.
SHARED = ("journal.py", "deeds.py")
BEAT_SECONDS, TTL_SECONDS = 0.6, 6.0
PATIENCE_SECONDS = 60.0  # for a small machine that has much else to do
BODY = b"Subject: a test\n\nIt goes in, and it comes out.\n"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Note:
    """One line of the journal."""

    word: str  # start, end
    key: str
    attempt: int
    pid: int
    time: float  # monotonic


class Project:
    """A copy of an application, with its queues made for a small TTL."""

    def __init__(
        self,
        path: Path,
        application: Path = APPLICATION,
        *,
        queues: tuple[str, ...] = ("run/queue", "run/later"),
        beat_seconds: float = BEAT_SECONDS,
        ttl_seconds: float = TTL_SECONDS,
        journal: bool = False,
    ) -> None:
        self.path = path
        shutil.copytree(application, path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        for name in SHARED:
            shutil.copy(APPLICATION / "workers" / name, path / "workers")
        agreed = Format(beat_seconds=beat_seconds, ttl_seconds=ttl_seconds)
        self.layouts = {name: create_queue(str(path / name), format=agreed) for name in queues}
        if journal:
            for layout in self.layouts.values():
                journals.begin_journal(layout)
        self.renew()

    def renew(self) -> None:
        """Push as a program does that was started just now."""
        self._pushers = {name: Pusher(layout, host="test") for name, layout in self.layouts.items()}

    @property
    def queue(self) -> Layout:
        """The first."""
        return next(iter(self.layouts.values()))

    def push(
        self,
        what: str = "quick",
        count: int = 1,
        queue: str | None = None,
        *,
        after: float | None = None,
        priority: str = "normal",
    ) -> list[str]:
        """Push messages to `WHAT@test`, for now or for so many seconds later; returns their keys."""
        pusher = self._pushers[queue or next(iter(self._pushers))]
        planned = Planned(compose=_composed(what), due=pusher.due(after=after), priority=priority)
        return [key for key in pusher.push_all([planned] * count) if isinstance(key, str)]

    def push_unique(self, what: str, unique: str) -> Marked:
        """Push a message to `WHAT@test` into the first queue, unless one of that unique key has not ended."""
        return Markers(self.queue, host="test").push(unique, Planned(compose=_composed(what)))

    def go(self) -> None:
        """Let the handlers of `wait@test` come to their ends."""
        (self.path / "go").touch()

    def edit(self, file: str, old: str, new: str) -> None:
        """Change the application's source."""
        path = self.path / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r}"
        path.write_text(text.replace(old, new))
        for compiled in path.parent.glob("__pycache__/*"):  # two edits within a second have one mtime
            compiled.unlink()

    def notes(self, word: str | None = None, key: str | None = None) -> list[Note]:
        """What the handlers wrote, oldest first."""
        try:
            text = (self.path / "journal").read_text()
        except FileNotFoundError:
            return []
        whole = text.rpartition("\n")[0]  # the last line may be half there yet
        lines = [line.split() for line in whole.splitlines()]
        notes = [Note(w, k, int(attempt), int(pid), float(at)) for w, k, attempt, pid, at, *_ in lines]
        return [note for note in notes if word in (None, note.word) and key in (None, note.key)]

    def starts(self) -> Counter[str]:
        """How often each key was handled."""
        return Counter(note.key for note in self.notes("start"))

    def names(self, folder: str = "new", queue: str | None = None) -> list[EntryName]:
        """What lies in one folder of a queue: new, cur, later_new, dead_new; dead letters with their counters."""
        layout = self.layouts[queue] if queue else self.queue
        found = [EntryName.parse(name) for name in scan.entries(getattr(layout, folder))]
        return [_counted(layout, entry) for entry in found] if folder == "dead_new" else found

    def is_empty(self) -> bool:
        """No entry waits, is claimed, or is deferred in any queue."""
        return not any(
            next(scan.entries(path), None)
            for layout in self.layouts.values()
            # In the order in which entries move, once round, so that none moves past the look.
            for path in (layout.later_new, layout.later_cur, layout.new, layout.cur, layout.later_new)
        )

    def lost(self) -> list[Suspect]:
        """What the audit can't prove of what was accepted, in the queues that keep a journal."""
        kept = [layout.path for layout in self.layouts.values() if os.path.isdir(layout.journal)]
        report = audit(kept, timeout_seconds=5) if kept else None
        return [each for each in report.suspects if each.verdict == "lost"] if report else []

    def ask_all(self, verb: Verb) -> list[str]:
        """Ask all pools that serve the queue, through the mount; returns the requests."""
        return [file_request(self.queue.path, name, verb) for name in live_names(self.queue.path)]

    def leases(self) -> list[str]:
        return [name for name in os.listdir(self.queue.leases) if not name.startswith(".")]


def _composed(what: str) -> Compose:
    return lambda stem: [
        block(stem, "ann@example.org", f"{what}@test", host="test", when=time.time(), via="push"),
        BODY,
    ]


def eventually(condition: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """Wait until the condition gives something true, and return that; AssertionError when it does not in time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.005)
    return found


def _counted(layout: Layout, dead: EntryName) -> EntryName:
    record: Any = reasons.read_reason(layout, dead)
    return replace(
        dead, **{name: record[name] for name in ("attempts", "failures", "crashes") if name in record}
    )
