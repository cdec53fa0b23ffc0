"""Dovecot's ways into a queue, and a handler's way to Dovecot."""

from __future__ import annotations

import os
import re
import smtplib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from maildefer.mail import MailRequest
from maildefer.message.envelope import Envelope
from maildefer.server import Relay
from tests.support import dovecot
from tests.support.dovecot import MESSAGE
from tests.support.front_end import front_end, stored
from tests.support.other_users import give_to_nobody, shared

pytestmark = pytest.mark.lifecycle
# As docs/delivery.md has it: what Dovecot keeps for itself does not come into the queue.
APART = """
mail_path = {home}/kept
mail_inbox_path = {home}/queue
mail_control_path = {home}/kept
mail_index_path = {home}/kept
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with dovecot.home() as folder:
        (folder / "kept").mkdir()
        give_to_nobody(folder / "kept")
        yield folder


def everything(queue: Path) -> set[str]:
    return {str(path.relative_to(queue)) for path in queue.rglob("*")}


def test_dovecot_delivers_into_the_queue_and_puts_nothing_else_there(home: Path) -> None:
    shared(home)
    queue = home / "queue"
    before = everything(queue)
    with dovecot.running(home, APART + dovecot.USERS % "{home}/kept") as server:
        server.send("post@d.example")
        server.send("Other+Tag@d.example", sender="")
        assert server.complaints() == []
    added = sorted(everything(queue) - before)
    assert [re.sub(r"\d+", "1", name) for name in added] == [f"new/1.M1P1.{os.uname().nodename},S=1,W=1"] * 2
    assert {envelope for envelope, _ in stored(queue)} == {
        Envelope("ann@s.example", "post@d.example"),
        Envelope("", "Other+Tag@d.example"),
    }
    assert all(data.endswith(b" +0000\n" + MESSAGE) for _, data in stored(queue))


def test_dovecot_forgets_what_has_gone_when_it_looks_and_moves_nothing(home: Path) -> None:
    shared(home)
    with dovecot.running(home, APART + dovecot.USERS % "{home}/kept") as server:
        for _ in range(3):
            server.send("post@d.example")
        handled, *waiting = sorted((home / "queue/new").iterdir())
        handled.unlink()
        looked = ["mailbox", "status", "-u", "post@d.example", "messages", "INBOX"]
        said = server.doveadm(*looked)
        assert server.complaints() == []
    assert said == "INBOX messages=2\n"
    assert sorted((home / "queue/new").iterdir()) == waiting
    [uids] = (home / "kept").rglob("dovecot-uidlist")
    assert handled.name not in uids.read_text()
    assert waiting[0].name in uids.read_text()


def test_of_several_recipients_of_one_message_dovecot_names_none(home: Path) -> None:
    """Why docs/delivery.md wants one a message."""
    shared(home)
    with dovecot.running(home, APART + dovecot.USERS % "{home}/kept") as server:
        server.send("post@d.example", "other@d.example")
        assert server.complaints() == []
    paths = list((home / "queue/new").iterdir())
    assert [b"Delivered-To" in path.read_bytes() for path in paths] == [False, False]
    assert paths[0].samefile(paths[1])


PROXY = """
lmtp_proxy = yes
mail_path = {home}/kept
passdb static {
  fields {
    proxy = yes
    host = 127.0.0.1
    port = PORT
  }
}
"""


def test_dovecot_passes_on_to_the_front_end_as_a_proxy(home: Path, tmp_path: Path) -> None:
    with (
        front_end(tmp_path, kind="lmtp") as front,
        dovecot.running(home, PROXY.replace("PORT", str(front.port))) as server,
    ):
        server.send("post@d.example", "other@d.example")
        assert server.complaints() == []
        found = {envelope for envelope, _ in front.entries()}
    assert found == {Envelope("ann@s.example", name) for name in ("post@d.example", "other@d.example")}


def test_a_handler_delivers_to_dovecot_which_says_whom_it_does_not_know(home: Path) -> None:
    (home / "users").write_text("ann@osb.example::::::\n")
    message = MailRequest("p", "bob@s.example", "ann@osb.example", MESSAGE)
    with dovecot.running(home, dovecot.KNOWN_USERS) as server:
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            Relay(server.socket, lmtp=True).deliver(message, To=["nobody@osb.example", "ann@osb.example"])
        Relay(server.socket, lmtp=True).deliver(message, To="ann@osb.example", From="")
    [(address, (code, _))] = refused.value.recipients.items()
    assert (address, code) == ("nobody@osb.example", 550)
    assert {envelope for envelope, _ in stored(home / "kept/ann@osb.example")} == {
        Envelope("bob@s.example", "ann@osb.example"),
        Envelope("", "ann@osb.example"),
    }


def test_a_handler_hears_that_dovecot_is_away(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(tmp_path / "lmtp"))
    message = MailRequest("p", "bob@s.example", "ann@osb.example", MESSAGE)
    with pytest.raises(OSError, match="refused"):
        Relay(str(tmp_path / "lmtp"), lmtp=True).deliver(message)
