"""Decides when jobs are sent to the writer, and how many in a batch.

On a local disk one batch is written at a time, and what comes meanwhile makes up the next, or a second one beside it
where many jobs wait; on a mount all are in progress at the same time (decision 26).
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

J = TypeVar("J")

MAX_JOBS: Final = 64  # of a batch, so that the first does not wait for too many
_ENOUGH_JOBS: Final = 16  # for a second batch at the same time
MAX_WAIT_SECONDS: Final = 0.01  # of a job for a batch to end, which may be slow, or hang


class WriterBatcher(Generic[J]):
    """The waiting jobs of one kind. For one thread.

    >>> batcher = WriterBatcher[str](threads=2, local=True)
    >>> batcher.add_job("a", now=0.0)
    >>> batcher.next_batch(now=0.0)
    ['a']
    >>> batcher.add_job("b", now=0.0)
    >>> batcher.next_batch(now=0.0)  # none yet: more jobs may come
    []
    >>> batcher.end_batch()
    >>> batcher.next_batch(now=0.0)
    ['b']
    """

    def __init__(self, *, threads: int, local: bool) -> None:
        """`threads`: the most batches at a time. `local`: the queue is on a local disk."""
        self._threads = threads
        self._local = local
        self._waiting: list[J] = []
        self._waiting_since = 0.0  # when the first of them was added, or later
        self._batches_out = 0

    def add_job(self, job: J, *, now: float) -> None:
        """`now`: seconds of a monotonic clock, the same one for all calls."""
        if not self._waiting:
            self._waiting_since = now
        self._waiting.append(job)

    @property
    def due(self) -> float | None:
        """When to ask for the next batch, if none ends before; None where no job waits for that time."""
        if not self._waiting or self._batches_out >= self._threads:
            return None
        return self._waiting_since + MAX_WAIT_SECONDS

    def next_batch(self, *, now: float, most: int = MAX_JOBS) -> list[J]:
        """The next batch to send now, of `most` jobs; to be called until it is empty."""
        count = len(self._waiting)
        if not count or not most or self._batches_out >= self._threads or not self._is_due(count, now):
            return []
        if not self._local:  # share them among the idle threads
            count = -(-count // (self._threads - self._batches_out))
        count = min(count, most)
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        self._waiting_since = now
        self._batches_out += 1
        return batch

    def end_batch(self) -> None:
        """Note that a batch is answered."""
        self._batches_out -= 1

    def _is_due(self, count: int, now: float) -> bool:
        if not (self._batches_out and self._local):
            return True
        return count >= _ENOUGH_JOBS or now >= self._waiting_since + MAX_WAIT_SECONDS
