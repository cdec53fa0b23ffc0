"""Finding whose records a queue's journal lacks: users and pools that leave none, and hosts that stopped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from maildefer.control.requests import read_leases
from maildefer.errors import MaildeferError
from maildefer.maildir import names
from maildefer.maildir.journal_file import boot_name, former_host_name, host_name
from maildefer.maildir.layout import Layout
from maildefer.maildir.rights.recording import barred_writers
from maildefer.maildir.system import System
from maildefer.untrusted import number

_TOLD_SECONDS: Final = 12.0  # two beats, in which a keeper tells that there are other workers
_PAUSE_SECONDS: Final = 1.0
CLOCKS_SECONDS: Final = 60.0  # hosts' clocks may differ by so much; beyond it they warn


@dataclass(frozen=True, slots=True)
class JournalGap:
    """A time in which a host could not write its records."""

    host: str
    since: float
    until: float


@dataclass(slots=True)
class HostBoot:
    """One boot of a host, as far as it wrote anything."""

    host: str
    name: str
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class EndedBoot:
    """A boot of a host that has booted again since: its last records may not have reached the disk."""

    hosts: tuple[str, ...]  # its names, of which the first is that in the journal
    last: float  # of its records
    until: float  # when the host had surely booted again
    why: str

    def may_lack_push(self, key: str) -> bool:
        """Whether it may have accepted this key, and stopped before the record of it was on the disk."""
        host = key.split(".", 2)[-1].partition(",")[0]
        if host not in self.hosts or (pushed_at := names.pushed_by_us_at(key)) is None:
            return False
        return self.last - CLOCKS_SECONDS <= pushed_at <= self.until + CLOCKS_SECONDS


def ended_boots(boots: Iterable[HostBoot], system: System) -> list[EndedBoot]:
    """The boots after which their host booted again, as other records say, or this host itself."""
    of_host: dict[str, list[HostBoot]] = {}
    for boot in sorted(boots, key=lambda boot: boot.first):
        of_host.setdefault(boot.host, []).append(boot)
    ended, here = [], (host_name(), former_host_name())
    lost = "its last records may not have reached the disk"
    for host, known in of_host.items():
        hosts = (host, *here) if host in here else (host,)
        again = f"{host} stopped and booted again"
        ended += [
            EndedBoot(hosts, one.last, other.first, f"{again}: {lost}")
            for one, other in pairwise(known)
            if other.first > one.last
        ]
        if host in here and known[-1].name != boot_name():
            booted_at = system.time() - system.boottime()
            ended.append(EndedBoot(hosts, known[-1].last, booted_at, f"{again} since: {lost}"))
    return ended


def silent_writers(
    queues: Sequence[Layout], kept_since: Mapping[int, float], timeout_seconds: float, system: System
) -> dict[str, list[str]]:
    """The users and pools that leave no records, in words, by the queue's path.

    Looks again for a while, since a pool that was just reloaded has yet to report its new workers.

    `kept_since`: since when the journal of which of them is kept, where that is known.
    """
    deadline = system.boottime() + min(timeout_seconds, _TOLD_SECONDS)
    while True:
        older = {
            queue.path: _older_than_journal(queue, since)
            for index, queue in enumerate(queues)
            if (since := kept_since.get(index)) is not None
        }
        if not any(older.values()) or system.boottime() >= deadline:
            break
        system.sleep(_PAUSE_SECONDS)
    found = {queue.path: [*barred_writers(queue.path), *older.get(queue.path, [])] for queue in queues}
    return {path: texts for path, texts in found.items() if texts}


def _older_than_journal(queue: Layout, since: float) -> list[str]:
    """The pools with workers that began before the journal: a worker looks for a journal only when it begins.

    Judged by the status files of their keepers; a keeper of a former version does not report when its workers began.
    """
    try:
        serving = read_leases(queue.path)
    except (MaildeferError, OSError):  # by now
        return []
    return [
        f"{lease.name} has workers that began before the journal did, and leave no records"
        for lease in serving
        if not lease.status.get("guest") and 0 < number(lease.status.get("workers_since")) < since
    ]
