"""A receiver's waiting batches: claims for `@batch` handlers, until they are enough or have waited long enough.

The same rules as in a pool's workers (see `batch_worker`), for a process that runs by itself: one thread gathers,
others handle.
"""

from __future__ import annotations

from collections.abc import Iterator

from maildefer.handling.dispatch import Dispatcher
from maildefer.maildir.system import boottime
from maildefer.pool.receiver.consumer import ConsumedClaim
from maildefer.pool.worker.batch_group import BatchGroup

MOST = 900  # claims that wait at a time; the other places of the scoreboard are for claims in hand


class WaitingBatches:
    """Groups of claims that wait; used by one thread, while any thread handles what it yields."""

    def __init__(self, dispatcher: Dispatcher, *, max_crashes: int, max_bytes: int) -> None:
        self._dispatcher = dispatcher
        self._max_crashes = max_crashes
        self._max_bytes = max_bytes
        self._waiting: dict[tuple[str, int], BatchGroup[ConsumedClaim]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, claim: ConsumedClaim) -> bool:
        """Keep a claim for its batch; False where its message is for no batch handler, and to be handled by itself."""
        step = self._dispatcher.batch_for(claim.message)
        if step is None or step.terms is None:
            return False
        key = (step.name, claim.crashes)
        if (found := self._waiting.get(key)) is None:
            found = self._waiting[key] = BatchGroup.begin(step, claim.crashes, self._max_crashes)
        found.add(claim, len(claim.data))
        return True

    def due(self, *, idle: bool, everything: bool) -> Iterator[BatchGroup[ConsumedClaim]]:
        """Yield groups that are full or have waited long enough; without a linger, when nothing else can be claimed.

        With `everything` the others too, since no more messages come.
        """
        now = boottime()
        crowded = sum(len(one.claims) for one in self._waiting.values()) >= MOST
        for key, one in list(self._waiting.items()):
            waited = one.due <= now and (idle or one.lingers)
            if everything or crowded or waited or one.is_full(self._max_bytes):
                del self._waiting[key]
                yield one

    def wait_seconds(self, most: float) -> float:
        """How long the next claim may be waited for."""
        first = min((one.due for one in self._waiting.values()), default=None)
        return most if first is None else max(0.0, min(most, first - boottime()))

    def release(self) -> None:
        """Release all claims, since the receiver ends."""
        for group in self._waiting.values():
            group.release()
        self._waiting.clear()
