"""Log lines about what a keeper has reclaimed or fenced, and the counts of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from maildefer import events
from maildefer.maildir.drafts.synced import recover
from maildefer.maildir.system import System
from maildefer.maildir.upkeep.reclaim import Reclaimed
from maildefer.pool.context import PoolContext, QueueOfPool
from maildefer.pool.scoreboard_views import QueueRecordView


@contextmanager
def logged_reclaims(context: PoolContext, index: int) -> Iterator[Reclaimed]:
    """Log, and count, what the scan of a queue adds to the record, also when it ends in a fault."""
    reclaimed = Reclaimed()
    try:
        yield reclaimed
    finally:
        _log(context.queues[index].name, reclaimed)
        QueueRecordView(context.board, index).reclaims += len(reclaimed.reclaimed) + len(reclaimed.buried)
        for key, reason in reclaimed.buried.items():
            context.note(index, "buried", "crashed\n", f"{key}\n{reason}")


def log_fence(context: PoolContext, index: int, lease: str) -> None:
    """Log, and count, that the lease of another host was fenced in a queue."""
    events.emit("lease.fenced", queue=context.queues[index].name, lease=lease)
    QueueRecordView(context.board, index).fences += 1
    context.note(index, "fenced", lease.rsplit("-", 2)[0], lease)


def recover_pushes(queue: QueueOfPool, mount_time: float, system: System) -> None:
    """Move what a power cut, or a death, has left of pushes with one sync to where it waits. Raises OSError."""

    def log(key: str, is_whole: bool) -> None:
        events.emit("push.recovered" if is_whole else "push.torn", queue=queue.name, key=key)

    recover(queue.layout, log, mount_time=mount_time, system=system)


def log_reclaimed_tokens(queue: str, count: int, overlaps: Sequence[str] = ()) -> None:
    """Log how many tokens were reclaimed; `overlaps` are owners, on another host or fenced, of slots of limits."""
    if count:
        events.emit("token.freed", queue=queue, count=count)
    for owner in overlaps:
        lease, _, pid = owner.rpartition(".")
        events.emit("limit.overlapped", queue=queue, lease=lease, pid=int(pid))


def _log(queue: str, reclaimed: Reclaimed) -> None:
    for key in reclaimed.reclaimed:
        events.emit("claim.reclaimed", queue=queue, key=key)
    for key in reclaimed.released:
        events.emit("claim.released", queue=queue, key=key)
    for key, reason in reclaimed.buried.items():
        events.emit("entry.buried", queue=queue, key=key, reason=reason)
    for key in reclaimed.returned:
        events.emit("entry.returned", queue=queue, key=key)
