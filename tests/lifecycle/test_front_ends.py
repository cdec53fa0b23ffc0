"""A pool's own front end: mail comes in by SMTP, whoever dies."""

from __future__ import annotations

import json
import os
import signal
import smtplib
import socket
import urllib.request
from contextlib import ExitStack
from typing import Any

import pytest

from benchmarks import processes
from tests.lifecycle.commands import maildefer
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import Pool, stopped
from tests.lifecycle.project import PATIENCE_SECONDS, Project, eventually
from tests.support import certificates

pytestmark = pytest.mark.lifecycle


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
    pool.await_event("child.started", 2, kind="intake")  # by its parent
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


def test_several_processes_take_mail_on_one_port_and_none_is_missed(fronted: Project, start: Start) -> None:
    fronted.edit("conf/settings.py", '"port": 0}', '"port": 0, "processes": 2}')
    pool = start(intake=True)
    pool.await_event("intake.listening", 2)
    pool.await_event("child.started", 2, kind="intake")
    one, other = (event["pid"] for event in pool.events("child.started", kind="intake"))
    os.kill(one, signal.SIGSTOP)  # the other has to take all of them
    try:
        for _ in range(3):
            send(pool, "quick@test")
    finally:
        os.kill(one, signal.SIGCONT)
    os.kill(other, signal.SIGSTOP)
    try:
        for _ in range(3):
            send(pool, "quick@test")
    finally:
        os.kill(other, signal.SIGCONT)
    eventually(lambda: len(fronted.notes("end")) == 6, "all of them are handled")
    assert not accepts(pool, "nobody@elsewhere.test")

    def counted() -> bool:
        [group] = pool.status()["front_end_groups"]
        return bool((group["accepted"], sum(group["refused"].values())) == (6, 1))

    eventually(counted, "they are counted")
    os.kill(other, signal.SIGKILL)
    pool.await_event("child.died", kind="intake")
    assert counted()  # also those of the dead
    assert pool.stop() == 0


def test_connections_are_bounded_for_all_processes_together_and_a_killed_ones_count_no_more(
    fronted: Project, start: Start
) -> None:
    limits = '"processes": 2, "max_connections_per_client": 4, "exempt_networks": ""}'
    fronted.edit("conf/settings.py", '"port": 0}', f'"port": 0, {limits}')
    pool = start(intake=True)
    pool.await_event("intake.listening", 2)
    pool.await_event("child.started", 2, kind="intake")
    one, other = (event["pid"] for event in pool.events("child.started", kind="intake"))
    with ExitStack() as stack:

        def greeted(source: str = "127.0.0.1") -> bytes:
            client = socket.create_connection(address(pool), timeout=60, source_address=(source, 0))
            return stack.enter_context(client).recv(512)[:4]

        for unheeding in (one, other):
            with stopped(unheeding):
                assert [greeted(), greeted()] == [b"220 "] * 2
        assert [greeted(), greeted("127.0.0.2")] == [b"421 ", b"220 "]
        shown = eventually(lambda: _shown(pool, 5), "status tells how many there are in all")
        assert sorted(shown) == [2, 3]
        os.kill(one, signal.SIGKILL)
        pool.await_event("intake.listening", 3)
        assert [greeted(), greeted(), greeted()] == [b"220 ", b"220 ", b"421 "]
    assert pool.stop() == 0


def _shown(pool: Pool, of_all: int) -> list[int]:
    """The connections of each process, once both know of so many in all."""
    found = pool.status()["front_ends"]
    known = [one for one in found if one.get("connections_of_all") == of_all]
    return [one["connections"] for one in known] if len(known) == 2 else []


def test_a_backlog_over_its_limit_is_refused_and_shown_until_it_is_gone(
    fronted: Project, start: Start
) -> None:
    fronted.edit("conf/settings.py", '"port": 0}', '"port": 0, "max_backlog": 2}')
    pool = start(intake=True)
    pool.signal(signal.SIGTSTP)
    pool.await_event("pool.paused")
    refusal = eventually(lambda: refused(pool, "quick@test"), "the front end refuses")
    assert refusal.startswith("452 4.3.1")
    [shown] = eventually(lambda: front_ends(pool, "shortages"), "status shows it")
    assert "backlog" in next(iter(shown["shortages"].values()))
    assert shown["max_backlog"] == 2
    pool.signal(signal.SIGCONT)
    eventually(lambda: not front_ends(pool, "shortages"), "it passes by itself")
    assert refused(pool, "quick@test") == ""
    assert pool.events("intake.closed")
    assert pool.events("intake.opened")
    assert pool.stop() == 0


def test_a_reload_gives_the_front_end_its_new_limits_and_policy_on_the_same_port(
    fronted: Project, start: Start
) -> None:
    (fronted.path / "conf" / "policy.py").write_text(
        "def accept(*asked):\n    return '554 5.7.1 not today'\n"
    )
    pool = start(intake=True)
    send(pool, "quick@test")
    fronted.edit(
        "conf/settings.py", '"port": 0}', '"port": 0, "max_bytes": 50000, "policy": "conf.policy.accept"}'
    )
    pool.signal(signal.SIGHUP)
    eventually(lambda: refused(pool, "quick@test") == "554 5.7.1 not today", "the policy is asked")
    with smtplib.SMTP(*address(pool), timeout=60) as client:
        client.ehlo()
        assert int(client.esmtp_features["size"]) < 50_000
    (fronted.path / "conf" / "policy.py").write_text("def accept(*asked):\n    return True\n")
    pool.signal(signal.SIGHUP)  # the policy is loaded anew, by the same process
    eventually(lambda: refused(pool, "quick@test") == "", "its new version is asked")
    pool.await_event("child.started", 2, kind="intake")
    assert len(pool.events("child.started", kind="intake")) == 2
    assert not pool.events("child.died", kind="intake")
    assert pool.stop() == 0


def test_a_front_end_that_is_to_listen_elsewhere_or_cannot_be_stays_as_it_is(
    fronted: Project, start: Start
) -> None:
    pool = start(intake=True)
    fronted.edit("conf/settings.py", '"port": 0}', '"port": 1}')
    pool.signal(signal.SIGHUP)
    pool.await_event("intake.stale")
    send(pool, "quick@test")
    assert len(pool.events("child.started", kind="intake")) == 1
    assert pool.stop() == 0


UNUSABLE = [
    ('"max_byte": 1', "max_byte means nothing"),
    ('"max_bytes": "10M"', "max_bytes: invalid number (1 or more) value: '10M'"),
    ('"max_connections": -1', "max_connections: invalid number (1 or more) value: '-1'"),
    ('"tls_certificate": "conf/nope.pem"', "conf/nope.pem can't be used"),
    ('"tls_certificate": "conf/settings.py"', "conf/settings.py can't be used"),
    ('"auth_required": True', "auth_required needs somebody to know passwords"),
    ('"policy": "conf.nope.accept"', "conf.nope"),
]


@pytest.mark.parametrize(("setting", "why"), UNUSABLE)
def test_a_reload_with_a_setting_that_no_front_end_can_use_is_refused_and_it_takes_mail(
    fronted: Project, start: Start, setting: str, why: str
) -> None:
    pool = start(intake=True)
    fronted.edit("conf/settings.py", '"port": 0}', f'"port": 0, {setting}}}')
    pool.signal(signal.SIGHUP)
    assert why in pool.await_event("application.broken")["error"]
    send(pool, "quick@test")
    eventually(lambda: fronted.notes("end"), "it is handled")
    assert len(pool.events("child.started", kind="intake")) == 1
    assert not pool.events("pool.reloading")
    assert pool.stop() == 0


@pytest.mark.parametrize(("setting", "why"), UNUSABLE[1:4])
def test_a_pool_with_a_setting_that_no_front_end_can_use_ends_with_78(
    fronted: Project, start: Start, setting: str, why: str
) -> None:
    fronted.edit("conf/settings.py", '"port": 0}', f'"port": 0, {setting}}}')
    pool = start(intake=True, ready=False)
    assert pool.wait() == os.EX_CONFIG
    assert why in pool.log()
    assert not pool.events("child.started", kind="intake")


def test_a_message_that_comes_by_http_is_handled_and_a_reload_tells_of_bad_tokens(
    project: Project, start: Start
) -> None:
    token = project.path / "tokens"
    token.write_text("a-token-that-is-long\n")
    token.chmod(0o600)
    project.edit(
        "conf/settings.py", "router_def", 'web_config = {"token_file": "tokens", "port": 0}\nrouter_def'
    )
    pool = start(intake=True)
    pool.await_event("intake.listening")
    address = pool.await_event("child.started", kind="web")["address"]
    queue = os.path.basename(pool.status()["queues"][0]["path"])
    request = urllib.request.Request(
        f"{address}/queues/{queue}?recipient=quick@test",
        b"Subject: a test\n\nHello\n",
        {"Authorization": "Bearer a-token-that-is-long"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.status == 201
    eventually(lambda: project.notes("end"), "it is handled")
    [shown] = eventually(lambda: front_ends(pool, "accepted"), "status counts it")
    assert (shown["kind"], shown["accepted"]) == ("web", 1)
    assert not pool.events("child.started", kind="intake")  # nobody asked for one
    token.write_text("a-short-token\n")
    refused = maildefer(pool, "reload")
    assert refused.returncode == os.EX_CONFIG
    assert f"{token}:1: a token of less than 16 characters" in refused.stderr
    assert pool.stop() == 0


def test_a_pool_whose_tokens_everybody_may_read_ends_with_78(project: Project, start: Start) -> None:
    token = project.path / "tokens"
    token.write_text("a-token-that-is-long\n")
    token.chmod(0o644)
    project.edit(
        "conf/settings.py", "router_def", 'web_config = {"token_file": "tokens", "port": 0}\nrouter_def'
    )
    pool = start(intake=True, ready=False)
    assert pool.wait() == os.EX_CONFIG
    assert "can be read by everybody (mode 644): chmod o=" in pool.log()


def test_a_pool_whose_front_end_has_never_come_up_for_its_settings_ends_with_78(
    fronted: Project, start: Start
) -> None:
    """Here its certificate is gone as soon as the probe has seen it."""
    certificate = certificates.make(fronted.path)
    config = f'"port": 0, "tls_certificate": "{certificate}", "policy": "conf.policy.accept"}}'
    fronted.edit("conf/settings.py", '"port": 0}', config)
    (fronted.path / "conf" / "policy.py").write_text(
        f"import pathlib\npathlib.Path({str(certificate)!r}).unlink()\n\n\ndef accept(*asked):\n    return True\n"
    )
    pool = start(intake=True, ready=False)
    assert pool.wait() == os.EX_CONFIG
    assert "can't be started with its settings" in pool.await_event("pool.draining")["reason"]
    assert certificate.name in pool.log()


def front_ends(pool: Pool, having: str) -> list[dict[str, Any]]:
    return [one for one in pool.status()["front_ends"] if one.get(having)]


def refused(pool: Pool, recipient: str) -> str:
    """The reply that refuses it; empty where it was taken."""
    try:
        send(pool, recipient)
    except smtplib.SMTPRecipientsRefused as refusal:
        code, text = refusal.recipients[recipient]
    except smtplib.SMTPResponseException as refusal:  # also 421, from one that makes way for another
        code, text = refusal.smtp_code, refusal.smtp_error  # type: ignore[assignment]
    except (OSError, smtplib.SMTPServerDisconnected) as fault:
        return str(fault)
    else:
        return ""
    return f"{code} {text.decode() if isinstance(text, bytes) else text}"


def child(pool: Pool) -> int:
    """The front end's pid, by its title."""
    return processes.by_role(pool.pid)["intake"][0]


def address(pool: Pool) -> tuple[str, int]:
    host, _, port = (
        pool.await_event("child.started", kind="intake")["address"].removeprefix("smtp://").rpartition(":")
    )
    return host, int(port)


def send(pool: Pool, recipient: str, at: tuple[str, int] | None = None) -> None:
    with smtplib.SMTP(*(at or address(pool)), timeout=PATIENCE_SECONDS) as client:
        client.sendmail("ann@example.org", [recipient], b"Subject: a test\r\n\r\nHello\r\n")


def accepts(pool: Pool, recipient: str) -> bool:
    try:
        send(pool, recipient)
    except smtplib.SMTPRecipientsRefused:
        return False
    return True
