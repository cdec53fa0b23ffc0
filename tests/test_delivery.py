"""What handlers deliver: into Maildirs, and on to other addresses."""

from __future__ import annotations

import mailbox
import os
import threading
from pathlib import Path

import pytest

from maildefer.delivery import deliver, forwarded
from maildefer.errors import AddressRefused, NotAQueue
from maildefer.intake.options import FrontEndOptions
from maildefer.intake.smtp.mail_loops import Trace
from maildefer.mail import MailRequest
from maildefer.maildir import durable

TEXT = "Subject: Grüße\nDelivered-To: somebody@else\n\nHello.\n"


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    mailbox.Maildir(tmp_path / "Maildir").close()
    return tmp_path / "Maildir"


def request(to: str = "ann@d.example") -> MailRequest:
    message = MailRequest("peer", "bob@s.example", to, TEXT.encode())
    message.key = "1.M1P1Q1R1.host,S=9"
    return message


def test_a_message_is_a_new_one_in_any_mail_reader(maildir: Path) -> None:
    name = deliver(request(), str(maildir))
    [read] = mailbox.Maildir(maildir)
    assert (read.get_subdir(), read["Return-Path"]) == ("new", "<bob@s.example>")
    assert read.get_all("Delivered-To") == ["ann@d.example", "somebody@else"]
    assert Path(maildir, "new", name).read_bytes().endswith(TEXT.encode())


def test_nothing_else_is_made_in_a_users_maildir(maildir: Path) -> None:
    deliver(b"x", str(maildir))
    assert sorted(os.listdir(maildir)) == ["cur", "new", "tmp"]
    assert os.listdir(maildir / "tmp") == []


def test_without_a_recipient_nothing_is_put_on_top(maildir: Path) -> None:
    assert Path(maildir, "new", deliver("x\n", str(maildir))).read_bytes() == b"x\n"


def test_what_is_given_comes_before_the_messages_own_envelope(maildir: Path) -> None:
    name = deliver(request(), str(maildir), sender="", recipient="c@d")
    assert Path(maildir, "new", name).read_bytes().startswith(b"Return-Path: <>\nDelivered-To: c@d\n")


@pytest.mark.invariant(1)
def test_it_is_durable_when_it_returns(maildir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    real = durable.sync_directory
    monkeypatch.setattr(
        durable, "sync_directory", lambda path, **system: (synced.append(path), real(path, **system))
    )
    deliver(b"x", str(maildir))
    assert synced == [str(maildir / "new")]


def test_many_threads_may_deliver(maildir: Path) -> None:
    threads = [threading.Thread(target=lambda: deliver(b"x", str(maildir))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(os.listdir(maildir / "new")) == 16


def test_where_there_is_no_maildir_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(NotAQueue):
        deliver(b"x", str(tmp_path / "nobody"))
    assert os.listdir(tmp_path) == []


def test_an_address_that_would_forge_a_line_is_refused(maildir: Path) -> None:
    with pytest.raises(AddressRefused):
        deliver(b"x", str(maildir), recipient="a@b\nX: y")
    assert os.listdir(maildir / "new") == []


# Forwarding


def loops(data: bytes, recipient: str) -> dict[str, str]:
    trace = Trace(FrontEndOptions())
    trace.feed(data)
    return trace.loops([recipient])


def test_what_is_forwarded_to_another_address_and_comes_back_is_a_loop() -> None:
    data = forwarded(request(), "ann@elsewhere.example")
    assert loops(data, "ann@d.example")
    assert not loops(data, "ann@elsewhere.example")


def test_what_goes_on_to_the_same_address_is_none_before_it_has_gone_around_for_long() -> None:
    message = request()
    for _ in range(FrontEndOptions().max_hops):
        assert not loops(message.to_bytes(), "ann@d.example")
        message = MailRequest("peer", "bob@s.example", "ann@d.example", forwarded(message, "Ann@D.example"))
    assert loops(message.to_bytes(), "ann@d.example")


@pytest.mark.invariant(9)
def test_the_message_itself_is_untouched_and_line_ends_are_its_own() -> None:
    assert forwarded(request(), "c@d").endswith(b"\n" + TEXT.encode())
    message = MailRequest("peer", "a@b", "c@d", b"Subject: x\r\n\r\nx\r\n")
    assert b"\n" not in forwarded(message, "e@f").replace(b"\r\n", b"")


def test_the_line_names_the_key() -> None:
    assert b" id 1.M1P1Q1R1.host;" in forwarded(request())
