"""What the processes of a pool say to each other: what is none of it is told with who said it, and costs no other."""

from __future__ import annotations

import array
import os
import socket as sockets
from collections.abc import Callable, Iterator
from functools import partial
from socket import socket
from typing import get_args

import pytest

from maildefer.handling.periodic.schedule import Schedule
from maildefer.handling.periodic.table import PeriodicTask
from maildefer.pool.messages import (
    ChildMisbehaved,
    EntryDeferred,
    InvalidMessage,
    JoinFailed,
    LeaseJoined,
    LeaseLost,
    LeaveLeases,
    Message,
    MountRefused,
    PeriodicTable,
    ReclaimSlots,
    ReloadProgress,
    RequestReceived,
    SlotReclaimed,
    SlotReleased,
    Verb,
    WritePidFile,
    from_keeper,
    from_supervisor,
    from_worker,
    pair,
    receive,
    send,
)

Ends = tuple[socket, socket]
HOURLY = PeriodicTask(name="workers.nightly.digest", queue="run/queue", schedule=Schedule(every_seconds=3600))
NIGHTLY = PeriodicTask(
    name="workers.nightly.backup",
    queue="run/queue",
    schedule=Schedule(cron="15 3 * * *", zone="Europe/Berlin"),
    catch_up="none",
    overlap=False,
)
of_worker = partial(from_worker, queues=2)
NOTHING = [
    b"[" * 50_000,
    b'{"a": ' * 9_000,
    b"{",
    b"7",
    b"[]",
    b"{}",
    b"\xff\xfe",
    b"",
    b"\0" * 60_000,
    b'{"request": "stop"',
]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = pair(identified=True)
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize(
    "nonsense",
    [
        *NOTHING,
        b'{"fenced": "0"}',
        b'{"fenced": NaN}',
        b'{"joined": 1' + b"0" * 400 + b"}",
        b'{"request": "format"}',
        b'{"request": ["stop"]}',
        b'{"refused": 7}',
        b'{"overheard": -1, "reason": "x"}',
        b'{"overheard": 0, "reason": "x"}',
        b'{"do": "leave"}',
    ],
)
def test_what_a_keeper_does_not_say_is_nonsense_and_costs_no_other_message(
    ends: Ends, nonsense: bytes
) -> None:
    ours, theirs = ends
    theirs.send(nonsense)
    send(theirs, RequestReceived(verb="stop"))
    first, second = receive(ours, from_keeper)
    assert isinstance(first, InvalidMessage)
    assert first.pid == os.getpid()
    assert first.reason.startswith("what it said ")
    assert len(first.reason) < 500
    assert second == RequestReceived(verb="stop")


@pytest.mark.parametrize(
    "nonsense",
    [
        *NOTHING,
        b'{"queue": -1, "name": "x"}',
        b'{"queue": 2, "name": "x"}',
        b'{"queue": 1e400, "name": "x"}',
        b'{"queue": 0, "name": ""}',
        b'{"queue": 0, "name": ".."}',
        b'{"queue": 0, "name": "../../etc/passwd"}',
        b'{"queue": 0, "name": "a\\u0000b"}',
        b'{"queue": 0, "name": ["x"]}',
    ],
)
def test_what_a_worker_does_not_say_is_nonsense(ends: Ends, nonsense: bytes) -> None:
    ours, theirs = ends
    theirs.send(nonsense)
    send(theirs, EntryDeferred(queue=1, name="1.a\udcff"))
    first, second = receive(ours, of_worker)
    assert isinstance(first, InvalidMessage)
    assert second == EntryDeferred(queue=1, name="1.a\udcff")


@pytest.mark.parametrize(
    ("parse", "message"),
    [
        (from_keeper, LeaseLost(queue=0)),
        (from_keeper, LeaseJoined(queue=1)),
        (from_keeper, SlotReclaimed(slot=3)),
        *((from_keeper, RequestReceived(verb=verb)) for verb in get_args(Verb)),
        (from_keeper, MountRefused(why="run/queue: tmpfs")),
        (from_keeper, JoinFailed(why="Stale file handle")),
        (from_keeper, ChildMisbehaved(pid=7, reason="what it said is none of its messages")),
        (of_worker, EntryDeferred(queue=1, name="1.a")),
        (of_worker, EntryDeferred(queue=1, name="1.a", limit=77, turn_ms=123_456_789)),
        (of_worker, SlotReleased(queue=1, limit=77)),
        (from_supervisor, ReclaimSlots()),
        (from_supervisor, LeaveLeases()),
        (from_supervisor, WritePidFile()),
        (from_supervisor, ReloadProgress(asked=2, answered=1, refused=None)),
        (from_supervisor, PeriodicTable(queue=1, tasks=())),
        (from_supervisor, PeriodicTable(queue=0, tasks=(HOURLY, NIGHTLY))),
        (from_supervisor, ReloadProgress(asked=2, answered=2, refused="no module named x")),
    ],
)
def test_every_message_is_received_as_it_was_sent(
    ends: Ends, parse: Callable[[dict[str, object]], Message | None], message: Message
) -> None:
    ours, theirs = ends
    assert send(theirs, message)
    assert list(receive(ours, parse)) == [message]


def test_every_kind_of_message_is_sent_in_the_test_above() -> None:
    [mark] = [
        mark
        for mark in test_every_message_is_received_as_it_was_sent.pytestmark  # type: ignore[attr-defined]
        if mark.name == "parametrize"
    ]
    assert {type(message) for _, message in mark.args[1]} == set(get_args(Message))


def test_the_kernel_says_who_said_it(ends: Ends) -> None:
    ours, theirs = ends
    if not (child := os.fork()):
        theirs.send(b'{"overheard": 1, "reason": "it was init"}')
        theirs.send(b"nonsense")
        os._exit(0)
    os.waitpid(child, 0)
    first, second = receive(ours, from_keeper)
    assert first == ChildMisbehaved(pid=1, reason="it was init")
    assert isinstance(second, InvalidMessage)
    assert second.pid == child


def test_no_descriptor_comes_with_a_message(ends: Ends) -> None:
    """Else a broken child could fill the table of whoever hears it."""

    ours, theirs = ends
    before = len(os.listdir("/proc/self/fd"))
    passed = array.array("i", [0, 0, 0])
    theirs.sendmsg([b'{"fenced": 1}'], [(sockets.SOL_SOCKET, sockets.SCM_RIGHTS, passed)])
    assert list(receive(ours, from_keeper)) == [LeaseLost(queue=1)]
    assert len(os.listdir("/proc/self/fd")) == before


def test_whoever_talks_without_end_is_not_listened_to_without_end(ends: Ends) -> None:
    ours, theirs = ends
    parse: Callable[[dict[str, object]], object] = lambda said: send(theirs, LeaseLost(queue=0)) or said  # noqa: E731
    send(theirs, LeaseLost(queue=0))
    assert len(list(receive(ours, parse))) == 1000
