"""The front end by HTTP: too many, too slow, too long, without a proxy before it."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.front_end_security import eventually, read_all
from tests.support.http_front_end import MESSAGE, Web, head, serving, tokens_in

pytestmark = pytest.mark.lifecycle
Start = Callable[..., Web]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda *options: stack.enter_context(
            serving(tmp_path, tokens_in(tmp_path), *options, log=tmp_path / "log")
        )


def descriptors(web: Web) -> int:
    return len(os.listdir(f"/proc/{web.process.pid}/fd"))


def ask(client: socket.socket) -> bytes:
    """One whole request on an open connection; its status line."""
    client.sendall(head() + b"\r\n" + MESSAGE)
    answer = b""
    while b"}" not in answer:
        answer += (piece := client.recv(4096))
        assert piece, answer
    return answer.partition(b"\r\n")[0]


def is_served(web: Web) -> bool:
    try:
        return web.post()[0] == 201
    except (OSError, http.client.HTTPException):  # hung up on
        return False


@pytest.mark.parametrize(
    ("limit", "begin", "drip", "answer"),
    [
        ("--idle-seconds=0.5", b"", b"", b""),
        ("--command-seconds=0.5", b"POST /queues/", b"q", b"408"),
        ("--command-seconds=0.5", head() + b"X-More: ", b"x", b"408"),
        ("--idle-seconds=0.5", head() + b"\r\nx", b"", b"408"),
        ("--data-seconds=0.5", head(size=10**6) + b"\r\n", b"x", b"408"),
    ],
    ids=["silent", "a request by bytes", "a header by bytes", "a pause in a body", "a body by bytes"],
)
def test_a_slow_client_of_the_http_door_has_its_time_and_no_more(
    start: Start, limit: str, begin: bytes, drip: bytes, answer: bytes
) -> None:
    web = start(limit)
    with web.dial() as client:
        client.sendall(begin)
        assert _outlasted(client, drip).startswith(b"HTTP/1.1 " + answer if answer else b"")
    assert (web.drafts(), web.entries()) == ([], [])
    eventually(lambda: is_served(web), "others are served, if they are quick enough")


def test_each_further_request_of_a_connection_has_its_time_too(start: Start) -> None:
    web = start("--command-seconds=3")  # in which a busy machine makes two whole requests
    with web.dial() as client:
        assert ask(client) == ask(client) == b"HTTP/1.1 201 Created"
        client.sendall(b"POST /queues/")
        assert _outlasted(client, b"q").startswith(b"HTTP/1.1 408")
    assert len(web.entries()) == 2


def _outlasted(client: socket.socket, drip: bytes) -> bytes:
    """What was answered to a client that goes on like that until it is hung up on."""
    client.settimeout(0.05)
    said, ended = b"", False

    def is_hung_up_on() -> bool:
        nonlocal said, ended
        try:
            if not said:
                client.sendall(drip)
            said += (piece := client.recv(4096))
            ended = not piece
        except TimeoutError:
            pass
        except ConnectionError:
            ended = True
        return ended

    eventually(is_hung_up_on, "it is borne with no longer")
    return said


def test_a_client_that_reads_no_answers_is_hung_up_on(start: Start) -> None:
    web = start("--idle-seconds=0.5")
    before = descriptors(web)
    with web.dial() as client:
        client.settimeout(1)
        with pytest.raises((TimeoutError, ConnectionError)):
            client.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000_000)
        eventually(lambda: descriptors(web) == before, "its connection is closed")
    eventually(lambda: is_served(web), "others are served, if they are quick enough")


def test_above_all_connections_there_is_a_503_until_somebody_leaves(start: Start) -> None:
    web = start("--max-connections=3")
    with ExitStack() as stack:
        held = [stack.enter_context(web.dial()) for _ in range(3)]
        eventually(lambda: _refused(web, b"503"), "there is no room for more")
        assert [ask(each) for each in held] == [b"HTTP/1.1 201 Created"] * 3
        eventually(lambda: _refused(web, b"503"), "there still is none")
        held[0].close()
        eventually(lambda: web.post()[0] == 201, "there is room again")


def _refused(web: Web, status: bytes, source: str = "127.0.0.1") -> bool:
    """Whether a new connection is refused, and told when to come again, before it says a word."""
    with web.dial(source) as client:
        client.settimeout(0.2)
        try:
            answer = read_all(client)
        except TimeoutError:  # it is let in; or the machine is slow
            return False
    assert b"\r\nRetry-After: " in answer
    return answer.startswith(b"HTTP/1.1 " + status)


def test_one_clients_flood_of_http_connections_leaves_room_for_others(start: Start) -> None:
    web = start("--max-connections-per-client=2", "--exempt-networks=127.0.0.3")
    with ExitStack() as stack:
        for source in ("127.0.0.1", "127.0.0.3"):
            for _ in range(2):
                assert ask(stack.enter_context(web.dial(source))) == b"HTTP/1.1 201 Created"
        eventually(lambda: _refused(web, b"429"), "it has its share")
        status, told, response = web.post()
        assert (status, told["status"], response.getheader("Retry-After")) == (429, 429, "30")
        assert web.post(source="127.0.0.2")[0] == 201
        assert web.post(source="127.0.0.3")[0] == 201  # one of our own


def test_without_a_descriptor_left_http_goes_on_and_tells_who_comes(start: Start) -> None:
    web = start("--max-connections", "5000", "--max-connections-per-client", "0")
    subprocess.run(["prlimit", f"--pid={web.process.pid}", "--nofile=40"], check=True)
    with ExitStack() as stack:
        first = stack.enter_context(web.dial())
        assert b" 201 " in ask(first)
        others = [stack.enter_context(web.dial()) for _ in range(60)]
        assert read_all(others[-1]).startswith(b"HTTP/1.1 503")
        assert b" 201 " in ask(first)
    eventually(lambda: web.post()[0] == 201, "it takes connections again")
    log = web.log_path.read_text()
    assert log.count("no connection can be taken: Too many open files") == 1
    assert "Traceback" not in log


def test_a_flood_of_refused_connections_leaves_nothing_behind(start: Start) -> None:
    web = start("--max-connections=1")
    before = descriptors(web)
    with ExitStack() as stack:
        assert ask(stack.enter_context(web.dial())) == b"HTTP/1.1 201 Created"
        for _ in range(300):  # more than are waited for to read their refusal
            stack.enter_context(web.dial())
        eventually(lambda: descriptors(web) == before + 1, "all others are closed")
    eventually(lambda: web.post()[0] == 201, "and the next is served")


def test_a_header_that_is_too_long_is_refused_before_its_end(start: Start) -> None:
    web = start()
    with web.dial() as client:
        client.sendall(head() + b"X: " + b"x" * 20_000)
        assert b" 400 " in read_all(client).partition(b"\r\n")[0]
    assert web.post()[0] == 201
