"""What the processes of one supervisor have in common: settings, queues, board, the sockets between them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from maildefer.handling.settings import PoolSettings
from maildefer.host.identity import Host
from maildefer.host.stackdumps import Dumps
from maildefer.maildir.layout import Layout
from maildefer.pool.board import Board

MESSAGE_BYTES = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOfPool:
    """One queue that the pool serves; `name` is the settings' spelling, in order of priority.

    With `guest` it takes part with a lease only, for the conversation tokens that lie there, and claims no entries.
    """

    name: str
    layout: Layout
    guest: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Made by the supervisor before it forks; read by its children."""

    settings: PoolSettings
    project: str
    pidfile: str
    host: Host
    queues: tuple[QueueOfPool, ...]
    board: Board
    offers: tuple[tuple[socket.socket, socket.socket], ...]  # scout's end, workers' end
    keeper: tuple[socket.socket, socket.socket]  # supervisor's end, keeper's end: messages both ways
    gathering: tuple[tuple[socket.socket, socket.socket], ...] = ()  # to the one who gathers, and its own end
    deferrals: tuple[socket.socket, socket.socket]  # keeper's end, workers' end: names just deferred
    gate: int  # an eventfd that is readable while claims go on, and not while the pool is paused
    supervisor: int  # pid
    dumps: Dumps | None = None  # where workers' stack dumps go; None: to standard error
    force: bool = False

    @property
    def tokens_in(self) -> int | None:
        """Which queue's control folder holds the tokens of all conversations: the first of the settings, for all hosts.

        None where this pool has no lease there, since its queues have no conversations.
        """
        first = next(iter(self.settings.queues), None)
        return next((index for index, queue in enumerate(self.queues) if queue.name == first), None)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends for small messages between processes of the pool."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, **message: object) -> bool:
    """One message to another process of the pool; never blocks. False when it did not go."""
    try:
        sock.send(json.dumps(message).encode(), socket.MSG_DONTWAIT)
    except OSError:  # full, or nobody is there: everything that matters is on the board as well
        return False
    return True


def receive(sock: socket.socket) -> Iterator[dict[str, object]]:
    """The messages that are there now; what is none is passed over, as what did not come."""
    while True:
        try:
            data = sock.recv(MESSAGE_BYTES, socket.MSG_DONTWAIT)
        except OSError:  # nothing there
            return
        if not data:
            return
        try:
            message = json.loads(data)
        except (ValueError, RecursionError):  # a broken child's: it must not end who hears it
            continue
        if isinstance(message, dict):
            yield message
