"""What the processes of a pool say to each other: what is none of it is told with who said it, and costs no other."""

from __future__ import annotations

import array
import os
import socket as sockets
from collections.abc import Callable, Iterator
from functools import partial
from socket import socket

import pytest

from maildefer.pool.messages import (
    Asked,
    Deferred,
    Fenced,
    Nonsense,
    Overheard,
    from_keeper,
    from_worker,
    hear,
    pair,
    send,
)

Ends = tuple[socket, socket]
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
    send(theirs, request="stop")
    first, second = hear(ours, from_keeper)
    assert isinstance(first, Nonsense)
    assert first.pid == os.getpid()
    assert first.reason.startswith("what it said ")
    assert len(first.reason) < 500
    assert second == Asked(verb="stop")


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
    send(theirs, queue=1, name="1.a\udcff")
    first, second = hear(ours, of_worker)
    assert isinstance(first, Nonsense)
    assert second == Deferred(queue=1, name="1.a\udcff")


def test_the_kernel_says_who_said_it(ends: Ends) -> None:
    ours, theirs = ends
    if not (child := os.fork()):
        theirs.send(b'{"overheard": 1, "reason": "it was init"}')
        theirs.send(b"nonsense")
        os._exit(0)
    os.waitpid(child, 0)
    first, second = hear(ours, from_keeper)
    assert first == Overheard(pid=1, reason="it was init")
    assert isinstance(second, Nonsense)
    assert second.pid == child


def test_no_descriptor_comes_with_a_message(ends: Ends) -> None:
    """Else a broken child could fill the table of whoever hears it."""

    ours, theirs = ends
    before = len(os.listdir("/proc/self/fd"))
    passed = array.array("i", [0, 0, 0])
    theirs.sendmsg([b'{"fenced": 1}'], [(sockets.SOL_SOCKET, sockets.SCM_RIGHTS, passed)])
    assert list(hear(ours, from_keeper)) == [Fenced(queue=1)]
    assert len(os.listdir("/proc/self/fd")) == before


def test_whoever_talks_without_end_is_not_listened_to_without_end(ends: Ends) -> None:
    ours, theirs = ends
    parse: Callable[[dict[str, object]], object] = lambda said: send(theirs, fenced=0) or said  # noqa: E731
    send(theirs, fenced=0)
    assert len(list(hear(ours, parse))) == 1000
