"""Requests by HTTP that may come again, to a queue that a front end of another user shares."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from maildefer.maildir.idempotency.expire import KEPT_SECONDS, Expirer
from maildefer.maildir.layout import Layout, mend
from maildefer.maildir.names import due_of
from tests.security.test_rights import front_end as front_end
from tests.security.test_rights import place as place
from tests.security.test_rights import queue as queue
from tests.security.test_rights import told, tree
from tests.security.test_rights import users as users
from tests.support.front_end import ROOT, SECONDS, wait_until
from tests.support.http_front_end import ALL, MESSAGE, tokens_in
from tests.support.other_users import Accounts, become

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="only root can make users"), pytest.mark.lifecycle]


@contextmanager
def serving(place: Path, queue: Layout, users: Accounts) -> Iterator[int]:
    """A front end that has become its user; yields its port."""
    log = place / "log"
    token_file = place / "tokens"
    if not token_file.exists():
        tokens_in(place)
    os.chown(token_file, users.front.pw_uid, users.gid)
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as stderr:
        command = [
            *(sys.executable, "-m", "maildefer.intake.http", "--token-file", str(token_file)),
            *("--queue", f"queue={queue.path}", "--socket-fd", str(listener.fileno())),
            *("--user", users.front.pw_name, "--group", users.group),
        ]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()], stderr=stderr, cwd=ROOT)
        try:
            wait_until(lambda: b"intake.listening" in log.read_bytes() or process.poll() is not None)
            yield listener.getsockname()[1]
        finally:
            process.terminate()
            process.wait(SECONDS)


def post(port: int, body: bytes = MESSAGE, **headers: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    fields = {"Authorization": f"Bearer {ALL}", "Idempotency-Key": "order-17"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", "/queues/queue?recipient=a@x.org&recipient=b@x.org", body, fields)
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


def markers(queue: Layout) -> list[Path]:
    return list(Path(f"{queue.control}/idempotency").glob("*/*"))


def test_a_front_end_of_another_user_keeps_answers_and_the_workers_user_removes_them(
    place: Path, queue: Layout, users: Accounts
) -> None:
    before = set(os.listdir(queue.new))
    with serving(place, queue, users) as port:
        first = post(port)
        assert first[0] == 201, (place / "log").read_text()
        assert post(port) == first
        assert post(port, b"another")[0] == 409
    with serving(place, queue, users) as port:
        assert post(port) == first
    assert set(os.listdir(queue.new)) - before == set(first[1]["keys"])
    (marker,) = markers(queue)
    owners = (users.front.pw_uid, users.gid)
    assert {facts[1:] for facts in tree(str(marker.parent)).values()} == {owners}
    os.utime(marker, (0, 0))
    assert (
        become(users.worker, lambda: [Expirer(queue).expire(KEPT_SECONDS + 1) for _ in range(9)].count(1))
        == 1
    )
    assert markers(queue) == []
    assert os.listdir(queue.tmp) == []


def test_it_puts_off_what_is_not_due_where_it_may_write(place: Path, queue: Layout, users: Accounts) -> None:
    before = set(os.listdir(queue.new))
    with serving(place, queue, users) as port:
        first = post(port, Maildefer_After="1h")
        assert first[0] == 201, (place / "log").read_text()
        assert post(port, Maildefer_After="1h") == first
    names = set(os.listdir(queue.new)) - before
    assert len(names) == 2
    assert all((due_of(name) or 0) > 0 for name in names)
    assert os.listdir(queue.later_new) == []


@pytest.mark.parametrize("below", [("00",), ("00", "0" * 32)])
def test_what_a_broken_front_end_puts_there_reaches_nothing_else(
    place: Path, queue: Layout, users: Accounts, below: tuple[str, ...]
) -> None:
    """It may forge, lose and refuse its own answers."""
    with pytest.raises(PermissionError):
        become(users.front, lambda: os.rename(f"{queue.control}/idempotency", f"{queue.control}/other"))
    precious = place / "precious"
    marker = precious / ("0" * 32)
    marker.mkdir(parents=True)
    (marker / ("f" * 32)).write_text("precious")
    os.utime(marker, (0, 0))
    for folder in (precious, marker):
        folder.chmod(0o777)
    link = Path(f"{queue.control}/idempotency", *below)

    def plant() -> None:
        if len(below) > 1:
            link.parent.mkdir()
        link.symlink_to(marker if len(below) > 1 else precious)

    become(users.front, plant)
    become(users.worker, lambda: [Expirer(queue).expire(KEPT_SECONDS * 9) for _ in range(9)].count(0))
    assert (marker / ("f" * 32)).read_text() == "precious"


def test_the_folder_of_answers_is_for_the_front_ends_group_to_put_in(queue: Layout, users: Accounts) -> None:
    assert tree(queue.path)[".maildefer/idempotency"] == (0o3770, users.worker.pw_uid, users.gid)


def test_the_doctor_tries_whether_it_may_keep_answers(queue: Layout, users: Accounts) -> None:
    (finding,) = told(queue, users)
    assert finding.verdict == "ok"
    os.chmod(f"{queue.control}/idempotency", 0o2700)
    (finding,) = told(queue, users)
    assert (finding.verdict, "leave answers in .maildefer/idempotency/" in finding.fact) == ("refuse", True)
    subprocess.run(finding.remedy, shell=True, check=True)
    (finding,) = told(queue, users)
    assert finding.verdict == "ok"


def test_a_queue_that_was_shared_before_there_were_answers_gets_their_folder(
    place: Path, queue: Layout, users: Accounts
) -> None:
    os.rmdir(f"{queue.control}/idempotency")
    with serving(place, queue, users) as port:
        status, problem = post(port)
        assert status == 503, problem
        assert post(port, Idempotency_Key="a b")[0] == 400
    assert become(users.worker, lambda: mend(queue))  # as a keeper does once a minute
    assert tree(queue.path)[".maildefer/idempotency"] == (0o3770, users.worker.pw_uid, users.gid)
    with serving(place, queue, users) as port:
        assert post(port)[0] == 201
