"""When jobs go to the writer, and how many together.

A batch has one directory sync for all of it, and on ext4 one commit of the journal. So on this machine's own disk the
most are taken when one batch is written at a time, and all that come meanwhile make up the next; a second one beside it
is worth it when many wait. On a mount each message waits for answers of a server, which has others to serve meanwhile:
there the most are taken when all are under way at the same time.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

J = TypeVar("J")

MOST: Final = 64  # jobs of a batch: who came first should not wait for all
_ENOUGH: Final = 16  # to be worth a batch beside another
PATIENCE_SECONDS: Final = 0.01  # that a job waits for a batch to end, which may be slow, or hang


class WriterBatcher(Generic[J]):
    """Jobs of one kind. One thread.

    >>> lane = WriterBatcher[str](threads=2, local=True)
    >>> lane.add("a", now=0.0)
    >>> lane.next(now=0.0)
    ['a']
    >>> lane.add("b", now=0.0)
    >>> lane.next(now=0.0)  # nothing: more may come
    []
    >>> lane.end()
    >>> lane.next(now=0.0)
    ['b']
    """

    def __init__(self, *, threads: int, local: bool) -> None:
        """`threads`: batches at a time. `local`: written to a disk of this machine."""
        self._threads = threads
        self._local = local
        self._waiting: list[J] = []
        self._since = 0.0  # when the first of them came, or later
        self._out = 0  # batches

    def add(self, job: J, *, now: float) -> None:
        """`now`: seconds on any clock that only goes on, the same for all calls."""
        if not self._waiting:
            self._since = now
        self._waiting.append(job)

    @property
    def due(self) -> float | None:
        """When to ask for the next batch, if none has ended before; None where nothing waits for that."""
        return self._since + PATIENCE_SECONDS if self._waiting and self._out < self._threads else None

    def next(self, *, now: float, most: int = MOST) -> list[J]:
        """A batch to be sent now, of so many at most; to be asked for until there is none."""
        count = len(self._waiting)
        if not count or not most or self._out >= self._threads or not self._is_time(count, now):
            return []
        if not self._local:  # for all threads that have nothing to do
            count = -(-count // (self._threads - self._out))
        count = min(count, most)
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        self._since = now
        self._out += 1
        return batch

    def end(self) -> None:
        """A batch is answered."""
        self._out -= 1

    def _is_time(self, count: int, now: float) -> bool:
        return not (self._out and self._local) or count >= _ENOUGH or now >= self._since + PATIENCE_SECONDS
