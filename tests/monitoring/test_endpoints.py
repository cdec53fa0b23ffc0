"""`/live` and `/ready`, and what else may come to that port: a real process, real sockets."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.front_end import wait_until
from tests.support.monitor import Monitor, Starter, monitoring

UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\n"
WORKING = {
    "workers": [{"state": "idle"}],
    "queues": [{"queue": "run/queue", "state": "served", "may_claim": True}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("monitor")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAILDEFER_RUNTIME_DIR", str(folder / "runtime"))
        yield folder


@pytest.fixture(scope="module")
def starter(folder: Path) -> Starter:
    return Starter(folder)


@pytest.fixture(scope="module")
def monitor(folder: Path, starter: Starter) -> Iterator[Monitor]:
    with monitoring(starter.pidfile, folder / "log") as monitor:
        yield monitor


@pytest.fixture(autouse=True)
def working(starter: Starter) -> None:
    starter.status = dict(WORKING)
    starter.silent.clear()


def soon(monitor: Monitor, path: str, status: int, words: str = "") -> str:
    """Until it says so, as an answer holds for half a second; all that it says then."""
    text = ""

    def is_said() -> bool:
        nonlocal text
        found, text = monitor.get(path)
        return found == status and words in text

    wait_until(is_said)
    return text


def test_what_works_is_live_and_ready(monitor: Monitor) -> None:
    assert soon(monitor, "/live", 200) == "live\n"
    assert soon(monitor, "/ready", 200) == "ready\n"


def test_what_is_paused_is_live_but_not_ready_and_says_why(monitor: Monitor, starter: Starter) -> None:
    starter.status = {**WORKING, "paused": True, "draining": True}
    assert soon(monitor, "/ready", 503, "paused") == "it is draining\nit is paused\n"
    soon(monitor, "/live", 200)


def test_what_has_no_keeper_is_neither(monitor: Monitor, starter: Starter) -> None:
    starter.status = {**WORKING, "keeper_silent_seconds": 99, "ttl_seconds": 45}
    assert soon(monitor, "/live", 503, "its keeper has given no sign of life for 99 s")
    assert monitor.get("/ready")[0] == 503


@pytest.mark.slow
def test_a_starter_that_does_not_answer_is_not_live(monitor: Monitor, starter: Starter) -> None:
    starter.silent.set()
    assert soon(monitor, "/live", 503, "no answer")
    starter.silent.clear()


def test_a_hundred_who_ask_at_once_are_one_question(monitor: Monitor, starter: Starter) -> None:
    soon(monitor, "/live", 200)

    def all_are_told() -> bool:
        """Not where a busy machine does not answer that one in its time."""
        before, told = starter.questions, set[bytes]()
        connections = [monitor.dial() for _ in range(90)]
        for each in connections:
            each.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for each in connections:
            told.add(each.makefile("rb").readline())
            each.close()
        assert starter.questions - before < 30
        return told == {b"HTTP/1.1 200 OK\r\n"}

    wait_until(all_are_told)


def test_more_connections_than_allowed_are_refused_and_the_others_served(monitor: Monitor) -> None:
    held = [monitor.dial() for _ in range(110)]
    last = held[-1].makefile("rb").readline()
    assert last == UNAVAILABLE
    for each in held:
        each.close()
    assert soon(monitor, "/live", 200)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/live/",
        "/../../etc/passwd",
        "/%2e%2e/%00",
        "/live?x=" + "a" * 7000,
        "//live",
        "/metrics/../live",
    ],
)
def test_a_path_that_is_none_gets_a_short_answer(monitor: Monitor, path: str) -> None:
    status, text = monitor.get(path)
    assert status in (200, 404, 503)
    assert len(text) < 300
    assert "root:" not in text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_sent(monitor: Monitor, method: str) -> None:
    with monitor.dial() as connection:
        connection.sendall(f"{method} /live HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n".encode())
        assert connection.makefile("rb").readline() == b"HTTP/1.1 405 Method Not Allowed\r\n"


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01", b"\0" * 9000, b"GET /live HTTP/9\r\n\r\n", b"HELO x\r\n", b"\xff\r\n\r\n"],
)
@pytest.mark.slow
def test_garbage_ends_its_connection_and_nothing_else(monitor: Monitor, garbage: bytes) -> None:
    with monitor.dial() as connection:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    assert not answer.startswith(b"HTTP/1.1 200")
    assert soon(monitor, "/live", 200)


def test_a_client_that_never_ends_its_request_is_shut_out(folder: Path, starter: Starter) -> None:
    with (
        monitoring(starter.pidfile, folder / "log of one in haste", "--command-seconds", "0.3") as monitor,
        monitor.dial() as connection,
    ):
        connection.sendall(b"GET /live HTTP/1.1\r\nHost:")
        assert connection.makefile("rb").readline() == b"HTTP/1.1 408 Request Timeout\r\n"


def test_it_tells_nothing_of_itself(monitor: Monitor) -> None:
    with monitor.dial() as connection:
        connection.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"\r\nServer:" not in connection.makefile("rb").read()


@pytest.mark.slow
def test_no_child_is_left_and_no_file_open(monitor: Monitor, starter: Starter) -> None:
    fds = f"/proc/{monitor.process.pid}/fd"
    soon(monitor, "/live", 200)
    before = len(os.listdir(fds))
    for _ in range(2):
        starter.silent.set()
        soon(monitor, "/live", 503)
        starter.silent.clear()
        soon(monitor, "/live", 200)
    wait_until(lambda: len(os.listdir(fds)) <= before)
    children = Path(f"/proc/{monitor.process.pid}/task/{monitor.process.pid}/children")
    wait_until(lambda: bool(soon(monitor, "/live", 200)) and len(children.read_text().split()) <= 1)


@pytest.mark.slow
def test_where_nothing_runs_it_says_so(folder: Path) -> None:
    with monitoring(str(folder / "run" / "none.pid"), folder / "log of none") as monitor:
        nothing = "nothing runs with this pid file\n"
        assert soon(monitor, "/live", 503, nothing) == nothing
        os.kill(monitor.process.pid, signal.SIGHUP)  # a reload is none of its business
        assert monitor.get("/ready")[0] == 503


@pytest.mark.slow
def test_by_ipv6_the_log_names_the_address_as_such(folder: Path) -> None:
    log = folder / "log by ipv6"
    with monitoring(str(folder / "run" / "none.pid"), log, host="::1") as monitor:
        assert f"at=http://[::1]:{monitor.port}" in log.read_text()
