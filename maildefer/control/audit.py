"""The loss audit: proves of every accepted key that it has an end, or lies in a folder, and names each that does not.

From outside, while pools run: an entry that is renamed while folders are listed may be missed, and an end may be
recorded after the journal was read. So whoever is missing is looked for again, in the folders and in the journal, for
as long as patience lasts, before it is named.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from maildefer.control.ledger import Boot, Ledger, Open
from maildefer.errors import JournalMissing, MaildeferError
from maildefer.maildir import operate
from maildefer.maildir.journal import boot_name, host_name
from maildefer.maildir.layout import Layout, open_queue
from maildefer.maildir.operate import FOLDERS, Folder
from maildefer.maildir.system import SYSTEM, System

Verdict = Literal["lost", "unproven"]
PATIENCE_SECONDS = 60.0  # an NFS client may keep what was appended to itself for half of it
LEAST_LOOKS = 3
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 10.0
_CLOCKS_SECONDS = 60.0  # hosts' clocks may differ by so much; beyond it they warn


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """An accepted key that has no end and is in no folder. `unproven`: something explains it, which see."""

    key: str
    queue: str
    verdict: Verdict
    pushed_at: float
    last: str  # the last that is known of it
    why: str


@dataclass(slots=True, kw_only=True)
class Report:
    """What an audit found."""

    queues: list[str]  # as asked, and those to which entries were handed
    accepted: int = 0
    ended: int = 0
    found: dict[Folder, int] = field(default_factory=lambda: dict.fromkeys(FOLDERS, 0))
    suspects: list[Suspect] = field(default_factory=list)
    since: float | None = None
    torn: int = 0
    gaps: int = 0
    looks: int = 0
    seconds: float = 0.0

    def count(self, verdict: Verdict) -> int:
        return sum(suspect.verdict == verdict for suspect in self.suspects)


def audit(
    paths: Sequence[str], *, patience_seconds: float = PATIENCE_SECONDS, system: System = SYSTEM
) -> Report:
    """Audit these queues together. Raises JournalMissing, QueueMissing and its kin, OSError."""
    began = system.boottime()
    ledger, strangers = _ledger([_kept(path) for path in paths])
    missing = dict(ledger.open)
    report = Report(
        queues=[], accepted=ledger.accepted, since=ledger.since
    )  # what comes later is not asked for
    where: Counter[Folder] = Counter()
    pause = _FIRST_PAUSE_SECONDS
    while missing:
        report.looks += 1
        for key, folder in _whereabouts(ledger.queues, missing, again=report.looks > 1, system=system):
            where[folder] += 1
            del missing[key]
        if not missing or (report.looks >= LEAST_LOOKS and system.boottime() - began > patience_seconds):
            break
        system.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        ledger.read()
        if _further(ledger, strangers):  # handed on since
            ledger, strangers = _ledger(list(ledger.queues))
        missing = {key: ledger.open[key] for key in missing if key in ledger.open}
    report.queues = [queue.path for queue in ledger.queues]
    report.found |= where
    report.ended = report.accepted - sum(where.values()) - len(missing)
    report.torn, report.gaps = ledger.torn, len(ledger.gaps)
    report.suspects = [_suspect(each, ledger, strangers) for each in missing.values()]
    report.seconds = system.boottime() - began
    return report


def _kept(path: str) -> Layout:
    layout = open_queue(path)
    if not os.path.isdir(layout.journal):
        raise JournalMissing(layout.path)
    return layout


def _ledger(queues: list[Layout]) -> tuple[Ledger, dict[str, str]]:
    """The journals of these queues, and of all to which their entries were handed; with those that keep none."""
    strangers: dict[str, str] = {}
    while True:
        ledger = Ledger(queues)
        ledger.read()
        if not (further := _further(ledger, strangers)):
            return ledger, strangers
        for path in sorted(further):
            try:
                queues = [*queues, _kept(path)]
            except (MaildeferError, OSError) as fault:
                strangers[path] = str(fault)


def _further(ledger: Ledger, strangers: Iterable[str]) -> set[str]:
    """Queues to which an open entry was handed, and of which nothing was read yet."""
    known = {queue.path for queue in ledger.queues}.union(strangers)
    return {path for each in ledger.open.values() if (path := _leads_to(each)) and path not in known}


def _leads_to(each: Open) -> str | None:
    """The queue to which it was handed last."""
    if each.moved_to is None or not each.moved_to.startswith("../"):
        return None
    place = os.path.normpath(os.path.join(each.queue.path, each.moved_to))
    return os.path.dirname(os.path.dirname(place))


def _whereabouts(
    queues: Iterable[Layout], keys: dict[str, Open], *, again: bool, system: System
) -> Iterable[tuple[str, Folder]]:
    """Which of the keys lie where; each once, in the folder in which it was seen first."""
    seen: dict[str, Folder] = {}
    for queue in queues:
        if again:  # a change of one's own is what surely drops an NFSv3 client's stale listing
            for path in (queue.new, queue.cur, queue.later_new, queue.dead_new):
                try:
                    system.utime(path)
                except OSError:  # not ours to touch: as fresh as it gets
                    pass
        for folder in FOLDERS:
            for found in operate.listed(queue, folder, system=system):
                if (key := found.key) in keys:
                    seen.setdefault(key, folder)
    return seen.items()


def _suspect(each: Open, ledger: Ledger, strangers: dict[str, str]) -> Suspect:
    why = _explained(each, ledger, strangers)
    last = "accepted" if each.moved_to is None else f"moved to {each.moved_to}"
    return Suspect(
        key=each.key,
        queue=each.queue.path,
        verdict="unproven" if why else "lost",
        pushed_at=each.pushed_at,
        last=last,
        why=why or "it has no end in the journal and is in no folder",
    )


def _explained(each: Open, ledger: Ledger, strangers: dict[str, str]) -> str | None:
    """What else than a loss may have come of it: a record that is missing for a reason that can be seen."""
    if reason := strangers.get(_leads_to(each) or ""):
        return f"handed to another queue, of which nothing is known: {reason}"
    if each.kept:
        return "whoever deleted, popped or withdrew it found it gone: perhaps by a lost reply"
    for gap in ledger.gaps:
        if each.pushed_at <= gap.until + _CLOCKS_SECONDS:
            return f"{gap.host} could not write its records for a time"
    for over, after in _ended_boots(ledger.boots.values()):
        if each.pushed_at <= over.last + _CLOCKS_SECONDS:
            return (
                f"{over.host} stopped and booted again{after}: its last records may not have reached the disk"
            )
    return None


def _ended_boots(boots: Iterable[Boot]) -> list[tuple[Boot, str]]:
    """Boots after which their host booted anew, as other records say, or this host itself."""
    of_host: dict[str, list[Boot]] = {}
    for boot in sorted(boots, key=lambda boot: boot.first):
        of_host.setdefault(boot.host, []).append(boot)
    ended = []
    for host, known in of_host.items():
        ended += [(one, "") for one, other in pairwise(known) if other.first > one.last]
        if host == host_name() and known[-1].name != boot_name():
            ended.append((known[-1], " since"))
    return ended
