"""The loss audit: proves of every accepted key that it has an end, or lies in a folder, and names each that does not.

From outside, while pools run: an entry that is renamed while folders are listed may be missed, and an end may be
recorded after the journal was read. So a missing key is looked for again, in the folders and in the journal, until
`timeout_seconds` have passed, before it is named.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from shlex import quote
from typing import Literal

from maildefer.backoff import Backoff
from maildefer.control.journal_gaps import CLOCKS_SECONDS, EndedBoot, ended_boots, silent_writers
from maildefer.control.key_ledger import KeyLedger, OpenKey
from maildefer.errors import JournalMissing, MaildeferError
from maildefer.maildir.drafts.synced import recover
from maildefer.maildir.layout import Layout
from maildefer.maildir.operator import entries
from maildefer.maildir.operator.entries import FOLDERS, Folder
from maildefer.maildir.operator.inspection import look_into_queue
from maildefer.maildir.system import SYSTEM, System

Verdict = Literal["lost", "unproven"]
TIMEOUT_SECONDS = 60.0  # an NFS client may keep what was appended to itself for half of it
LEAST_LOOKS = 3
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 10.0
_MOST_NAMED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """An accepted key that has no end and is in no folder. It is `unproven` where `why` explains it, else `lost`."""

    key: str
    queue: str
    verdict: Verdict
    pushed_at: float
    last: str  # the last event that is on record
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """The result of an audit."""

    queues: list[str]  # as asked, and those to which entries were handed
    accepted: int
    ended: int
    found: dict[Folder, int]
    suspects: list[Suspect]
    since: float | None
    torn: int
    gaps: int
    looks: int
    seconds: float
    unrecorded: int  # ends without a beginning: their pushes left no record
    unrecorded_keys: list[str]  # the first of them
    unsynced: int  # pushes that left no record since their host stopped before it was on the disk
    unreadable: dict[str, str]  # files of journals, and why
    blind: list[str]  # users and pools that serve or push without records, and why, as far as known
    handed: int  # ends of what was handed over from queues that were not asked for, besides those of `ended`

    def count(self, verdict: Verdict) -> int:
        return sum(suspect.verdict == verdict for suspect in self.suspects)


def audit(
    paths: Sequence[str],
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    system: System = SYSTEM,
    tell: Callable[[str], None] = lambda _: None,
) -> AuditReport:
    """Audit these queues together. Raises JournalMissing, QueueMissing and its kin, MaildeferError, OSError.

    `tell` is called with what begins: the journals are read, the folders listed for the Nth time.
    Memory stays flat whatever is open; beyond some 100,000 open keys they lie in a temporary file.
    """
    queues = list({os.path.realpath(path): _kept(path) for path in paths}.values())
    for queue in queues:
        with suppress(OSError):  # where no pool has run since a power cut; its keeper tells what fails
            recover(queue, system=system)
    try:
        return _audited(queues, timeout_seconds, system, tell)
    except sqlite3.Error as fault:
        raise MaildeferError(
            f"the audit can't keep its open keys: {fault}: make room for temporary files, or name a folder with "
            "room in SQLITE_TMPDIR"
        ) from fault


def _audited(
    queues: Sequence[Layout], timeout_seconds: float, system: System, tell: Callable[[str], None]
) -> AuditReport:
    began = system.boottime()
    tell("journals")
    ledger, strangers = _ledger(queues)
    accepted, since, handed = ledger.accepted, ledger.since, ledger.handed
    found: Counter[str] = Counter()
    looks, is_seen = 0, False
    pauses = Backoff(first_seconds=_FIRST_PAUSE_SECONDS, longest_seconds=_LONGEST_PAUSE_SECONDS)
    _seek_beginnings(ledger, system)
    while not (is_seen and _is_done(ledger, system)):
        looks += 1
        tell(f"look {looks}")
        if not is_seen or not ledger.is_complete():
            _locate(ledger, again=looks > 1, system=system)
            is_seen = True
        if any(ledger.unrecorded(now=system.time())):
            ledger.read()  # what was pushed since the last reading
        if _is_done(ledger, system) or (looks >= LEAST_LOOKS and system.boottime() - began > timeout_seconds):
            break
        system.sleep(pauses.note_failure(system.boottime()))
        ledger.read()
        if _further(ledger, strangers):  # handed on since
            found.update(ledger.located())
            ledger, strangers = _ledger(ledger.queues, asked=ledger)
            _seek_beginnings(ledger, system)
            is_seen = False
    found.update(ledger.located())
    _seek_beginnings(ledger, system)  # of what was seen in a folder
    blind = silent_writers(ledger.queues, ledger.kept_since, timeout_seconds, system)
    boots = ended_boots(ledger.boots.values(), system)
    suspects = [_suspect(each, ledger, strangers, blind, boots) for each in ledger.missing()]
    beginless = sorted(ledger.unrecorded(now=system.time()))
    unrecorded = [key for key in beginless if not any(boot.may_lack_push(key) for boot in boots)]
    return AuditReport(
        queues=[queue.path for queue in ledger.queues],
        accepted=accepted,
        ended=accepted - found.total() - len(suspects),
        found={folder: found[folder] for folder in FOLDERS},
        suspects=suspects,
        since=since,
        torn=ledger.torn,
        gaps=len(ledger.gaps),
        looks=looks,
        seconds=system.boottime() - began,
        unrecorded=len(unrecorded),
        unrecorded_keys=unrecorded[:_MOST_NAMED],
        unsynced=len(beginless) - len(unrecorded),
        unreadable=ledger.unreadable,
        blind=[f"{path}: {text}" for path, texts in blind.items() for text in texts],
        handed=handed,
    )


def _seek_beginnings(ledger: KeyLedger, system: System) -> None:
    """Look for the pushes of ends that have none: a push may have been recorded since, or belong to a second end."""
    for seek in (ledger.read, ledger.forget_recorded):
        if any(ledger.unrecorded(now=system.time())):
            seek()


def _is_done(ledger: KeyLedger, system: System) -> bool:
    """Whether no key is missing, and no record of a push may still come: an NFS client may keep one for a time."""
    now = system.time()
    return ledger.is_complete() and not any(ledger.unrecorded(now=now, ended_since=now - TIMEOUT_SECONDS))


def _kept(path: str) -> Layout:
    layout = look_into_queue(path)
    if not os.path.isdir(layout.journal):
        raise JournalMissing(layout.path)
    if not os.access(layout.journal, os.R_OK | os.X_OK):
        raise MaildeferError(
            f"{layout.journal} can't be read by this user, so nothing can be proven: run this as the queue's owner; "
            f"where that can't read it, `maildefer audit --on {quote(layout.path)}`, as root, gives it to that user"
        )
    return layout


def _ledger(queues: Sequence[Layout], asked: KeyLedger | None = None) -> tuple[KeyLedger, dict[str, str]]:
    """Read the journals of these queues and of all to which their entries were handed; with those that have none.

    With `asked`, only what is missing there is asked for.
    """
    strangers: dict[str, str] = {}
    while True:
        ledger = KeyLedger(queues)
        ledger.read()
        if not (further := _further(ledger, strangers)):
            ledger.ask_only(asked.missing() if asked is not None else None)
            return ledger, strangers
        for path in sorted(further):
            try:
                queues = [*queues, _kept(path)]
            except (MaildeferError, OSError) as fault:
                strangers[path] = str(fault)


def _further(ledger: KeyLedger, strangers: Iterable[str]) -> set[str]:
    """The queues to which an open entry was handed, and whose journals have not been read yet."""
    known = {queue.path for queue in ledger.queues}.union(strangers)
    return {
        path for queue, moved_to in ledger.destinations() if (path := _leads_to(queue, moved_to)) not in known
    }


def _leads_to(queue: Layout, moved_to: str) -> str:
    """The queue of an entry that was moved from this queue to a path such as ../OTHER/new/KEY.

    Where this queue was named by a symbolic link, OTHER is beside the link, or else beside the queue.
    """
    beside = [os.path.join(path, moved_to) for path in (queue.path, os.path.realpath(queue.path))]
    found = [os.path.dirname(os.path.dirname(os.path.normpath(place))) for place in beside]
    return next(filter(os.path.isdir, found), found[0])


def _locate(ledger: KeyLedger, *, again: bool, system: System) -> None:
    """List the folders, and note where each key lies; it counts where it is seen first."""
    for number, queue in enumerate(ledger.queues):
        if again:  # a change of one's own is what surely drops an NFSv3 client's stale listing
            for path in (queue.new, queue.cur, queue.later_new, queue.dead_new):
                try:
                    system.utime(path)
                except OSError:  # not ours to touch: as fresh as it gets
                    pass
        for folder in FOLDERS:
            ledger.locate(
                number, folder, (found.entry for found in entries.list_entries(queue, folder, system=system))
            )


def _suspect(
    each: OpenKey,
    ledger: KeyLedger,
    strangers: dict[str, str],
    blind: dict[str, list[str]],
    boots: list[EndedBoot],
) -> Suspect:
    why = _explained(each, ledger, strangers, blind, boots)
    return Suspect(
        key=each.key,
        queue=each.queue.path,
        verdict="unproven" if why else "lost",
        pushed_at=each.pushed_at,
        last="accepted" if each.moved_to is None else f"moved to {each.moved_to}",
        why=why or "it has no end in the journal and is in no folder",
    )


def _explained(
    each: OpenKey,
    ledger: KeyLedger,
    strangers: dict[str, str],
    blind: dict[str, list[str]],
    boots: list[EndedBoot],
) -> str | None:
    """The reason, other than a loss, for which a record of the key's end may be missing; None without one."""
    if each.moved_at is not None and each.moved_to is not None:
        path = _leads_to(each.queue, each.moved_to)
        if reason := strangers.get(path):
            return f"handed to another queue, of which nothing is known: {reason}"
        kept_since = {ledger.queues[number].path: since for number, since in ledger.kept_since.items()}
        if path != each.queue.path and each.moved_at <= kept_since.get(path, 0.0) + CLOCKS_SECONDS:
            return "handed to another queue, whose journal began only then or later"
    if each.kept:
        return "whoever deleted, popped or withdrew it found it gone: perhaps by a lost reply"
    if silent := blind.get(each.queue.path):
        return f"its end may have left no record: {silent[0]}"
    for gap in ledger.gaps:
        if each.pushed_at <= gap.until + CLOCKS_SECONDS:
            return f"{gap.host} could not write its records for a time, or somebody removed them"
    return next((boot.why for boot in boots if each.pushed_at <= boot.last + CLOCKS_SECONDS), None)
