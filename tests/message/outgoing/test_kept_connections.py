"""Connections that are kept for the next message, to a real server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from maildefer.message.outgoing.connection import KeptConnection
from maildefer.message.outgoing.kept_connections import KeptConnections, close
from maildefer.message.outgoing.kept_relay import KeptRelay
from tests.support import next_server
from tests.support.next_server import NextServer


@pytest.fixture
def server() -> Iterator[NextServer]:
    with next_server.running() as started:
        yield started


@pytest.fixture
def kept() -> Iterator[KeptConnections]:
    made = KeptConnections(idle_seconds=60)
    yield made
    made.close_all()


def connect(server: NextServer) -> KeptConnection:
    made = KeptRelay("127.0.0.1", server.port).configure_relay("127.0.0.1")
    assert isinstance(made, KeptConnection)
    return made


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def wait_until_closed(server: NextServer) -> None:
    wait_until(lambda: server.open_now == 0)


def test_what_was_kept_is_taken_once(server: NextServer, kept: KeptConnections) -> None:
    connection = connect(server)
    kept.keep("a", connection)
    assert kept.take("b") is None
    assert kept.take("a") is connection
    assert kept.take("a") is None
    close(connection)


def test_one_that_the_server_has_closed_is_not_taken(server: NextServer, kept: KeptConnections) -> None:
    good, closed = connect(server), connect(server)
    kept.keep("a", good)
    kept.keep("a", closed)
    server.replies["NOOP"] = "421 4.4.2 idle for too long"
    closed.putcmd("noop")
    wait_until(lambda: server.open_now == 1)
    assert kept.take("a") is good
    assert kept.take("a") is None
    close(good)


def test_after_a_moment_it_is_closed(server: NextServer) -> None:
    kept = KeptConnections(idle_seconds=0.05)
    kept.keep("a", connect(server))
    wait_until_closed(server)
    assert server.lines[-1] == "quit"
    assert kept.take("a") is None


def test_after_a_hundred_messages_it_is_closed(server: NextServer, kept: KeptConnections) -> None:
    connection: KeptConnection | None = connect(server)
    messages = 0
    while connection is not None:
        kept.keep("a", connection)
        messages += 1
        connection = kept.take("a")
    assert messages == 100
    wait_until_closed(server)


def test_a_child_process_leaves_its_parents_connections_alone(
    server: NextServer, kept: KeptConnections
) -> None:
    connection = connect(server)
    kept.keep("a", connection)
    if (child := os.fork()) == 0:
        os._exit(0 if kept.take("a") is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert kept.take("a") is connection
    close(connection)
