"""Messages between supervisor, keeper and workers, as types; a process that sends what is none of these is ended.

The kernel tells which process sent it: several write to one socket, and any of them may be broken. Offers, and names
for the worker that gathers batches, are plain names: see `worker.offers` and `worker.batch_leader`. What front ends
report is in `frontend.status_report`, what the probe found in `probe`.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeVar, assert_never

from maildefer.handling.periodic.table import PeriodicTask, record_of, task_in
from maildefer.untrusted import UntrustedRecord, record_in

T = TypeVar("T")
Verb = Literal["stop", "pause", "resume", "reload"]

MESSAGE_BYTES: Final = 60_000
_MOST_AT_A_TIME: Final = 1000  # the receiver has other things to do
_MOST_CHARACTERS: Final = 4000  # of a reason
_CREDENTIALS: Final = struct.Struct("3i")  # unix(7): pid, uid, gid
_CONTROL_BYTES: Final = socket.CMSG_SPACE(_CREDENTIALS.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidMessage:
    """A datagram that is no valid message; its sender's pid, or 0 where that is not of our pid namespace."""

    pid: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLost:
    """Our lease in that queue was fenced."""

    queue: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseJoined:
    """There is a lease of ours in that queue."""

    queue: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotReclaimed:
    """Nothing is left of the dead worker in that slot."""

    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestReceived:
    """An operator has asked for that through the mount."""

    verb: Verb


@dataclass(frozen=True, slots=True, kw_only=True)
class MountRefused:
    """A mount is unsafe: the pool must not serve there."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinFailed:
    """A queue could not be joined, and is tried again."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildMisbehaved:
    """The process with that pid sent the keeper what is no message."""

    pid: int
    reason: str


FromKeeper = (
    LeaseLost | LeaseJoined | SlotReclaimed | RequestReceived | MountRefused | JoinFailed | ChildMisbehaved
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryDeferred:
    """An entry waits in that queue's `.later/`, under that name; for a limit, if `limit` is its number.

    `turn_ms`, on the boot clock, is when its turn for a rate is; 0 if it has none.
    """

    queue: int
    name: str
    limit: int = 0
    turn_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotReleased:
    """A slot of that limit, for which entries of that queue wait, is free."""

    queue: int
    limit: int


FromWorker = EntryDeferred | SlotReleased


@dataclass(frozen=True, slots=True, kw_only=True)
class ReclaimSlots:
    """A worker died: reclaim what dead workers' slots hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveLeases:
    """Leave every lease, and end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WritePidFile:
    """The leases on the scoreboard have changed: write them into the pid file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadProgress:
    """How many reloads were asked for and answered, and why the last one was refused: for the status files."""

    asked: int
    answered: int
    refused: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicTable:
    """The tasks of which calls are to be pushed into that queue by a schedule."""

    queue: int
    tasks: tuple[PeriodicTask, ...]


FromSupervisor = ReclaimSlots | LeaveLeases | WritePidFile | ReloadProgress | PeriodicTable
Message = FromKeeper | FromWorker | FromSupervisor


def pair(*, identified: bool = False) -> tuple[socket.socket, socket.socket]:
    """Make two ends for small messages between processes; `identified`: the sender's pid comes with each."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends if identified else ():
        end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return ends


def send(sock: socket.socket, message: Message) -> bool:
    """Send a message to another process of the pool, without blocking; False when it did not go."""
    try:
        sock.send(json.dumps(_record_of(message)).encode(), socket.MSG_DONTWAIT)
    except OSError:  # full, or nobody is there: everything that matters is on the scoreboard as well
        return False
    return True


def receive(
    sock: socket.socket, parse: Callable[[dict[str, object]], T | None]
) -> Iterator[T | InvalidMessage]:
    """Receive the messages that are there now; `parse` returns None for what is none."""
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
            yield InvalidMessage(pid=_sender(control), reason=f"what it said {fault}: {_shown(data)}")
            continue
        if message is None:
            yield InvalidMessage(
                pid=_sender(control), reason=f"what it said is none of its messages: {_shown(data)}"
            )
        else:
            yield message


def _record_of(message: Message) -> dict[str, object]:
    match message:
        case EntryDeferred(queue=queue, name=name, limit=limit, turn_ms=turn_ms):
            return {"queue": queue, "name": name, "limit": limit, "turn": turn_ms}
        case SlotReleased(queue=queue, limit=limit):
            return {"queue": queue, "released": limit}
        case LeaseLost(queue=queue):
            return {"fenced": queue}
        case LeaseJoined(queue=queue):
            return {"joined": queue}
        case SlotReclaimed(slot=slot):
            return {"freed": slot}
        case RequestReceived(verb=verb):
            return {"request": verb}
        case MountRefused(why=why):
            return {"refused": why}
        case JoinFailed(why=why):
            return {"trouble": why}
        case ChildMisbehaved(pid=pid, reason=reason):
            return {"overheard": pid, "reason": reason}
        case ReclaimSlots():
            return {"do": "reclaim slots"}
        case LeaveLeases():
            return {"do": "leave leases"}
        case WritePidFile():
            return {"do": "write pid file"}
        case ReloadProgress(asked=asked, answered=answered, refused=refused):
            return {"do": "note reload", "asked": asked, "answered": answered, "refused": refused}
        case PeriodicTable(queue=queue, tasks=tasks):
            return {"do": "push by schedule", "queue": queue, "tasks": list(map(record_of, tasks))}
        case _:
            assert_never(message)


def from_keeper(record: dict[str, object]) -> FromKeeper | None:
    """Parse what a keeper says to the supervisor."""
    match record:
        case {"fenced": int(queue)}:
            return LeaseLost(queue=queue)
        case {"joined": int(queue)}:
            return LeaseJoined(queue=queue)
        case {"freed": int(slot)}:
            return SlotReclaimed(slot=slot)
        case {"request": "stop" | "pause" | "resume" | "reload" as verb}:
            return RequestReceived(verb=verb)
        case {"refused": str(why)}:
            return MountRefused(why=why[:_MOST_CHARACTERS])
        case {"trouble": str(why)}:
            return JoinFailed(why=why[:_MOST_CHARACTERS])
        case {"overheard": int(pid), "reason": str(reason)} if pid > 0:
            return ChildMisbehaved(pid=pid, reason=reason[:_MOST_CHARACTERS])
    return None


def from_worker(record: dict[str, object], *, queues: int) -> FromWorker | None:
    """Parse what a worker says to the keeper of so many queues."""
    match record:
        case {"queue": int(queue), "name": str(name), "limit": int(limit), "turn": int(turn_ms)} if (
            0 <= queue < queues and _is_name(name)
        ):
            return EntryDeferred(queue=queue, name=name, limit=limit, turn_ms=turn_ms)
        case {"queue": int(queue), "released": int(limit)} if 0 <= queue < queues:
            return SlotReleased(queue=queue, limit=limit)
    return None


def from_supervisor(record: dict[str, object]) -> FromSupervisor | None:
    """Parse what the supervisor, or the process in its place, says to its keeper."""
    match record:
        case {"do": "reclaim slots"}:
            return ReclaimSlots()
        case {"do": "leave leases"}:
            return LeaveLeases()
        case {"do": "write pid file"}:
            return WritePidFile()
        case {
            "do": "note reload",
            "asked": int(asked),
            "answered": int(answered),
            "refused": str() | None as refused,
        }:
            return ReloadProgress(asked=asked, answered=answered, refused=refused)
        case {"do": "push by schedule", "queue": int(queue), "tasks": list(tasks)} if queue >= 0:
            return PeriodicTable(queue=queue, tasks=tuple(filter(None, map(task_in, tasks))))
    return None


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
