"""The outputs of one attempt: entries that its handlers push, in the outboxes of the queues for which they are."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from threading import Lock
from typing import Final, ParamSpec, TypeVar

from maildefer.errors import StorageFault, raise_named
from maildefer.maildir import durable
from maildefer.maildir.claims import Claim
from maildefer.maildir.drafts.entry import UnsyncedEntry
from maildefer.maildir.drafts.placer import DraftPlacer
from maildefer.maildir.layout import Layout
from maildefer.maildir.outbox.commit import commit
from maildefer.maildir.outbox.current import current
from maildefer.maildir.push import Compose, Pusher
from maildefer.maildir.rights.modes import make_in
from maildefer.maildir.system import SYSTEM, System

P = ParamSpec("P")
T = TypeVar("T")

_MOST_OPEN: Final = 32
_OUTBOX: Final = ".maildefer/outbox"
_durable: Final[set[str]] = set()  # outboxes whose names this process has synced


def outbox_of(layout: Layout) -> str:
    """Return the path of a queue's outbox, which is made for the first output."""
    return f"{layout.path}/{_OUTBOX}"


class _OutboxPlacer(DraftPlacer):
    """Puts entries into an outbox, where they are durable once that is synced."""

    def __init__(self, layout: Layout, token: str, *, system: System) -> None:
        super().__init__(layout, system=system)
        self._place = f"{outbox_of(layout)}/{token}."

    def place_of(self, marker: str) -> str:
        return self._place + marker

    def commit(self, markers: Sequence[str], moved: Sequence[str], *, are_durable: bool = False) -> None:
        """Leave that to `Outputs.sync`, which does it once for all."""

    def move_left(
        self, drafts: Sequence[tuple[str, str]], fault: OSError, *, is_last: bool = False
    ) -> list[str]:
        if fault.errno == errno.ENOENT and make_in(self._layout.path, _OUTBOX, self._system):
            _durable.discard(outbox_of(self._layout))
        return super().move_left(drafts, fault, is_last=is_last)


class _OutputPusher(Pusher):
    """Writes entries into an outbox; what it returns is not synced yet."""

    _may_sync_once = False

    def __init__(self, pusher: Pusher, token: str, *, system: System) -> None:
        super().__init__(pusher.layout, host=pusher.host, system=system)
        self.placer = _OutboxPlacer(pusher.layout, token, system=system)

    def _sync_file(self, begun: UnsyncedEntry) -> None:
        """Leave that to `Outputs.sync`, which does it for all at the same time."""


class Outputs:
    """What the handlers of one claimed message push; any thread that has their context may.

    An output that can't be written raises what a push raises, and is none.
    """

    def __init__(self, token: str, queues: Collection[str], *, system: System = SYSTEM) -> None:
        """`queues`: the paths of the project's, in whose outboxes a later claimer of the message looks."""
        self.token = token
        self.is_sent = False
        """Whether a commit was sent, so that it may be executed at any time."""
        self._queues = queues
        self._system = system
        self._pid = system.pid()
        self._lock = Lock()
        self._is_closed = False
        self._drafts: dict[Pusher, list[tuple[str, str]]] = {}  # paths and keys, by who writes them
        self._pushers: dict[tuple[str, str], tuple[Pusher, Pusher]] = {}  # of outputs, and of entries

    def __bool__(self) -> bool:
        return bool(self._drafts)

    def keys(self) -> list[tuple[str, str]]:
        """The path of the queue and the key of each output, as they were pushed."""
        return [(own.layout.path, key) for own, drafts in self._drafts.items() for _, key in drafts]

    def around(self, handlers: Callable[P, T]) -> Callable[P, T]:
        """Return a function that calls the handlers, whose pushes are outputs until they return."""

        def call(*arguments: P.args, **named: P.kwargs) -> T:
            before = current.set(self)
            try:
                return handlers(*arguments, **named)
            finally:
                current.reset(before)
                self._close()

        return call

    async def during(self, handlers: Callable[[], Awaitable[T]]) -> T:
        """The same for handlers that are awaited, in a task of their own."""
        current.set(self)
        try:
            return await handlers()
        finally:
            self._close()

    def pushing(self, pusher: Pusher) -> Callable[[Compose], str]:
        is_ours = pusher.layout.path in self._queues and self._system.pid() == self._pid
        return partial(self._push, pusher) if is_ours else pusher.push

    def _push(self, pusher: Pusher, compose: Compose) -> str:
        with self._lock:  # the end of the handlers waits until it is whole
            if not self._is_closed:
                own = self._own(pusher)
                try:
                    key = own.push(compose)
                except StorageFault as fault:
                    fault.is_charged = False  # the message has no part in it
                    raise
                self._drafts.setdefault(own, []).append((own.place_of(key), key))
                return key
        return pusher.push(compose)  # by a thread or a task that the handlers have left behind

    def _own(self, pusher: Pusher) -> Pusher:
        """Return what writes outputs in the place of that pusher's entries."""
        place = pusher.layout.path, pusher.host
        if place not in self._pushers:
            self._pushers[place] = _OutputPusher(pusher, self.token, system=self._system), pusher
        return self._pushers[place][0]

    def _close(self) -> None:
        if self._system.pid() == self._pid:  # else a thread of the parent's may have had the lock
            with self._lock:
                self._is_closed = True

    def sync(self) -> None:
        """Make all outputs durable. Raises StorageFault's kinds."""
        paths = [path for drafts in self._drafts.values() for path, _ in drafts]
        for first in range(0, len(paths), _MOST_OPEN):
            self._sync_files(paths[first : first + _MOST_OPEN])
        for outbox in dict.fromkeys(outbox_of(own.layout) for own in self._drafts):
            try:
                if outbox not in _durable:  # whoever has made it may have died before that
                    durable.sync_directory(outbox.rpartition("/")[0], system=self._system)
                durable.sync_directory(outbox, system=self._system)
            except OSError as fault:
                raise_named(outbox, fault)
            _durable.add(outbox)

    def _sync_files(self, paths: list[str]) -> None:
        system, opened = self._system, list[int]()
        try:
            for path in paths:
                opened.append(system.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
                durable.announce_sync(opened[-1], system)
            for fault in filter(None, durable.sync_all(opened, system)):
                raise fault
        except OSError as fault:
            raise_named(paths[0].rpartition("/")[0], fault)
        finally:
            for descriptor in opened:
                system.close(descriptor)

    def commit(self, claim: Claim) -> None:
        """Commit them, once they are durable: see `commit`. From now on none of them is removed."""
        self.is_sent = True
        commit(claim, self.token)

    def publish(self) -> None:
        """Publish what is committed, durably. Raises StorageFault's kinds."""
        for own, pusher in self._pushers.values():
            try:
                if drafts := self._drafts.get(own):
                    pusher.placer.finish(drafts)
            except OSError as fault:
                raise_named(own.layout.new, fault)

    def discard(self) -> None:
        """Remove what is not committed, and can't be any more; what can't be removed, a sweep removes later."""
        if not self.is_sent:
            for drafts in self._drafts.values():
                for path, _ in drafts:
                    durable.discard(path, self._system)
        self._drafts.clear()
