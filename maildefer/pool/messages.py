"""What the processes of a pool say to each other, as types; what is none of these costs whoever said it.

The kernel tells who that was: several processes write to one socket, and any of them may be broken.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from maildefer.untrusted import UntrustedRecord, record_in

T = TypeVar("T")
Verb = Literal["stop", "pause", "resume", "reload"]

MESSAGE_BYTES: Final = 60_000
_MOST_AT_A_TIME: Final = 1000  # who hears has other things to do
_MOST_CHARACTERS: Final = 4000  # of a reason
_CREDENTIALS: Final = struct.Struct("3i")  # unix(7): pid, uid, gid
_CONTROL_BYTES: Final = socket.CMSG_SPACE(_CREDENTIALS.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nonsense:
    """Something that is no message; its sender's pid, or 0 where that is not of our pid namespace."""

    pid: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fenced:
    """Our lease in that queue was ended."""

    queue: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """There is a lease of ours in that queue."""

    queue: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """Nothing is left of the dead worker in that slot."""

    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """An operator has asked for that through the mount."""

    verb: Verb


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A mount is unsafe: the pool is not to serve there."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What keeps the pool from a queue."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overheard:
    """A process of the pool, with that pid, told the keeper nonsense."""

    pid: int
    reason: str


FromKeeper = Fenced | Joined | Freed | Asked | Refused | Trouble | Overheard


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred:
    """An entry waits in that queue's `.later/`, under that name."""

    queue: int
    name: str


def pair(*, identified: bool = False) -> tuple[socket.socket, socket.socket]:
    """Two ends for small messages between processes of the pool; `identified`: who said one is told with it."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends if identified else ():
        end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return ends


def send(sock: socket.socket, **message: object) -> bool:
    """One message to another process of the pool; never blocks. False when it did not go."""
    try:
        sock.send(json.dumps(message).encode(), socket.MSG_DONTWAIT)
    except OSError:  # full, or nobody is there: everything that matters is on the board as well
        return False
    return True


def hear(sock: socket.socket, parse: Callable[[dict[str, object]], T | None]) -> Iterator[T | Nonsense]:
    """The messages that are there now; `parse` returns None for what is none."""
    for _ in range(_MOST_AT_A_TIME):
        try:
            data, control, _, _ = sock.recvmsg(MESSAGE_BYTES, _CONTROL_BYTES, socket.MSG_DONTWAIT)
        except OSError:  # nothing there
            return
        if not data and not control:  # the end; an empty message has its sender
            return
        try:
            message = parse(record_in(data))
        except UntrustedRecord as fault:
            yield Nonsense(pid=_sender(control), reason=f"what it said {fault}: {_shown(data)}")
            continue
        if message is None:
            yield Nonsense(
                pid=_sender(control), reason=f"what it said is none of its messages: {_shown(data)}"
            )
        else:
            yield message


def from_keeper(said: dict[str, object]) -> FromKeeper | None:
    """What a keeper says to the supervisor."""
    match said:
        case {"fenced": int(queue)}:
            return Fenced(queue=queue)
        case {"joined": int(queue)}:
            return Joined(queue=queue)
        case {"freed": int(slot)}:
            return Freed(slot=slot)
        case {"request": "stop" | "pause" | "resume" | "reload" as verb}:
            return Asked(verb=verb)
        case {"refused": str(why)}:
            return Refused(why=why[:_MOST_CHARACTERS])
        case {"trouble": str(why)}:
            return Trouble(why=why[:_MOST_CHARACTERS])
        case {"overheard": int(pid), "reason": str(reason)} if pid > 0:
            return Overheard(pid=pid, reason=reason[:_MOST_CHARACTERS])
    return None


def from_worker(said: dict[str, object], *, queues: int) -> Deferred | None:
    """What a worker says to the keeper of so many queues."""
    match said:
        case {"queue": int(queue), "name": str(name)} if 0 <= queue < queues and _is_name(name):
            return Deferred(queue=queue, name=name)
    return None


def from_supervisor(said: dict[str, object]) -> dict[str, object] | None:
    """What the supervisor says to the keeper, whom nothing separates from it."""
    return said if "do" in said else None


def _is_name(name: str) -> bool:
    return bool(name) and "/" not in name and "\0" not in name and name not in (os.curdir, os.pardir)


def _sender(control: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid: int = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0]
            return pid
    return 0


def _shown(data: bytes) -> str:
    return f"{data[:60]!r}"
