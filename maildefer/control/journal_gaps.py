"""Finding the users and pools that handle a queue's mail now and leave no records in its journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from maildefer.control.requests import read_leases
from maildefer.errors import MaildeferError
from maildefer.maildir.layout import Layout
from maildefer.maildir.rights.recording import barred_writers
from maildefer.maildir.system import System
from maildefer.untrusted import number

_TOLD_SECONDS: Final = 12.0  # two beats, in which a keeper tells that there are other workers
_PAUSE_SECONDS: Final = 1.0


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
