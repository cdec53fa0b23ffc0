from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from maildefer.host.systemd import Notifier

Make = Callable[[dict[str, str]], Notifier]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Notifier] = []

    def _make(environ: dict[str, str]) -> Notifier:
        made.append(Notifier(environ))
        return made[-1]

    yield _make
    for notifier in made:
        notifier.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    name = f"@maildefer-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0") if request.param == "abstract" else name)
        sock.settimeout(60)
        yield sock, name


def test_states_reach_the_manager_by_path_and_by_abstract_name(
    manager: tuple[socket.socket, str], make: Make
) -> None:
    sock, name = manager
    notifier = make({"NOTIFY_SOCKET": name})
    assert notifier.enabled
    assert notifier.ready("8 workers\nidle")
    assert notifier.stopping()
    assert notifier.watchdog()
    assert notifier.reloading()
    assert sock.recv(999) == b"READY=1\nSTATUS=8 workers idle"
    assert sock.recv(999) == b"STOPPING=1"
    assert sock.recv(999) == b"WATCHDOG=1"
    reloading = sock.recv(999).split(b"\nMONOTONIC_USEC=")
    assert reloading[0] == b"RELOADING=1"
    assert int(reloading[1]) > 0


def test_the_same_status_is_sent_once(manager: tuple[socket.socket, str], make: Make) -> None:
    sock, name = manager
    notifier = make({"NOTIFY_SOCKET": name})
    for text in ("idle", "idle", "busy"):
        assert notifier.status(text)
    assert [sock.recv(99), sock.recv(99)] == [b"STATUS=idle", b"STATUS=busy"]


def test_without_a_manager_nothing_is_sent(make: Make) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"WATCHDOG_USEC": "1000000"}):
        notifier = make(environ)
        assert not notifier.enabled
        assert not notifier.ready()


def test_a_vanished_manager_raises_nothing(tmp_path: Path, make: Make) -> None:
    notifier = make({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert not notifier.ready()
    assert not notifier.status("idle")


def test_a_manager_that_does_not_read_blocks_nobody(manager: tuple[socket.socket, str], make: Make) -> None:
    _, name = manager
    notifier = make({"NOTIFY_SOCKET": name})
    sent = 0
    while notifier.watchdog():
        sent += 1
        assert sent < 1_000_000, "the socket never fills"
    assert not notifier.status("idle")
