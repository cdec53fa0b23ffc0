"""Offers: names that the scout writes and the workers read, through one socket pair for each queue.

All workers read one SEQPACKET socket, and wait for it by EPOLLEXCLUSIVE, so that an offer wakes one of them. A full
socket, kept small, holds the scout up. An offer is a hint (I10): one that is lost, doubled or stale costs only time.
"""

from __future__ import annotations

import os
import select
import socket
from binascii import crc32
from collections.abc import Callable

from maildefer import events
from maildefer.maildir.names import EntryName
from maildefer.maildir.system import boottime

MOST_BYTES = 60_000
MOST_NAMES = 64
MOST_SHORT = 16  # names of up to 255 bytes in an offer through a short socket
_BUFFER_BYTES = (
    32 << 10
)  # some tens of names, where net.unix.max_dgram_qlen (10; systemd makes it 512) allows more
_TAKES_IN_ORDER = 8  # after so many, one take begins at a lower queue, so that none starves


def channel() -> tuple[socket.socket, socket.socket]:
    """The scout's end and the workers' end."""
    sending, receiving = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    return sending, receiving


def keep_short(sending: socket.socket) -> None:
    """Have the socket be writable only while one offer waits in it, or none, so that later ones can be the next."""
    sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 0)  # the kernel makes it the least, 4,608 bytes


def share_of(name: str, hosts: int) -> int:
    """The index of the host whose share an entry is: the hosts share 1,024 slots of the key's hash evenly."""
    key = EntryName.parse(name).key
    return crc32(key.encode("utf-8", "surrogateescape")) % 1024 * hosts // 1024


def _ignore() -> None:
    """Take no notice."""


def pack(names: list[str]) -> bytes:
    return os.fsencode("\0".join(names))


def unpack(data: bytes, note_invalid: Callable[[], None] = _ignore) -> list[str]:
    """The names of an offer; a name that leads to another directory is dropped, and `note_invalid` called."""
    if b"/" in data:
        note_invalid()
        events.emit("child.misbehaved", kind="scout", reason=f"what it offered is no name: {data[:60]!r}")
        data = b"\0".join(name for name in data.split(b"\0") if b"/" not in name)
    return os.fsdecode(data).split("\0") if data else []


class Offers:
    """A worker's end of all queues' offers, in order of priority.

    `gate` is a descriptor that is readable unless the pool is paused; `note_invalid` is called when the scout has
    offered what is no name.
    """

    def __init__(
        self, sockets: list[socket.socket], gate: int, note_invalid: Callable[[], None] = _ignore
    ) -> None:
        self._sockets = sockets
        self._left: list[socket.socket] = []
        self._note_invalid = note_invalid
        for sock in sockets:
            sock.setblocking(False)
        self._gate = gate
        self._takes = 0
        self._held: dict[int, tuple[float, list[str]]] = {}  # offers that wait, by queue: until when

    def begin_waiting(self, waker: int) -> None:
        """Prepare for waits in this process; `waker` is a descriptor that ends one when it is readable."""
        self._waker = waker
        self._epoll = select.epoll()
        self._epoll.register(waker, select.EPOLLIN)
        for sock in self._sockets:
            self._epoll.register(sock.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self._paused = select.poll()
        for descriptor in (waker, self._gate):
            self._paused.register(descriptor, select.POLLIN)

    @property
    def descriptor(self) -> int:
        """A descriptor that is readable when there may be an offer, or a signal came."""
        return self._epoll.fileno()

    def take_offer(self) -> tuple[int, list[str]] | None:
        """Take the next offer: the queue's index, and names; None when there is none."""
        self._takes += 1
        count = len(self._sockets)
        first = (
            (self._takes // _TAKES_IN_ORDER) % count
            if count > 1 and self._takes % _TAKES_IN_ORDER == 0
            else 0
        )
        for step in range(count):
            index = (first + step) % count
            if self._held and index in self._held:
                if (names := self._resume(index)) is not None:
                    return index, names
                continue
            try:
                data = self._sockets[index].recv(MOST_BYTES)
            except BlockingIOError:  # nothing there, or another worker was quicker
                continue
            if data:
                return index, unpack(data, self._note_invalid)
        return None

    def hold(self, index: int, names: list[str], seconds: float) -> None:
        """Take no offer of that queue for so long, and then this one again; other queues go on meanwhile."""
        self._held[index] = boottime() + seconds, names
        self._epoll.unregister(self._sockets[index].fileno())

    def hold_no_longer(self, index: int) -> None:
        """Take the offer of that queue, if one is held, at the next call."""
        if index in self._held:
            self._held[index] = 0.0, self._held[index][1]

    def held_seconds(self) -> float | None:
        """In how many seconds the next of the offers that are held is to be taken; None where none is."""
        if not self._held or not self._sockets:
            return None
        return max(0.0, min(until for until, _ in self._held.values()) - boottime())

    def _resume(self, index: int) -> list[str] | None:
        """Return the offer that was held, if its time has come."""
        until, names = self._held[index]
        if boottime() < until:
            return None
        del self._held[index]
        self._epoll.register(self._sockets[index].fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)
        return names

    def wake_for(self, end: socket.socket) -> None:
        """End a wait also when that socket is readable, which `take_offer` does not read."""
        self._epoll.register(end.fileno(), select.EPOLLIN)

    def stop_waking_for(self, end: socket.socket) -> None:
        self._epoll.unregister(end.fileno())

    def rest(self) -> None:
        """Leave the offers to other workers, also while this one waits, until `resume`."""
        for index, sock in enumerate(self._sockets):
            if index not in self._held:
                self._epoll.unregister(sock.fileno())
        self._sockets, self._left = [], self._sockets

    def resume(self) -> None:
        """Take offers again."""
        self._sockets, self._left = self._left, []
        for index, sock in enumerate(self._sockets):
            if index not in self._held:
                self._epoll.register(sock.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)

    def is_any(self) -> bool:
        """Whether there may be an offer, or a signal came."""
        return bool(self._epoll.poll(0))

    def wait(self, *, paused: bool, seconds: float | None = None) -> None:
        """Sleep until there may be an offer (while paused, until the pool is resumed), a signal came, or so long."""
        if paused:
            ready = self._paused.poll(None if seconds is None else seconds * 1000)
        else:
            if (until := self.held_seconds()) is not None:
                seconds = until if seconds is None else min(seconds, until)
            ready = self._epoll.poll(seconds)
        if any(descriptor == self._waker for descriptor, _ in ready):
            try:
                os.read(self._waker, 4096)
            except BlockingIOError:
                pass
