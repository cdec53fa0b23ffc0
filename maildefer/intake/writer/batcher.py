"""Decides when jobs are sent to the writer, and how many in a batch.

On a mount all batches are in progress at the same time. On a local disk one batch is written at a time, and what comes
meanwhile makes up the next, or a second one beside it where many jobs wait (decision 26). A client sends its next
message once it is told of the last, so that the first of several clients would be written alone, and all others would
wait for it: it waits for company (decision 97).
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

J = TypeVar("J")

MAX_JOBS: Final = 64  # of a batch, so that the first does not wait for too many
_ENOUGH_JOBS: Final = 16  # for a second batch at the same time
MAX_WAIT_SECONDS: Final = 0.01  # of a job for a batch to end, which may be slow, or hang
_SMOOTHING: Final = 8


class WriterBatcher(Generic[J]):
    """The waiting jobs of one kind. For one thread.

    >>> batcher = WriterBatcher[str](threads=2, local=True)
    >>> batcher.add_job("a", now=0.0)
    >>> batcher.next_batch(now=0.0)
    ['a']
    >>> batcher.add_job("b", now=0.0)
    >>> batcher.next_batch(now=0.0)  # none yet: more jobs may come
    []
    >>> batcher.end_batch(1, sent=0.0, now=0.001)
    >>> batcher.next_batch(now=0.001)  # none yet: there were two
    []
    >>> batcher.add_job("c", now=0.001)
    >>> batcher.next_batch(now=0.001)
    ['b', 'c']
    """

    def __init__(self, *, threads: int, local: bool) -> None:
        """`threads`: the most batches at a time. `local`: the queue is on a local disk."""
        self._threads = threads
        self._local = local
        self._waiting: list[J] = []
        self._waiting_since = self._added_at = (
            0.0  # when the first of them was added, or later; when the last was
        )
        self._batches_out = self._jobs_out = 0
        self._ended_at = self._batch_seconds = 0.0  # when a batch last ended, and how long it took
        self._company = 0  # how many jobs were out or waiting when a batch last ended
        self._job_seconds = (
            0.0  # from a batch's end to the next jobs of its clients, for each of them; smoothed
        )

    def add_job(self, job: J, *, now: float) -> None:
        """`now`: seconds of a monotonic clock, the same one for all calls."""
        if not self._waiting:
            self._waiting_since = now
        self._added_at = now
        self._waiting.append(job)

    @property
    def due(self) -> float | None:
        """When to ask for the next batch, if none ends before; None where no job waits for that time."""
        if not self._waiting or self._batches_out >= self._threads:
            return None
        if self._batches_out:
            return self._waiting_since + MAX_WAIT_SECONDS
        return max(self._waiting_since, self._ended_at) + min(self._batch_seconds, MAX_WAIT_SECONDS)

    def next_batch(self, *, now: float, most: int = MAX_JOBS) -> list[J]:
        """The next batch to send now, of `most` jobs; to be called until it is empty."""
        count = len(self._waiting)
        if not count or not most or self._batches_out >= self._threads:
            return []
        if self._local and count < min(self._enough(), most) and (due := self.due) is not None and now < due:
            return []
        if not self._local:  # share them among the idle threads
            count = -(-count // (self._threads - self._batches_out))
        count = min(count, most)
        if not self._batches_out:
            self._note_pace()
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        self._waiting_since = now
        self._batches_out += 1
        self._jobs_out += count
        return batch

    def end_batch(self, jobs: int, *, sent: float, now: float) -> None:
        """Note that a batch of so many jobs, sent at that time, is answered."""
        self._note_pace()
        self._company = self._jobs_out + len(self._waiting)
        self._batches_out -= 1
        self._jobs_out -= jobs
        self._ended_at = now
        self._batch_seconds = now - sent

    def _enough(self) -> int:
        """How many jobs make a batch before they are due.

        All that are to come, where they come sooner than a batch is written; else a half of them, so that the others
        come while that is written, or enough for a batch beside another.
        """
        together = self._company * self._job_seconds < self._batch_seconds
        if self._batches_out:
            return max(_ENOUGH_JOBS, min(self._company, MAX_JOBS) if together else 0)
        return min(self._company if together else self._company // 2, MAX_JOBS)

    def _note_pace(self) -> None:
        """Note how fast those have come that wait; not after a pause, which says nothing of several clients."""
        if self._waiting and 0 < (seconds := self._added_at - self._ended_at) < MAX_WAIT_SECONDS:
            self._job_seconds += (seconds / len(self._waiting) - self._job_seconds) / _SMOOTHING
