"""What is closed until a time, on all hosts, since it was found down: a destination of mail.

    closed/HASH,f=FAILURES,d=MILLISECONDS,u=RANDOM      closed until that time of the mount
    closed/HASH,f=FAILURES,t,d=MILLISECONDS,u=RANDOM    the same, while one trial is made

In the file are the name, since when it is down, and what was said last. Where it is due, whoever renames the name that
was seen makes the one trial (I3, I4). A trial that fails replaces the file by one that is due later, one that succeeds
removes it; one that is never heard of again is over when its file is due. Which is open costs a listing every two
seconds; whatever crashes or is lost costs time only, since nothing here says what becomes of a message.
"""

from __future__ import annotations

import errno
import json
import random
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from maildefer.backoff import backoff_seconds
from maildefer.digest import blake2b
from maildefer.errors import raise_named
from maildefer.maildir import doubt, durable
from maildefer.maildir.claims import QUICK_SECONDS
from maildefer.maildir.layout import Layout
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.rights.modes import make_in
from maildefer.maildir.system import SYSTEM, System
from maildefer.untrusted import UntrustedRecord, read_record

FIRST_SECONDS: Final = 60.0
LONGEST_SECONDS: Final = 3600.0
TRIAL_SECONDS: Final = 600.0
LAST_FAILURES: Final = 5
"""After so many trials in vain, what has waited for its lifetime is given up."""

_NAME: Final = re.compile(r"([0-9a-f]{20}),f=([0-9]{1,6})(,t)?,d=([0-9]{1,15}),u=[0-9a-f]{16}\Z")
LOOK_SECONDS: Final = 2.0
_FORGOTTEN_SECONDS: Final = 31 * 86400.0
_LONGEST_WORDS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """One that is closed, by the name of its file."""

    file: str
    failures: int
    is_tried: bool
    due_seconds: float

    @property
    def hash(self) -> str:
        return self.file[:20]

    @property
    def pause_seconds(self) -> float:
        """How long it is closed if the next trial fails."""
        return pause_after(self.failures + 1)

    def is_left(self, now: float) -> bool:
        """Whether no trial was made since one was due, long ago: nothing is sent there any more."""
        return now - self.due_seconds > LONGEST_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosureRecord:
    """What is told of one that is closed."""

    closure: Closure
    name: str
    since_seconds: float
    words: str

    @property
    def is_server(self) -> bool:
        """Whether it is a server, HOST:PORT or a socket file, as the settings name it; else a domain."""
        return self.name.startswith("/") or (":" in self.name and not self.name.endswith("]"))


class Closures:
    """Those of one queue, as one process sees them; for one thread. `now` is the mount's time, in seconds."""

    def __init__(
        self,
        layout: Layout,
        *,
        now: Callable[[], float],
        draw: Callable[[float, float], float] = random.uniform,
        system: System = SYSTEM,
    ) -> None:
        self._layout = layout
        self._path = f"{layout.control}/closed"
        self._now = now
        self._draw = draw
        self._system = system
        self._seen: dict[str, Closure] = {}  # by hash
        self._look_at = 0.0
        self._trials: dict[str, str] = {}  # by hash: the file of a trial of this process

    def seconds_closed(self, name: str) -> float | None:
        """For how long it is closed; 0.0: a trial may begin; None: it is open."""
        now = self._system.boottime()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            with suppress(OSError):  # what was seen last counts
                self._list(touch=False)
        if not self._seen or (closure := self._seen.get(hash_of(name))) is None:
            return None
        left = max(0.0, closure.due_seconds - self._now())
        return min(left, closure.pause_seconds) if closure.is_tried else left

    def failures(self, name: str) -> int:
        """How many trials have failed in a row, as far as was seen."""
        closure = self._seen.get(hash_of(name))
        return closure.failures if closure is not None else 0

    def begin_trial(self, name: str) -> bool:
        """Begin the one trial of one that is due; False where another process was first."""
        closure = self._seen.get(hash_of(name))
        if closure is None or closure.due_seconds > self._now():
            return False
        began = self._renamed(closure, is_tried=True, seconds=TRIAL_SECONDS)
        if began:
            self._trials[closure.hash] = self._seen[closure.hash].file
        return began

    def give_up_trial(self, name: str) -> None:
        """Let others make the trial, for which nothing was done."""
        closure = self._seen.get(hash_of(name))
        if closure is not None and self._trials.pop(closure.hash, None) == closure.file:
            self._renamed(closure, is_tried=False, seconds=0.0)

    def close(self, name: str, words: str) -> tuple[float, bool]:
        """Close it for longer than last time; returns for how long, and whether this process has closed it.

        What others have closed meanwhile stays as it is. Raises StorageFault's kinds.
        """
        known = hash_of(name)
        try:
            before = self._list()
            closure, now = self._seen.get(known), self._now()
            own = self._trials.pop(known, None)
            if closure is not None and closure.file != own and closure.due_seconds > now:
                return closure.due_seconds - now, False
            failures = 1 if closure is None else closure.failures + 1
            seconds = pause_after(failures) * self._draw(0.9, 1.1)
            since = now if closure is None else self.record_of(closure).since_seconds
            record = {"name": name, "since": int(since), "words": words[:_LONGEST_WORDS]}
            system, token = confined_to(self._layout.path, self._system), self._system.token(8)
            make_in(self._layout.path, ".maildefer/closed", system)
            file = f"{known},f={failures},d={int((now + seconds) * 1000)},u={token}"
            path, draft = f"{self._path}/{file}", f"{self._layout.tmp}/.closed-{token}"
            durable.replace_file(path, json.dumps(record).encode(), draft, system=system)
            forgotten = now - _FORGOTTEN_SECONDS
            for one in before:
                if one.hash == known or one.due_seconds < forgotten:
                    durable.discard(f"{self._path}/{one.file}", system)
        except OSError as fault:
            raise_named(self._path, fault)
        self._see(_closure_of(file))
        return seconds, True

    def open(self, name: str) -> bool:
        """Open it; False where it was not closed, as far as was seen. Raises StorageFault's kinds."""
        known = hash_of(name)
        self._trials.pop(known, None)
        if self._seen.pop(known, None) is None:
            return False
        try:
            system = confined_to(self._layout.path, self._system)
            for one in self._list():
                if one.hash == known:
                    durable.discard(f"{self._path}/{one.file}", system)
            self._seen.pop(known, None)
        except OSError as fault:
            raise_named(self._path, fault)
        return True

    def reopen(self, name: str) -> bool:
        """Let a trial begin now; False where it is not closed. Raises StorageFault's kinds."""
        if self.record(name) is None:
            return False
        return self._renamed(self._seen[hash_of(name)], is_tried=False, seconds=0.0)

    def closed(self, *, touch: bool = True) -> list[Closure]:
        """All that are closed, those first that have failed most often; seen freshly with `touch`, which writes.

        Raises StorageFault's kinds.
        """
        try:
            self._list(touch=touch)
        except OSError as fault:
            raise_named(self._path, fault)
        return sorted(self._seen.values(), key=lambda one: -one.failures)

    def records(self, *, touch: bool = True) -> list[ClosureRecord]:
        """What is told of all that are closed, as `closed` has it. Raises StorageFault's kinds."""
        return [self.record_of(one) for one in self.closed(touch=touch)]

    def record(self, name: str) -> ClosureRecord | None:
        """What is told of that one; None where it is open. Raises StorageFault's kinds."""
        return next((self.record_of(one) for one in self.closed() if one.hash == hash_of(name)), None)

    def _renamed(self, closure: Closure, *, is_tried: bool, seconds: float) -> bool:
        system, began = self._system, self._system.boottime()
        trial = ",t" if is_tried else ""
        due = int((self._now() + seconds) * 1000)
        file = f"{closure.hash},f={closure.failures}{trial},d={due},u={system.token(8)}"
        try:
            system.rename(f"{self._path}/{closure.file}", f"{self._path}/{file}")
        except OSError as fault:
            self._look_at = 0.0
            is_lost = fault.errno == errno.ENOENT and system.boottime() - began < QUICK_SECONDS
            with suppress(OSError):
                if is_lost or not doubt.is_listed(self._path, file, system):
                    return False
        self._see(_closure_of(file))
        return True

    def _list(self, *, touch: bool = True) -> list[Closure]:
        """List all, freshly with `touch`. Raises OSError."""
        try:
            names = doubt.fresh_listing(self._path, self._system, touch=touch)
        except FileNotFoundError:  # nothing was ever down
            names = []
        found = [_closure_of(name) for name in names if _NAME.match(name)]
        self._seen = {}
        latest = self._now() + 2 * LONGEST_SECONDS  # beyond it, the clock was set back since, or it is forged
        for one in sorted(found, key=lambda one: one.due_seconds):
            self._see(one if one.due_seconds <= latest else replace(one, due_seconds=0.0))
        return found

    def _see(self, closure: Closure) -> None:
        self._seen[closure.hash] = closure

    def record_of(self, closure: Closure) -> ClosureRecord:
        """What is told of one."""
        found: dict[str, Any] = {}
        now = self._now()
        system = confined_to(self._layout.path, self._system)
        with suppress(OSError, UntrustedRecord):  # replaced since the listing, or damaged
            found = read_record(f"{self._path}/{closure.file}", files=system)
        since, name, words = found.get("since"), found.get("name"), found.get("words")
        return ClosureRecord(
            closure=closure,
            name=name if isinstance(name, str) else "?",
            since_seconds=since if isinstance(since, int) and 0 <= since <= now else now,
            words=words if isinstance(words, str) else "",
        )


def hash_of(name: str) -> str:
    return blake2b(name.encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()


def pause_after(failures: int) -> float:
    return backoff_seconds(failures - 1, first_seconds=FIRST_SECONDS, longest_seconds=LONGEST_SECONDS)


def _closure_of(file: str) -> Closure:
    found = _NAME.match(file)
    assert found is not None
    return Closure(
        file=file, failures=int(found[2]), is_tried=found[3] is not None, due_seconds=int(found[4]) / 1000
    )
