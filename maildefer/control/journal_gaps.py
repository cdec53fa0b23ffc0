"""Who handles a queue's mail now and leaves no records in its journal, as far as that shows from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from maildefer.control.requests import leases
from maildefer.errors import MaildeferError
from maildefer.maildir.layout import Layout
from maildefer.maildir.rights.recording import barred
from maildefer.maildir.system import System
from maildefer.untrusted import number

_TOLD_SECONDS: Final = 12.0  # two beats, in which a keeper tells that there are other workers
_PAUSE_SECONDS: Final = 1.0


def silent_writers(
    queues: Sequence[Layout], kept_since: Mapping[int, float], patience_seconds: float, system: System
) -> dict[str, list[str]]:
    """By the queue's path. Looks again for a while, since a pool that was just reloaded has yet to say so.

    `kept_since`: since when the journal of which of them is kept, where that is known.
    """
    deadline = system.boottime() + min(patience_seconds, _TOLD_SECONDS)
    while True:
        older = {
            queue.path: _older_than_journal(queue, since)
            for index, queue in enumerate(queues)
            if (since := kept_since.get(index)) is not None
        }
        if not any(older.values()) or system.boottime() >= deadline:
            break
        system.sleep(_PAUSE_SECONDS)
    found = {queue.path: [*barred(queue.path), *older.get(queue.path, [])] for queue in queues}
    return {path: texts for path, texts in found.items() if texts}


def _older_than_journal(queue: Layout, since: float) -> list[str]:
    """Workers look for a journal when they begin, so those that began before it keep none.

    By the account that their keepers give of them; one of a former version gives none.
    """
    try:
        serving = leases(queue.path)
    except (MaildeferError, OSError):  # by now
        return []
    return [
        f"{lease.name} has workers that began before the journal did, and leave no records"
        for lease in serving
        if not lease.status.get("guest") and 0 < number(lease.status.get("workers_since")) < since
    ]
