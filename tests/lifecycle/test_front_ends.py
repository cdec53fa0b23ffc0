"""A pool's own front end: mail comes in by SMTP, whoever dies."""

from __future__ import annotations

import json
import os
import signal
import smtplib

import pytest

from benchmarks import processes
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import Project, eventually

pytestmark = pytest.mark.lifecycle


@pytest.fixture
def fronted(project: Project) -> Project:
    project.edit(
        "conf/settings.py", "router_def", 'receiver_config = {"host": "127.0.0.1", "port": 0}\nrouter_def'
    )
    return project


def test_mail_that_comes_in_by_smtp_is_handled(fronted: Project, start: Start) -> None:
    pool = start(intake=True)
    send(pool, "quick@test")
    eventually(lambda: fronted.notes("end"), "it is handled")
    eventually(fronted.is_empty, "and acked")
    assert pool.stop() == 0


def test_a_killed_front_end_is_replaced_on_the_same_port(fronted: Project, start: Start) -> None:
    pool = start(intake=True)
    pool.await_event("intake.listening")
    os.kill(pool.child("intake"), signal.SIGKILL)
    send(pool, "quick@test")  # the socket is the supervisor's, so that no connection is refused meanwhile
    pool.await_event("intake.listening", 2)
    first, second = pool.events("child.started", kind="intake")
    assert first["address"] == second["address"]
    eventually(lambda: fronted.notes("end"), "it is handled")


def test_a_reload_shows_the_front_end_new_routes(fronted: Project, start: Start) -> None:
    pool = start(intake=True)
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(pool, "new.recipient@test")
    fronted.edit("workers/front.py", '@route("(what)', '@route("new.recipient@test")\n@route("(what)')
    fronted.edit("workers/front.py", "what: str, argument: str)", 'what: str = "quick", argument: str = "")')
    pool.signal(signal.SIGHUP)
    eventually(lambda: accepts(pool, "new.recipient@test"), "the new route is known in front")
    eventually(lambda: fronted.notes("end"), "and behind")


def test_a_front_end_writes_to_the_pools_log_in_its_format_and_reopens_it(
    fronted: Project, start: Start
) -> None:
    log = fronted.path / "pool.log"
    pool = start(intake=True, log_file=str(log))
    pool.log_path = log
    pool.await_event("intake.listening")
    log.rename(fronted.path / "pool.log.1")
    pool.signal(signal.SIGUSR1)
    eventually(log.exists, "a new log")
    pool.log_path = fronted.path / "pool.log.1"
    port = address(pool)
    pool.log_path = log
    eventually(lambda: log.samefile(f"/proc/{child(pool)}/fd/2"), "the front end writes to it")
    send(pool, "quick@test", port)
    pool.await_event("intake.accepted")
    assert pool.stop() == 0
    assert all(isinstance(json.loads(line), dict) for line in log.read_text().splitlines())


def child(pool: Pool) -> int:
    """The front end's pid, by its title."""
    return processes.by_role(pool.pid)["intake"][0]


def address(pool: Pool) -> tuple[str, int]:
    host, _, port = (
        pool.await_event("child.started", kind="intake")["address"].removeprefix("smtp://").rpartition(":")
    )
    return host, int(port)


def send(pool: Pool, recipient: str, at: tuple[str, int] | None = None) -> None:
    with smtplib.SMTP(*(at or address(pool)), timeout=15) as client:
        client.sendmail("ann@example.org", [recipient], b"Subject: a test\r\n\r\nHello\r\n")


def accepts(pool: Pool, recipient: str) -> bool:
    try:
        send(pool, recipient)
    except smtplib.SMTPRecipientsRefused:
        return False
    return True
