"""Too many, too slow, too long: what it costs, and that others are served meanwhile."""

from __future__ import annotations

import resource
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.conftest import SECTION
from tests.support.front_end_security import (
    ENVELOPE,
    GREETING,
    PATIENCE_SECONDS,
    AttackedFrontEnd,
    eventually,
    read_all,
)

pytestmark = pytest.mark.lifecycle
MANY = 10_000
MOST_BYTES = 6_000  # for an idle connection, as docs/security.md says


@contextmanager
def crowd(attacked: AttackedFrontEnd, count: int, say: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections, each greeted."""
    with ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(attacked.connect())
            assert client.recv(512).startswith(b"220")
            if say:
                client.sendall(say)
            clients.append(client)
        yield clients


@pytest.fixture
def room_for_many() -> Iterator[None]:
    """As many descriptors as a crowd takes at the clients' end, which is here."""
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = MANY + 1_000
    try:
        if hard < needed:  # root may
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, needed))
    except (OSError, ValueError):
        pytest.skip(f"{needed} descriptors are needed, and {hard} allowed: ulimit -Hn")
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, max(hard, needed)))
    if hard < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def allow_here(count: int) -> None:
    """Not for the front end, which has been started by now."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


@pytest.mark.slow
@pytest.mark.usefixtures("room_for_many")
def test_ten_thousand_idle_connections_cost_little_and_the_others_are_served(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    allow_here(1024)  # as a process mostly has it: the front end is to allow itself more
    with AttackedFrontEnd(tmp_path, "--max-connections", str(MANY + 50)) as attacked:
        allow_here(MANY + 1_000)
        before = attacked.memory()
        with crowd(attacked, MANY, b"EHLO idle\r\n"):
            each = (attacked.memory() - before) / MANY
            figures = f"{each:.0f} bytes each, {attacked.memory() / 1e6:.0f} MB in all"
            record_property(SECTION, f"{MANY} idle connections to one front end\n{figures}")
            assert each < MOST_BYTES
            assert attacked.send().startswith(b"250 ")
            with crowd(attacked, 50), attacked.connect() as late:
                assert read_all(late) == b"421 4.3.2 too many connections; try again later\r\n"
        eventually(lambda: attacked.send().startswith(b"250 "), "and after they have gone")
        assert "intake.cramped" not in attacked.log()


def test_a_front_end_that_may_not_have_so_many_descriptors_says_so(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with AttackedFrontEnd(tmp_path, "--max-connections", str(hard)) as attacked:
        assert "intake.cramped" in attacked.log()
        assert attacked.send().startswith(b"250 ")


def test_without_a_descriptor_left_it_goes_on_tells_who_comes_and_takes_connections_again(
    tmp_path: Path,
) -> None:
    with AttackedFrontEnd(tmp_path, "--max-connections", "5000") as attacked:
        subprocess.run(["prlimit", f"--pid={attacked.process.pid}", "--nofile=40"], check=True)
        with ExitStack() as stack:
            first = stack.enter_context(attacked.connect())
            assert first.recv(512).startswith(b"220")
            others = [stack.enter_context(attacked.connect()) for _ in range(100)]
            greetings = [other.recv(512)[:4] for other in others]
            assert set(greetings) == {b"220 ", b"421 "}
            assert greetings[-1] == b"421 "
            first.sendall(GREETING + ENVELOPE + b"DATA\r\nx\r\n.\r\nQUIT\r\n")
            assert b"queued as" in read_all(first)
        eventually(lambda: attacked.send().startswith(b"250 "), "it takes connections again")
        assert attacked.process.poll() is None
        assert attacked.log().count("no connection can be taken: Too many open files") == 1
        assert "Traceback" not in attacked.log()


def test_one_clients_flood_of_connections_leaves_room_for_others(tmp_path: Path) -> None:
    share = ("--max-connections-per-client", "10", "--exempt-networks", "127.0.0.2")
    with AttackedFrontEnd(tmp_path, *share) as attacked, ExitStack() as stack:
        held = stack.enter_context(crowd(attacked, 10))
        late = stack.enter_context(attacked.connect())
        assert read_all(late).startswith(b"421 4.7.0 ")
        other = socket.create_connection(attacked.address, timeout=30, source_address=("127.0.0.2", 0))
        stack.enter_context(other).sendall(GREETING + ENVELOPE + b"DATA\r\nx\r\n.\r\nQUIT\r\n")
        assert b"queued as" in read_all(other)
        assert len(held) == 10


def test_a_flood_of_connections_that_come_and_go_leaves_nothing_behind(tmp_path: Path) -> None:
    with AttackedFrontEnd(tmp_path) as attacked:
        for _ in range(100):
            with attacked.connect():
                pass
        before = attacked.memory()
        for number in range(2_000):
            with attacked.connect() as client:
                if number % 3 == 0:
                    client.sendall(GREETING + ENVELOPE + b"DATA\r\nhalf a mess")
        eventually(lambda: attacked.descriptors() < 30, "all are closed")
        assert attacked.memory() - before < 16e6  # what 512 at a time have taken, and no more after 20,000
        assert attacked.send().startswith(b"250 ")
        assert [data for _, data in attacked.entries()] == [b"Subject: a test\n\nHello\n"]


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
    with AttackedFrontEnd(tmp_path, *limits) as attacked:
        with attacked.connect() as client:
            client.sendall(begin)
            client.settimeout(0.05)
            said, deadline = b"", time.monotonic() + PATIENCE_SECONDS
            while b"421 4.4.2" not in said:
                assert time.monotonic() < deadline, "it is still borne with"
                try:
                    client.sendall(drip)
                    said += client.recv(4096)
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
        assert attacked.drafts() == []
        assert attacked.entries() == []
        mail = GREETING + ENVELOPE + b"DATA\r\nx\r\n.\r\n"
        eventually(
            lambda: b"queued as" in attacked.speak(mail), "others are served, if they are quick enough"
        )


def test_a_client_that_does_not_read_is_not_listened_to(tmp_path: Path) -> None:
    """Commands without end, whose replies nobody takes: they must not pile up."""
    with AttackedFrontEnd(tmp_path) as attacked:
        before = attacked.memory()
        with attacked.connect() as client:
            client.settimeout(2)
            with pytest.raises(TimeoutError):
                client.sendall(b"NOOP\r\n" * 20_000_000)
            assert attacked.memory() - before < 8e6
            assert attacked.send().startswith(b"250 ")
