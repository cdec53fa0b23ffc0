"""Requests by HTTP that may come again: real processes, real clients, and deaths of either."""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from maildefer.maildir.layout import create_queue
from maildefer.maildir.names import due_of, first_name, pushed_at
from tests.support.front_end import ROOT, SECONDS, wait_until
from tests.support.http_front_end import ALL, MESSAGE, POSTS, Web, serving, tokens_in

pytestmark = pytest.mark.lifecycle

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
TO_TWO = "/queues/queue?sender=a@x.org&recipient=b@x.org&recipient=c@x.org"
LARGE = MESSAGE + b"x" * (3 << 20)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    return tokens_in(tmp_path)


@pytest.fixture
def start(tmp_path: Path, token_file: Path, request: pytest.FixtureRequest) -> Callable[..., Web]:
    def begin(*options: str) -> Web:
        running = serving(tmp_path, token_file, *options, log=tmp_path / f"log{os.urandom(4).hex()}")
        request.addfinalizer(lambda: running.__exit__(None, None, None))
        return running.__enter__()

    return begin


@pytest.fixture
def web(start: Callable[..., Web]) -> Web:
    return start()


def post(
    web: Web,
    body: object = MESSAGE,
    path: str = "/queues/queue",
    key: str = KEY,
    token: str = ALL,
    **headers: str,
) -> tuple[int, dict[str, Any], bool]:
    fields = {"Idempotency-Key": key, **{name.replace("_", "-"): value for name, value in headers.items()}}
    status, told, response = web.post(body, path, token, fields)
    return status, told, response.getheader("Idempotent-Replayed") == "true"


def new(web: Web, queue: str = "queue") -> list[str]:
    return sorted(os.listdir(web.folder / queue / "new"))


@pytest.mark.parametrize("body", [MESSAGE, LARGE])
@pytest.mark.parametrize("path", ["/queues/queue", TO_TWO])
def test_a_request_that_comes_again_has_the_same_answer_and_stores_nothing(
    web: Web, body: bytes, path: str
) -> None:
    first, again = post(web, body, path), post(web, body, path)
    assert first[0] == 201
    assert first[2] is False
    assert again == (*first[:2], True)
    assert new(web) == sorted(first[1]["keys"])
    assert [data for _, data in web.entries()] == [body.replace(b"\r\n", b"\r\n")] * len(first[1]["keys"])
    assert web.drafts() == []


def test_so_it_is_once_its_entry_was_handled_and_by_another_process_on_the_queue(
    web: Web, start: Callable[..., Web]
) -> None:
    first = post(web)
    for key in new(web):
        os.unlink(web.folder / "queue" / "new" / key)
    assert post(start()) == (*first[:2], True)
    assert new(web) == []


@pytest.mark.parametrize(
    "other",
    [
        {"body": MESSAGE + b"x"},
        {"body": LARGE},
        {"path": "/queues/queue?recipient=b@x.org"},
        {"path": "/queues/queue?sender=a@x.org&recipient=b@x.org"},
        {"Maildefer_After": "60"},
    ],
)
def test_another_request_with_that_key_is_a_409_which_says_so(web: Web, other: dict[str, Any]) -> None:
    first = post(web)
    status, told, _ = post(web, **other)
    assert status == 409
    assert told["detail"] == "Idempotency-Key was given with another request: make a new key for each message"
    assert post(web) == (*first[:2], True)
    assert new(web) == first[1]["keys"]
    assert web.drafts() == []


def test_a_key_is_its_tokens_and_its_queues(web: Web) -> None:
    answers = [
        post(web, path="/queues/posts"),
        post(web, path="/queues/posts", token=POSTS),
        post(web, path="/queues/queue"),
        post(web, b"another body", path="/queues/posts", token=POSTS, key="another"),
    ]
    assert [(status, again) for status, _, again in answers] == [(201, False)] * 4
    assert len({answer["key"] for _, answer, _ in answers}) == 4


@pytest.mark.parametrize("key", ["", '""', "two words", "k" * 256, "\xfc"])
def test_a_key_that_is_none_is_a_400_that_names_it(web: Web, key: str) -> None:
    status, told, _ = post(web, key=key)
    assert status == 400
    assert told["detail"].startswith("Idempotency-Key ")
    assert new(web) == []


def test_a_key_of_a_megabyte_is_a_400_and_the_next_request_is_served(web: Web) -> None:
    with web.dial() as client:
        client.sendall(
            f"POST /queues/queue HTTP/1.1\r\nHost: x\r\nIdempotency-Key: {'k' * (1 << 20)}\r\n".encode()
        )
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")
    assert post(web)[0] == 201


def test_a_quoted_key_is_the_same_key_and_who_expects_to_be_told_first_is(web: Web) -> None:
    first = post(web)
    assert post(web, key=f'"{KEY}"') == (*first[:2], True)
    status, told, _ = post(web, key="", Expect="100-continue")
    assert (status, told["detail"]) == (400, "Idempotency-Key is empty")


@pytest.mark.parametrize("body", [MESSAGE, LARGE])
def test_what_was_stored_is_told_of_while_the_queue_takes_no_more(
    start: Callable[..., Web], body: bytes
) -> None:
    web = start("--max-backlog", "1", "--buffer-bytes", str(8 << 20))
    first = post(web, body)
    assert first[0] == 201
    wait_until(lambda: web.post()[0] == 503)
    stored = new(web)
    assert post(web, body) == (*first[:2], True)
    assert post(web, body + b"x")[0] == 409
    status, told, _ = post(web, body, key="another")
    assert (status, "insufficient system storage" in told["detail"]) == (503, True)
    assert new(web) == stored
    assert web.drafts() == []


def test_a_refusal_is_not_kept(web: Web) -> None:
    assert post(web, b"")[0] == 400
    assert post(web, path="/queues/queue?recipient=")[0] == 400
    assert post(web)[::2] == (201, False)


def test_a_request_without_a_key_leaves_nothing_behind(web: Web) -> None:
    assert web.post()[0] == web.post()[0] == 201
    assert os.listdir(web.folder / "queue" / ".maildefer" / "idempotency") == []
    assert len(new(web)) == 2


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_curl_may_try_again(web: Web) -> None:
    command = [
        *("curl", "--silent", "--show-error", "--retry", "3", "--data-binary", "@-"),
        *("-H", f"Authorization: Bearer {ALL}", "-H", f"Idempotency-Key: {KEY}"),
        f"http://127.0.0.1:{web.port}/queues/queue?recipient=hello@osb.localhost",
    ]
    answers = [
        json.loads(
            subprocess.run(command, input=MESSAGE, check=True, capture_output=True, timeout=SECONDS).stdout
        )
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert new(web) == answers[0]["keys"]


def test_of_many_that_come_at_the_same_moment_to_two_processes_one_is_carried_out(
    web: Web, start: Callable[..., Web]
) -> None:
    both = web, start()
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda number: post(both[number % 2], path=TO_TWO), range(32)))
    assert {status for status, _, _ in answers} == {201}
    assert len({tuple(told["keys"]) for _, told, _ in answers}) == 1
    assert sum(not again for _, _, again in answers) == 1
    assert new(web) == sorted(answers[0][1]["keys"])
    assert web.drafts() == []


def test_the_log_tells_which_was_a_repetition_and_neither_has_the_key(web: Web) -> None:
    post(web), post(web)
    first, again = [line for line in web.log_path.read_text().splitlines() if "intake.accepted" in line]
    assert "repeated" not in first
    assert "repeated" in again
    assert KEY not in web.log_path.read_text()


# Times


def later(web: Web, queue: str = "queue") -> list[str]:
    return sorted(os.listdir(web.folder / queue / ".later" / "new"))


@pytest.mark.parametrize("body", [MESSAGE, LARGE])
@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": KEY}])
def test_a_message_waits_until_it_is_due(web: Web, body: bytes, key: dict[str, str]) -> None:
    before = time.time()
    status, told, _ = web.post(body, TO_TWO, headers={"Maildefer-After": "1h", **key})
    assert status == 201
    assert new(web) == []
    names = later(web)
    assert names == sorted(first_name(each) for each in told["keys"])
    for name in names:
        assert before + 3600 <= (due_of(name) or 0) <= time.time() + 3602
        assert pushed_at(name) == due_of(name)
    if key:
        assert web.post(body, TO_TWO, headers={"Maildefer-After": "1h", **key})[:2] == (201, told)
        assert later(web) == names


def test_a_message_waits_until_a_time_that_is_given_with_its_zone(web: Web) -> None:
    assert web.post(headers={"Maildefer-At": "2099-12-31T23:30:00+01:00"})[0] == 201
    assert [due_of(name) for name in later(web)] == [4102439400]


def test_what_is_asked_of_reports_is_kept_with_each_entry_and_refused_without_an_envelope(web: Web) -> None:
    asked = {"Maildefer-DSN": "NOTIFY=NEVER ENVID=QQ"}
    assert web.post(path="/queues/queue?recipient=a@x&recipient=b@x", headers=asked)[0] == 201
    assert {one.dsn for one, _ in web.entries() if one is not None} == {"ENVID=QQ NOTIFY=NEVER"}
    assert web.post(headers=asked)[0] == 400
    assert len(new(web)) == 2


def test_no_time_at_all_is_now(web: Web) -> None:
    assert web.post(headers={"Maildefer-After": "0"})[0] == 201
    assert (len(new(web)), later(web)) == (1, [])


@pytest.mark.parametrize("body", [MESSAGE, LARGE])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Maildefer-After", ""),
        ("Maildefer-After", "-60"),
        ("Maildefer-After", "soon"),
        ("Maildefer-After", "99999999999"),
        ("Maildefer-At", "2001-01-01T00:00:00Z"),
        ("Maildefer-At", "2101-01-01T00:00:00Z"),
        ("Maildefer-At", "9999-12-31T23:59:59-10:00"),
        ("Maildefer-At", "2099-01-01T00:00:00"),
        ("Maildefer-At", "tomorrow"),
    ],
)
@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": KEY}])
def test_a_time_that_is_none_is_a_400_that_names_its_field_and_nothing_is_stored(
    web: Web, name: str, text: str, body: bytes, key: dict[str, str]
) -> None:
    status, told, _ = web.post(body, headers={name: text, **key})
    assert status == 400
    assert told["detail"].startswith(name)
    assert new(web) == later(web) == web.drafts() == []
    assert web.post(headers=key)[0] == 201


# Deaths


class Restarted:
    """A front end that is killed again and again, its writer or itself, and started anew on the same socket."""

    def __init__(self, folder: Path, token_file: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.queue = create_queue(str(folder / "queue"))
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.command = [
            *(sys.executable, "-m", "maildefer.intake.http", "--token-file", str(token_file)),
            *("--queue", f"queue={self.queue.path}", "--socket-fd", str(self.listener.fileno())),
        ]
        self.log = (folder / "log").open("ab")
        self.kills = self.begun = 0
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._keep)

    def __enter__(self) -> Restarted:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        self.thread.join()
        self.listener.close()
        self.log.close()

    def _keep(self) -> None:
        while not self.is_over.is_set():
            self._serve_and_kill()

    def _serve_and_kill(self) -> None:
        """Kill it in the middle of its requests, once some have come."""
        process = subprocess.Popen(self.command, pass_fds=[self.listener.fileno()], stderr=self.log, cwd=ROOT)
        try:
            until = self.begun + self.random.randint(2, 12)
            wait_until(lambda: self.begun >= until or self.is_over.is_set() or process.poll() is not None)
            self.is_over.wait(self.random.random() / 50)
            os.kill(self.random.choice([process.pid, *self._writers(process.pid)]), signal.SIGKILL)
            self.kills += 1
            process.wait(SECONDS)
        finally:
            process.kill()
            process.wait(SECONDS)

    def _writers(self, pid: int) -> list[int]:
        try:
            return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except OSError:
            return []

    def post(self, key: str, body: bytes, path: str) -> list[str]:
        """Send it until it is answered, as a client does that has lost an answer."""
        deadline = time.monotonic() + 3 * SECONDS
        while True:
            assert time.monotonic() < deadline
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
                connection.request(
                    "POST", path, body, {"Authorization": f"Bearer {ALL}", "Idempotency-Key": key}
                )
                response = connection.getresponse()
                data = response.read()
                self.begun += 1
                if response.status == 201:
                    return json.loads(data)["keys"]  # type: ignore[no-any-return]
                assert response.status == 503, data
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()
            self.is_over.wait(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("requests", [int(os.environ.get("MAILDEFER_SOAK_REQUESTS", "240"))])
def test_however_often_writer_and_front_end_are_killed_there_is_one_entry_for_each_key_and_recipient(
    tmp_path: Path, token_file: Path, requests: int
) -> None:
    def ask(number: int) -> tuple[int, tuple[str, ...]]:
        key = number % 50
        body = MESSAGE + b"%d" % key + b"x" * (400_000 if key % 10 == 0 else 0)
        return key, tuple(front_end.post(f"order-{key}", body, TO_TWO))

    with Restarted(tmp_path, token_file, seed=requests) as front_end, ThreadPoolExecutor(8) as clients:
        answers = set(clients.map(ask, random.Random(7).sample(range(requests), requests)))
        kills = front_end.kills
    assert kills > requests / 50
    assert len(answers) == 50, "each key has one answer"
    told = [key for _, keys in answers for key in keys]
    assert sorted(os.listdir(front_end.queue.new)) == sorted(told)
    assert len(told) == len(set(told)) == 100
