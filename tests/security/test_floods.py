"""Too many, too slow, too long: what it costs, and that others are served meanwhile."""

from __future__ import annotations

import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.security.door import ENVELOPE, GREETING, Door, eventually, read_all

pytestmark = pytest.mark.lifecycle
MANY = 3_000  # docs/security.md has the figure for 10,000


@contextmanager
def crowd(door: Door, count: int, say: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections, each greeted."""
    with ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(door.connect())
            assert client.recv(512).startswith(b"220")
            if say:
                client.sendall(say)
            clients.append(client)
        yield clients


@pytest.mark.slow
def test_thousands_of_idle_connections_cost_little_and_the_others_are_served(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(MANY, hard - 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with Door(tmp_path, "--max-connections", str(count + 50)) as door:
            before = door.memory()
            with crowd(door, count, b"EHLO idle\r\n"):
                assert (door.memory() - before) / count < 16e3
                assert door.send().startswith(b"250 ")
                with crowd(door, 50), door.connect() as late:
                    assert read_all(late) == b"421 4.3.2 too many connections; try again later\r\n"
            eventually(lambda: door.send().startswith(b"250 "), "and after they have gone")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_a_descriptor_left_it_goes_on_and_takes_connections_again(tmp_path: Path) -> None:
    with Door(tmp_path, "--max-connections", "5000") as door:
        subprocess.run(["prlimit", f"--pid={door.process.pid}", "--nofile=40"], check=True)
        with ExitStack() as stack:
            first = stack.enter_context(door.connect())
            assert first.recv(512).startswith(b"220")
            for _ in range(100):
                stack.enter_context(door.connect())
            first.sendall(GREETING + ENVELOPE + b"DATA\r\nx\r\n.\r\nQUIT\r\n")
            assert b"queued as" in read_all(first)
        eventually(lambda: door.send().startswith(b"250 "), "it takes connections again")
        assert door.process.poll() is None


def test_one_clients_flood_of_connections_leaves_room_for_others(tmp_path: Path) -> None:
    share = ("--max-connections-per-client", "10", "--exempt-networks", "127.0.0.2")
    with Door(tmp_path, *share) as door, ExitStack() as stack:
        held = stack.enter_context(crowd(door, 10))
        late = stack.enter_context(door.connect())
        assert read_all(late).startswith(b"421 4.7.0 ")
        other = socket.create_connection(door.address, timeout=30, source_address=("127.0.0.2", 0))
        stack.enter_context(other).sendall(GREETING + ENVELOPE + b"DATA\r\nx\r\n.\r\nQUIT\r\n")
        assert b"queued as" in read_all(other)
        assert len(held) == 10


def test_a_flood_of_connections_that_come_and_go_leaves_nothing_behind(tmp_path: Path) -> None:
    with Door(tmp_path) as door:
        for _ in range(100):
            with door.connect():
                pass
        before = door.memory()
        for number in range(2_000):
            with door.connect() as client:
                if number % 3 == 0:
                    client.sendall(GREETING + ENVELOPE + b"DATA\r\nhalf a mess")
        eventually(lambda: door.descriptors() < 30, "all are closed")
        assert door.memory() - before < 16e6  # what 512 at a time have taken, and no more after 20,000
        assert door.send().startswith(b"250 ")
        assert [data for _, data in door.entries()] == [b"Subject: a test\n\nHello\n"]


@pytest.mark.parametrize(
    ("limits", "begin", "drip"),
    [
        (("--idle-seconds", "0.5"), b"", b""),
        (("--command-seconds", "0.5"), GREETING, b"N"),
        (("--data-seconds", "0.5"), GREETING + ENVELOPE + b"DATA\r\n", b"x\r\n"),
        (("--data-seconds", "0.5"), GREETING + ENVELOPE + b"BDAT 1000000 LAST\r\n", b"x"),
    ],
    ids=["silent", "a command by bytes", "a message by lines", "a chunk by bytes"],
)
def test_a_slow_client_has_its_time_and_no_more(
    tmp_path: Path, limits: tuple[str, ...], begin: bytes, drip: bytes
) -> None:
    with Door(tmp_path, *limits) as door:
        with door.connect() as client:
            client.sendall(begin)
            client.settimeout(0.05)
            said, deadline = b"", time.monotonic() + 30
            while b"421 4.4.2" not in said:
                assert time.monotonic() < deadline, "it is still borne with"
                try:
                    client.sendall(drip)
                    said += client.recv(4096)
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
        assert door.drafts() == []
        assert door.entries() == []
        assert door.send().startswith(b"250 ")


def test_a_client_that_does_not_read_is_not_listened_to(tmp_path: Path) -> None:
    """Commands without end, whose replies nobody takes: they must not pile up."""
    with Door(tmp_path) as door:
        before = door.memory()
        with door.connect() as client:
            client.settimeout(2)
            with pytest.raises(TimeoutError):
                client.sendall(b"NOOP\r\n" * 20_000_000)
            assert door.memory() - before < 8e6
            assert door.send().startswith(b"250 ")
