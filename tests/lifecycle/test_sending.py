"""A pool that sends what is in its outgoing queue to Exim, Postfix and Dovecot."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from benchmarks.ports import free_port
from maildefer.maildir.operator import schedule
from maildefer.maildir.push import Pusher
from maildefer.maildir.reasons import read_reason
from maildefer.message.envelope import Envelope, block
from tests.lifecycle.commands import maildefer
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import APPLICATION, Project, eventually
from tests.support import dovecot, exim, next_server, postfix
from tests.support.front_end import stored
from tests.support.next_server import RealServer
from tests.support.other_users import give_to_nobody

pytestmark = [pytest.mark.lifecycle, pytest.mark.slow, pytest.mark.xdist_group("sending")]
MESSAGE = b"From: ann@s.example\nSubject: hello\n\n.It works.\n"
# Whoever is slow waits until the test takes a file away.
SLOW = """\
  warn local_parts = ^slow
       condition = ${run{/bin/sh -c "while [ -e {home}/spool/gate ]; do sleep 0.02; done"}{yes}{no}}
"""
UNKNOWN = "/^unknown/ 550 5.1.1 no such user\n/^late/ 450 4.2.0 come again\n"
LEAVES = "/^leaves/ 421 4.3.2 going down\n"
REFUSED_PORT = free_port()


@pytest.fixture(scope="module")
def an_exim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    with exim.delaying(tmp_path_factory.mktemp("certificates"), SLOW) as server:
        yield server


@pytest.fixture(scope="module")
def a_postfix() -> Iterator[RealServer]:
    with postfix.broken_tls(UNKNOWN, LEAVES) as server:
        yield server


@pytest.fixture(scope="module")
def a_dovecot() -> Iterator[dovecot.Dovecot]:
    with dovecot.home() as home:
        (home / "kept").mkdir()
        give_to_nobody(home / "kept")
        (home / "users").write_text("".join(f"{name}@dovecot.example::::::\n" for name in ("ann", "bob")))
        with dovecot.running(home, dovecot.KNOWN_USERS) as server:
            yield server


class Sending:
    """The pool, and what becomes of what is pushed into its outgoing queue."""

    def __init__(self, project: Project, pool: Pool) -> None:
        self.project, self.pool = project, pool

    def push(self, *recipients: str, dsn: str = "", sender: str = "ann@s.example") -> list[str]:
        def composed(to: str):
            return lambda stem: [
                block(stem, sender, to, host="test", when=time.time(), via="push", dsn=dsn),
                MESSAGE,
            ]

        return Pusher(self.project.queue, host="test").push_together([composed(to) for to in recipients])

    def is_done(self, key: str) -> bool:
        folders = ("new", "cur", "later_new", "dead_new")
        return not any(entry.key == key for folder in folders for entry in self.project.names(folder))

    def arrives(self, server: RealServer, recipient: str, key: str) -> None:
        eventually(lambda: self.is_done(key), f"{recipient} has it: {self.pool.log_path}")
        eventually(lambda: server.copies(recipient), f"{recipient} has it in the mailbox")
        assert server.copies(recipient) == 1

    def deferred(self, key: str, outcome: str = "deferred") -> str:
        """Why it is tried again later."""
        event = self.pool.await_event("attempt.ended", key=key)
        assert event["outcome"] == outcome, event
        eventually(partial(self.waits, key), "it waits")
        return str(event["reason"])

    def waits(self, key: str) -> bool:
        return any(entry.key == key for entry in self.project.names("later_new"))

    def is_down(self, key: str) -> str:
        """Why it waits, uncharged, until its destination has answered."""
        return self.deferred(key, "postponed")

    def again(self, key: str) -> None:
        schedule.reschedule(self.project.queue, key, None, host="test")

    def shown(self, destination: str) -> dict[str, Any]:
        """What `maildefer outgoing` tells of it."""
        told = maildefer(self.pool, "outgoing", "--json").stdout
        [row] = [row for row in map(json.loads, told.splitlines()) if row["destination"] == destination]
        return row

    def buried(self, key: str) -> str:
        """Why it is a dead letter."""
        [entry] = eventually(
            lambda: [entry for entry in self.project.names("dead_new") if entry.key == key], "it is buried"
        )
        return str(read_reason(self.project.queue, entry)["reason"])


@pytest.fixture(scope="module")
def sending(
    tmp_path_factory: pytest.TempPathFactory,
    an_exim: RealServer,
    a_postfix: RealServer,
    a_dovecot: dovecot.Dovecot,
) -> Iterator[Sending]:
    to_exim, to_postfix = (
        {"host": "localhost", "port": server.port, "tls": "opportunistic"} for server in (an_exim, a_postfix)
    )
    config = {
        "host": "127.0.0.1",
        "destinations": {
            "exim.example": to_exim,
            "reports.example": to_exim | {"connections": 1},  # so that none is kept, nor what it offers
            "verified.example": to_exim | {"tls": "verified"},
            "postfix.example": to_postfix,
            "required.example": to_postfix | {"tls": "required"},
            "refused.example": {"host": "127.0.0.1", "port": REFUSED_PORT},
            "dovecot.example": {"host": a_dovecot.socket, "lmtp": True},
        },
    }
    path = tmp_path_factory.mktemp("sending")
    project = Project(path, APPLICATION.parent / "delivering", queues=("run/outgoing",))
    pool = Pool(project, workers=1, environ={"OUTGOING": json.dumps(config)})
    try:
        pool.start().await_ready()
        yield Sending(project, pool)
        assert pool.stop() == 0
    finally:
        if pool.process is not None and pool.process.poll() is None:
            pool.kill_tree()


@pytest.mark.parametrize("which", ["exim", "postfix"])
def test_of_three_recipients_one_is_refused_for_good_and_two_have_it(
    sending: Sending, request: pytest.FixtureRequest, which: str
) -> None:
    server = request.getfixturevalue(f"a{'n' if which == 'exim' else ''}_{which}")
    recipients = [f"{name}@{which}.example" for name in ("bob", "unknown", "Carl")]
    bob, unknown, carl = sending.push(*recipients)
    sending.arrives(server, recipients[0], bob)
    sending.arrives(server, recipients[2], carl)
    assert re.search(r"550 .*no such user", sending.buried(unknown))
    assert server.copies(recipients[1]) == 0
    assert b"\n.It works." in b"".join(server.messages()).replace(b"\r", b"")


def test_what_is_greylisted_is_taken_at_the_next_attempt(sending: Sending, an_exim: RealServer) -> None:
    grey, bob = sending.push("grey-bob@exim.example", "bob-beside-grey@exim.example")
    assert "451 greylisted, please try again" in sending.deferred(grey)
    sending.arrives(an_exim, "bob-beside-grey@exim.example", bob)
    assert "451 greylisted, please try again" in sending.shown("exim.example")["last_words"]
    sending.again(grey)
    sending.arrives(an_exim, "grey-bob@exim.example", grey)


def test_a_destination_that_is_down_is_tried_by_one_message_until_it_is_there(sending: Sending) -> None:
    [first] = sending.push("bob@refused.example")
    assert "refused" in sending.is_down(first)
    closed = sending.pool.await_event("destination.closed", destination="refused.example")
    assert "Connection refused (127.0.0.1)" in closed["error"]
    others = sending.push(*(f"user{number}@refused.example" for number in range(10)))
    eventually(lambda: len(sending.project.names("later_new")) >= 11, "all wait")
    assert not [one for one in sending.pool.events("attempt.ended") if one["key"] in others], "unseen by it"
    shown = sending.shown("refused.example")
    assert (shown["waiting"], shown["failures"]) == (11, 1)
    with next_server.running(port=REFUSED_PORT) as server:
        assert maildefer(sending.pool, "outgoing", "--retry", "refused.example").returncode == 0
        for number, key in enumerate(others):
            eventually(partial(sending.is_done, key), "it is sent")
            assert server.copies(f"user{number}@refused.example") == 1
        eventually(lambda: sending.is_done(first), "and the first one")
    sending.pool.await_event("destination.opened", destination="refused.example")


def test_a_certificate_of_another_name_keeps_what_is_to_be_verified(
    sending: Sending, an_exim: RealServer
) -> None:
    verified, bob = sending.push("bob@verified.example", "bob-in-tls@exim.example")
    assert "certificate verify failed" in sending.is_down(verified)
    sending.arrives(an_exim, "bob-in-tls@exim.example", bob)
    assert an_exim.copies("bob@verified.example") == 0
    [taken] = [data for data in an_exim.messages() if b"bob-in-tls" in data]
    assert b"with esmtps" in taken


def test_where_tls_is_broken_mail_goes_in_the_clear_only_if_that_is_enough(
    sending: Sending, a_postfix: RealServer
) -> None:
    required, bob = sending.push("bob@required.example", "bob-in-the-clear@postfix.example")
    assert "454 4.7.0 TLS not available" in sending.is_down(required)
    sending.arrives(a_postfix, "bob-in-the-clear@postfix.example", bob)
    assert a_postfix.copies("bob@required.example") == 0


def test_a_server_that_leaves_in_mid_message_gets_it_again_and_others_have_theirs(
    sending: Sending, a_postfix: RealServer
) -> None:
    leaves, bob = sending.push("leaves@postfix.example", "bob-who-stays@postfix.example")
    assert "421 4.3.2 " in sending.deferred(leaves)
    sending.arrives(a_postfix, "bob-who-stays@postfix.example", bob)
    assert a_postfix.copies("leaves@postfix.example") == 0


def test_a_slow_server_holds_nobody_up(sending: Sending, an_exim: RealServer, a_postfix: RealServer) -> None:
    gate = an_exim.maildir.parent / "gate"
    gate.touch()
    try:
        slow = sending.push(*(f"slow-{number}@exim.example" for number in range(5)))
        quick = sending.push(*(f"quick-{number}@postfix.example" for number in range(20)))
        for number, key in enumerate(quick):
            sending.arrives(a_postfix, f"quick-{number}@postfix.example", key)
        assert not any(map(sending.is_done, slow))
    finally:
        gate.unlink()
    for number, key in enumerate(slow):
        sending.arrives(an_exim, f"slow-{number}@exim.example", key)


def test_a_sender_that_asks_for_it_has_a_report_of_the_last_server(
    sending: Sending, a_postfix: RealServer
) -> None:
    dsn = "RET=HDRS ENVID=QQ314159 NOTIFY=SUCCESS ORCPT=rfc822;robert@postfix.example"
    [key] = sending.push("bob-of-the-report@postfix.example", dsn=dsn, sender="asks@postfix.example")
    sending.arrives(a_postfix, "bob-of-the-report@postfix.example", key)
    eventually(lambda: a_postfix.copies("asks@postfix.example"), "the report is there")
    [report] = [data for data in a_postfix.messages() if b"\nOriginal-Envelope-Id: QQ314159" in data]
    assert b"Original-Recipient: rfc822;robert@postfix.example" in report
    assert b"\nAction: delivered" in report


def test_exim_sends_the_report_if_it_offers_that_and_else_we_do(
    sending: Sending, an_exim: RealServer, a_postfix: RealServer
) -> None:
    silent = an_exim.maildir.parent / "silent"
    for is_silent in (False, True):
        if is_silent:
            silent.touch()
        name = f"carl-{is_silent}@reports.example"
        dsn = f"RET=FULL ENVID=Q{is_silent} NOTIFY=SUCCESS"
        [key] = sending.push(name, dsn=dsn, sender="wonders@postfix.example")
        sending.arrives(an_exim, name, key)
    silent.unlink()
    eventually(lambda: an_exim.copies("wonders@postfix.example"), "the report of Exim")
    eventually(
        lambda: a_postfix.copies("wonders@postfix.example"), "and ours, which goes where its mail goes"
    )
    [theirs] = [data for data in an_exim.messages() if b"\nAction: delivered" in data]
    assert b"QFalse" in theirs
    [ours] = [data for data in a_postfix.messages() if b"carl-True@reports.example" in data]
    assert b"\nOriginal-Envelope-Id: QTrue" in ours
    assert re.search(rb"\nAction: relayed\r?\nStatus: 2.0.0\r?\nRemote-MTA: dns; localhost\r?\n", ours)
    assert b".It works." not in ours
    assert (an_exim.copies("wonders@postfix.example"), a_postfix.copies("wonders@postfix.example")) == (1, 1)


def test_a_sender_that_asks_for_it_hears_once_that_its_message_is_late(
    sending: Sending, a_postfix: RealServer
) -> None:
    [asks, silent] = (
        sending.push("late@postfix.example", dsn=dsn, sender=sender)[0]
        for dsn, sender in (("NOTIFY=DELAY", "waits@postfix.example"), ("ENVID=1", "silent@postfix.example"))
    )

    def is_told() -> bool:
        for key in (asks, silent):
            if sending.waits(key):
                sending.again(key)
        return a_postfix.copies("waits@postfix.example") > 0

    eventually(is_told, "the report is there")
    for key in (asks, silent):
        tried = len(sending.pool.events("attempt.ended", key=key))
        eventually(partial(sending.waits, key), "it waits")
        sending.again(key)
        sending.pool.await_event("attempt.ended", tried + 1, key=key)
    assert [sent["action"] for sent in sending.pool.events("notice.sent", key=asks)] == ["delayed"]
    assert a_postfix.copies("silent@postfix.example") == 0
    [report] = [data for data in a_postfix.messages() if b"\nAction: delayed" in data]
    assert re.search(rb"\nDiagnostic-Code: smtp;[^:]*: 450\s4.2.0\s", report)


def test_by_lmtp_dovecot_has_it_in_its_maildirs(sending: Sending, a_dovecot: dovecot.Dovecot) -> None:
    ann, nobody, bob = sending.push(*(f"{name}@dovecot.example" for name in ("ann", "nobody", "bob")))
    eventually(lambda: sending.is_done(ann) and sending.is_done(bob), "it is delivered")
    assert re.search(r"550 5\.1\.1 .*doesn't exist", sending.buried(nobody))
    for name in ("ann", "bob"):
        [(envelope, data)] = stored(a_dovecot.home / f"kept/{name}@dovecot.example")
        assert envelope == Envelope("ann@s.example", f"{name}@dovecot.example")
        assert data.endswith(MESSAGE)
    assert a_dovecot.complaints() == []
