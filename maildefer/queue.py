"""The queue in any Python program: `Queue("run/posts").push(message)`.

The code is in `maildefer.maildir` (push, pop, operator), `maildefer.pool.receiver.consumer` and
`maildefer.message.safe_maildir`; the error in `maildefer.errors`, a key of a unique push in
`maildefer.maildir.markers.unique`. Importing this loads no e-mail package, since every worker does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, overload

import maildefer.message.origin  # noqa: F401  # notes where what is pushed is from
from maildefer.errors import EntryTooLarge, QueueError, raise_named
from maildefer.handling.project import queue_paths
from maildefer.handling.project.queue_paths import located, queue_at, redirected, refuse_to_empty
from maildefer.host.identity import this_host
from maildefer.maildir.layout import Layout
from maildefer.maildir.markers.unique import PushedKey, push_unique
from maildefer.maildir.names import EntryName, hashed, sized
from maildefer.maildir.operator import entries, schedule
from maildefer.maildir.operator.entries import FoundEntry
from maildefer.maildir.operator.oversized import set_aside
from maildefer.maildir.outbox.current import pushing
from maildefer.maildir.pop import Popped, pop_entry
from maildefer.maildir.push import Compose, Planned, Pusher
from maildefer.maildir.reasons import write_reason
from maildefer.message.envelope import TOP_LIMIT_BYTES
from maildefer.message.request import MailRequest, compose_of, received

if TYPE_CHECKING:
    import mailbox
    from datetime import datetime

    from maildefer.message.safe_maildir import SafeMaildir  # `__getattr__` below loads it
    from maildefer.pool.receiver.consumer import Consumer

__all__ = ["PushedKey", "Queue", "QueueError", "SafeMaildir"]

_HOST = os.uname().nodename
_pushers: dict[str, Pusher] = {}  # one for each queue and process, so that its threads share directory syncs
_safe_pushers: dict[str, Pusher] = {}  # the same, for keys without the host's name
for _known in (_pushers, _safe_pushers):  # a sync that runs in the parent would never end here
    os.register_at_fork(after_in_child=_known.clear)


class Queue:
    """A queue, named by its directory. Any process, thread and host may use it at any time.

    A relative path is relative to the project, whatever the working directory is. A missing queue is made if the
    settings list it, or if they list no queues; outside of a project only the last folder of its path is made.
    `pop_limit`, in bytes, is for `pop` and `oversize` only; a larger message goes to `oversize_dir`, which is a queue
    too, or without one to the dead letters (Salmon deletes it). With `safe`, new keys, and those of `mbox`, have a hash
    of the host's name in place of the name. Raises QueueMissing, NotAQueue, FormatUnknown, and StorageFault's kinds.
    """

    def __init__(
        self, queue_dir: str, safe: bool = False, pop_limit: int = 0, oversize_dir: str | None = None
    ) -> None:
        self.dir = os.fspath(queue_dir)
        self.pop_limit = pop_limit
        self.oversize_dir: str | None = None
        self._oversize = located(os.fspath(oversize_dir)) if oversize_dir else None
        if oversize_dir and self._oversize:
            self.oversize_dir = os.path.join(os.fspath(oversize_dir), "new")
            _pusher(self._oversize)
        self._safe = safe
        self._known = _safe_pushers if safe else _pushers
        self._place = located(self.dir)
        _pusher(self._place, safe)
        self._hints: list[FoundEntry] = []  # names seen and not tried yet

    @property
    def layout(self) -> Layout:
        """The paths of the queue's files; in tests, of a queue in their store."""
        return self._pusher().layout

    @overload
    def push(
        self,
        message: object,
        *,
        unique: str,
        sender: str | None = None,
        recipient: str | None = None,
        after: float | None = None,
        at: datetime | None = None,
        priority: str = "normal",
    ) -> PushedKey: ...
    @overload
    def push(
        self,
        message: object,
        *,
        sender: str | None = None,
        recipient: str | None = None,
        after: float | None = None,
        at: datetime | None = None,
        priority: str = "normal",
        unique: None = None,
        now: bool = False,
    ) -> str: ...

    def push(
        self,
        message: object,
        *,
        sender: str | None = None,
        recipient: str | None = None,
        after: float | None = None,
        at: datetime | None = None,
        priority: str = "normal",
        unique: str | None = None,
        now: bool = False,
    ) -> str:
        """Make one entry of `message`, for one recipient; durable when it returns (I1). Returns the stable key.

        `message`: bytes (kept unchanged), str, a message of the `email` package, a MailRequest, whose envelope is kept,
        or an object with a `__str__` of its own. `sender` ("" is the null sender) and `recipient` are the envelope;
        without a recipient, From and To are read from the headers. With `after` (in seconds) or `at` (a datetime with
        its zone) it waits in `.later/` until then, by the mount's clock. `priority`: `high`, `normal` or `low`. With
        `unique`, it stores nothing while an entry of that key has not ended; the `PushedKey` says so by `is_new`.
        Where `relay_config` names a queue, a handler's push is seen once the handler has returned, and never if that
        raises; with `now` or `unique`, at once.
        Raises TypeError, ValueError for no such value; AddressRefused, QueueMissing, StorageFault's kinds.
        """
        pusher = self._pusher()
        compose: Compose = compose_of(message, sender, recipient, host=_HOST)
        if after is not None or at is not None or priority != "normal":
            compose = Planned(compose=compose, due=pusher.due(after=after, at=at), priority=priority)
        if unique is not None:
            return push_unique(pusher.layout, unique, compose, host=pusher.host)
        return pushing(pusher, now=now)(compose)

    def cancel(self, key: str) -> bool:
        """Remove an entry that waits or is deferred, and say whether it was; a worker's entry is left to it.

        Raises StorageFault's kinds.
        """
        return schedule.cancel(self.layout, key, host=_host())

    def reschedule(self, key: str, *, after: float | None = None, at: datetime | None = None) -> None:
        """Have an entry that waits or is deferred tried at another time; its counters are kept.

        Raises EntryNotFound (a KeyError) also for an entry that a worker holds; what `push` raises for times.
        """
        if after is None and at is None:
            raise TypeError("reschedule(…): give after=… or at=…")
        pusher = self._pusher()
        schedule.reschedule(pusher.layout, key, pusher.due(after=after, at=at), host=_host())

    def push_undeliverable(self, message: object, reason: str, /, **facts: object) -> str:
        """Push a message with a reason beside it, for `maildefer dead list`, as to `Router.UNDELIVERABLE_QUEUE`."""
        layout = self.layout

        def compose(stem: str) -> tuple[bytes, ...]:
            data = b"".join(compose_of(message, None, None, host=_HOST)(stem))
            entry = EntryName(key=sized(stem, len(data)))
            try:
                write_reason(layout, entry, reason, {"kept": True, **facts}, host=_host())
            except OSError as fault:
                raise_named(layout.reasons, fault)
            return (data,)

        return self._pusher().push(compose)

    def pop(self) -> tuple[str, MailRequest] | tuple[None, None]:
        """Take any waiting entry out of the queue, *at most once*: its key and message, or (None, None).

        The entry is removed when this returns: if this process dies a moment later, the message is lost; if the machine
        of the filesystem loses power, the entry may be there again. Use `consumer()` where that matters. Raises
        StorageFault's kinds, with the entry where it was.
        """
        for found in self._seen():
            if (popped := pop_entry(self.layout, found, host=_host())) is None:
                continue
            if popped.entry.outputs and queue_paths.project_outboxes().is_ended(self.layout, popped):
                continue
            try:
                data = popped.read(self.pop_limit + TOP_LIMIT_BYTES) if self.pop_limit else popped.read()
            except EntryTooLarge:
                self._set_aside(popped)
                continue
            if data is None:
                continue
            key = popped.entry.key
            message = received(data, key, popped.entry.attempts + 1, self.dir, self.dir)
            if self.pop_limit and len(message.Data) > self.pop_limit:
                self._set_aside(popped)
            elif popped.unlink():
                return key, message
        return None, None

    def get(self, key: str) -> MailRequest:
        """Read the message of that key, which stays where it is: waiting, claimed, deferred or dead.

        Raises EntryNotFound (a KeyError), EntryMalformed, EntryTooLarge, StorageFault's kinds.
        """
        found = entries.find(self.layout, key)
        data = entries.read_found(found)
        return received(data, found.key, found.entry.attempts or None, self.dir, self.dir)

    def remove(self, key: str) -> None:
        """Delete a waiting or deferred entry. Raises EntryNotFound (a KeyError), StorageFault's kinds."""
        entries.delete(self.layout, entries.find(self.layout, key, ("waiting", "deferred")))

    def clear(self) -> None:
        """Delete all waiting entries; claimed, deferred and dead entries stay.

        In a process that runs tests, raises RealQueueRefused for a queue outside of their store.
        """
        self._hints.clear()
        refuse_to_empty(self.layout.path)
        entries.clear(self.layout, "waiting")

    def keys(self) -> list[str]:
        """The stable keys of the waiting entries, in no order. Raises StorageFault's kinds."""
        return [found.key for found in entries.waiting(self.layout)]

    def count(self) -> int:
        """The number of waiting entries. Raises StorageFault's kinds."""
        return sum(1 for _ in entries.waiting(self.layout))

    __len__ = count

    def oversize(self, key: str) -> tuple[bool, str | None]:
        """Whether the waiting entry's message is over `pop_limit`, and its path; (False, None) without a limit.

        Raises EntryNotFound (a KeyError), StorageFault's kinds.
        """
        if not self.pop_limit:
            return False, None
        found = entries.find(self.layout, key, ("waiting",))
        try:
            data = entries.read_found(found, self.pop_limit + TOP_LIMIT_BYTES)
        except EntryTooLarge:
            return True, found.path
        return len(received(data, found.key, None, None, None).Data) > self.pop_limit, found.path

    def consumer(self, **options: Any) -> Consumer:
        """Join the queue with a lease and claim entries: `with queue.consumer() as claims: …`.

        Delivery is at least once, as in a pool. The options are those of `maildefer.pool.receiver.consumer.Consumer`.
        """
        from maildefer.pool.receiver.consumer import Consumer  # most programs only push

        return Consumer(self.layout, **options)

    @property
    def mbox(self) -> mailbox.Maildir:
        """The directory as the standard library's Maildir, for reading; it knows no claims and no deferring."""
        import mailbox  # the e-mail package and more, which few programs need here

        path = self.layout.path
        return __getattr__("SafeMaildir")(path) if self._safe else mailbox.Maildir(path)

    def __repr__(self) -> str:
        return f"Queue({self.dir!r})"

    def _pusher(self) -> Pusher:
        return self._known.get(redirected(self._place)) or _pusher(self._place, self._safe)

    def _seen(self) -> Iterator[FoundEntry]:
        """The waiting entries of the last listing, then of a new one; a listing is a hint (I10)."""
        while self._hints:
            yield self._hints.pop()
        fresh = entries.oldest(self.layout)
        while fresh:
            self._hints = fresh[::-1]
            while self._hints:
                yield self._hints.pop()
            fresh = entries.oldest(self.layout) if len(fresh) == entries.MOST_LISTED else []

    def _set_aside(self, popped: Popped) -> None:
        reason, other = f"over the pop limit of {self.pop_limit} bytes", self._oversize
        set_aside(popped, reason, None if other is None else _pusher(other), queue=self.dir)


def _pusher(path: str, safe: bool = False) -> Pusher:
    """The one pusher of this process for the queue, which is made if it is missing."""
    absolute, pushers = redirected(path), _safe_pushers if safe else _pushers
    found = pushers.get(absolute)
    if found is None or not os.path.isdir(found.layout.new):
        found = pushers.setdefault(absolute, Pusher(queue_at(path), host=hashed(_HOST) if safe else _host()))
    return found


def _host() -> str:
    return this_host().label


def __getattr__(name: str) -> Any:
    if name == "HASHED_HOSTNAME":  # the hash in keys of `safe` queues in place of the host's name
        return hashed(_HOST)
    if name == "SafeMaildir":
        from maildefer.message.safe_maildir import SafeMaildir  # loads the e-mail package

        return SafeMaildir
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
