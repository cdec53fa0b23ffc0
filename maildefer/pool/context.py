"""What the processes of one supervisor share: settings, queues, scoreboard, the sockets between them."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from itertools import chain

from maildefer.handling.project.settings import PoolSettings
from maildefer.host.identity import HostIdentity
from maildefer.host.linux.process_locks import ProcessLocks
from maildefer.host.linux.signal_stack import StackDumps
from maildefer.maildir.layout import Layout
from maildefer.pool.counts.memory import CountAttempt, CountsMemory
from maildefer.pool.scoreboard import ProcessKind, Scoreboard


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOfPool:
    """A queue that the pool serves; `name` is the settings' spelling, in order of priority.

    With `tokens_only` the pool has a lease there for the conversation tokens, and claims no entries.
    """

    name: str
    layout: Layout
    tokens_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolContext:
    """The values and descriptors that the supervisor makes before it forks, and that its children read."""

    settings: PoolSettings
    project: str
    pidfile: str
    host: HostIdentity
    queues: tuple[QueueOfPool, ...]
    board: Scoreboard
    offers: tuple[tuple[socket.socket, socket.socket], ...]  # scout's end, workers' end
    keeper: tuple[socket.socket, socket.socket]  # supervisor's end, keeper's end: messages both ways
    gathering: tuple[
        tuple[socket.socket, socket.socket], ...
    ] = ()  # to the leaders of batches, and their ends
    locks: ProcessLocks | None = None  # which workers lead, and which are in a `@batch` function
    deferrals: tuple[socket.socket, socket.socket]  # keeper's end, workers' end: names just deferred
    not_paused: int  # an eventfd that is readable while claims go on, and not while the pool is paused
    supervisor: int  # pid
    counts: CountsMemory | None = None  # for metrics and `outgoing`; None: nobody asks for them
    dumps: StackDumps | None = None  # where workers' stack dumps go; None: to standard error
    force: bool = False
    ended_claims: set[str] = field(default_factory=set)  # of the keeper alone: see `Reclaimer`

    def all_queues(self) -> list[Layout]:
        """The settings' queues, also those that this pool does not serve; without handlers only those that exist."""
        paths = [os.path.join(self.project, name) for name in (*self.settings.queues, *self.settings.kept)]
        needed = len(self.settings.queues)
        return [Layout(path) for number, path in enumerate(paths) if number < needed or os.path.isdir(path)]

    def close_for(self, kind: ProcessKind) -> None:
        """Close the ends of other processes, in a child of that kind, so that it can't send in their place."""
        ends = {
            ProcessKind.KEEPER: (self.keeper[1], self.deferrals[0]),
            ProcessKind.SCOUT: tuple(sending for sending, _ in self.offers),
        }
        workers = (self.deferrals[1], *(end for _, end in self.offers), *chain.from_iterable(self.gathering))
        kept = ends.get(kind, workers)
        for end in chain(self.keeper, self.deferrals, *self.offers, *self.gathering):
            if end not in kept:
                end.close()

    def attempt_counter(self, slot: int, queue: int) -> CountAttempt | None:
        """Make the function by which a worker counts its attempts, where anybody asks for that."""
        counts = self._attempt_counts
        return None if counts is None else counts.own_slot(slot).counter(queue)

    def note(self, queue: int, event: str, what: str, last: str) -> None:
        """Count a notable event of the keeper's, where anybody asks for that."""
        if (counts := self._attempt_counts) is not None:
            counts.own_slot(self.board.slots - 1).note(queue, event, what, last)

    @property
    def _attempt_counts(self) -> CountsMemory | None:
        return self.counts if self.counts is not None and self.counts.counts_attempts else None

    @property
    def tokens_in(self) -> int | None:
        """The queue whose control folder holds all conversation tokens: the first of the settings, on every host.

        None where this pool has no lease there, since its queues have no conversations.
        """
        first = next(iter(self.settings.queues), None)
        return next((index for index, queue in enumerate(self.queues) if queue.name == first), None)
