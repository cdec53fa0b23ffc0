"""`push` with many messages in a stream."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from maildefer.errors import PermissionRefused
from maildefer.maildir import durable
from maildefer.message.envelope import Envelope, split

MBOX = b"From a@b.example now\nSubject: 1\n\nx\n\nFrom MAILER-DAEMON now\nSubject: 2\n\nx\n"


def pushed(queue, key: str) -> tuple[object, bytes]:
    data = Path(f"{queue.new}/{key}").read_bytes()
    envelope, offset = split(data, key)
    return envelope, data[offset:]


def test_all_messages_of_a_stream_are_pushed_in_its_order(maildefer, queue):
    ended = maildefer("push", queue.path, "--null", stdin=b"".join(b"%d\0" % n for n in range(300)))
    assert ended.code == 0
    assert [pushed(queue, key)[1] for key in ended.out.split()] == [b"%d" % n for n in range(300)]
    assert "300 entries are durable" in ended.err


def test_an_mbox_keeps_its_senders_where_a_recipient_is_given(maildefer, queue):
    ended = maildefer("push", queue.path, "--mbox", "-r", "post@osb.example", stdin=MBOX)
    assert [pushed(queue, key)[0] for key in ended.out.split()] == [
        ("a@b.example", "post@osb.example"),
        ("", "post@osb.example"),
    ]


def test_a_sender_that_is_given_is_all_messages_sender(maildefer, queue):
    ended = maildefer("push", queue.path, "--mbox", "-r", "post@osb.example", "-f", "x@y", stdin=MBOX)
    assert {pushed(queue, key)[0][0] for key in ended.out.split()} == {"x@y"}


def test_several_files_may_hold_many_each(maildefer, queue, tmp_path):
    (tmp_path / "one").write_bytes(MBOX)
    (tmp_path / "two").write_bytes(MBOX)
    ended = maildefer("push", queue.path, "--mbox", str(tmp_path / "one"), str(tmp_path / "two"), "--json")
    assert [told["file"].rpartition("/")[2] for told in ended.records] == ["one", "one", "two", "two"]


@pytest.mark.parametrize("bad", ["missing", "nombox"])
def test_what_was_pushed_before_a_bad_file_is_told(maildefer, queue, tmp_path, bad):
    (tmp_path / "one").write_bytes(MBOX)
    (tmp_path / "nombox").write_bytes(b"Subject: x\n\n")
    ended = maildefer("push", queue.path, "--mbox", str(tmp_path / "one"), str(tmp_path / bad))
    assert ended.code == 1
    assert len(ended.out.split()) == 2
    assert bad in ended.err
    assert "pushed before that: 2" in ended.err


def test_a_disk_that_fills_up_tells_each_entry_that_is_there(maildefer, queue, monkeypatch):
    real, calls = durable.begin_file, []

    def full(*arguments, **system):
        calls.append(arguments)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments, **system)

    monkeypatch.setattr(durable, "begin_file", full)
    ended = maildefer("push", queue.path, "-0", stdin=b"x\0" * 5000)
    assert ended.code == 75
    assert len(ended.out.split()) == 5
    assert len(calls) < 500
    assert "pushed so far: 5" in ended.err


def test_two_formats_at_once_are_a_wrong_usage(maildefer, queue):
    assert maildefer("push", queue.path, "--mbox", "-0").code == 2


def test_a_queue_that_may_not_be_read_is_a_failure_that_stays(maildefer, queue, monkeypatch):
    def refuse(*_, **__):
        raise PermissionRefused(queue.format, OSError(errno.EACCES, "Permission denied"))

    monkeypatch.setattr("maildefer.cli.commands.push.open_or_make", refuse)
    ended = maildefer("push", queue.path, stdin=b"x")
    assert (ended.code, ended.out) == (77, "")
    assert "write permission" in ended.err


def test_what_is_asked_of_reports_is_kept_also_when_an_entrys_file_is_pushed_again(
    maildefer, queue, tmp_path
):
    asked = "RET=HDRS ENVID=QQ NOTIFY=NEVER"
    given = ("-f", "me@x", "-r", "ann@x", "--dsn", "notify=never RET=HDRS ENVID=QQ")
    assert maildefer("push", queue.path, *given, stdin=b"hi\n").code == 0
    [name] = os.listdir(queue.new)
    for more, kept in (((), asked), (("-r", "bob@x"), asked), (("-f", "list@x"), "")):
        ended = maildefer("push", queue.path, f"{queue.new}/{name}", *more)
        envelope, data = pushed(queue, ended.out.strip())
        assert isinstance(envelope, Envelope)
        assert (envelope.dsn, data) == (kept, b"hi\n")


@pytest.mark.parametrize("wrong", [("--dsn", "NOTIFY=SOON", "-r", "a@x"), ("--dsn", "NOTIFY=NEVER")])
def test_what_can_not_be_asked_is_a_wrong_usage(maildefer, queue, wrong):
    assert maildefer("push", queue.path, *wrong, stdin=b"hi\n").code == 2
    assert os.listdir(queue.new) == []
