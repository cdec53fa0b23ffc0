"""`audit`: beginning a journal, proving, accusing, ending it."""

from __future__ import annotations

import os
from binascii import crc32
from collections.abc import Iterator

import pytest

from maildefer.maildir import durable, journal


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    yield
    journal.close_journals()


@pytest.fixture
def kept(maildefer, queue):
    assert maildefer("audit", "--on", queue.path).code == 0
    return queue


def pushed(maildefer, queue) -> str:
    return maildefer("push", queue.path, stdin=b"Subject: x\n\nx\n").out.strip()


def test_beginning_says_what_to_do_next(maildefer, queue) -> None:
    assert maildefer("audit", "--off", "--yes", queue.path).code == 0
    ended = maildefer("audit", "--on", queue.path)
    assert (ended.code, ended.out) == (0, "")
    assert "from now on" in ended.err
    assert "maildefer reload --all-hosts" in ended.err
    assert "already" in maildefer("audit", "--on", queue.path).err


def test_a_proof_counts_what_was_accepted(maildefer, kept) -> None:
    pushed(maildefer, kept)
    maildefer("queue", "delete", kept.path, pushed(maildefer, kept))
    ended = maildefer("audit", kept.path)
    assert ended.code == 0
    rows = dict(reversed(line.split()) for line in ended.out.splitlines())
    assert rows == {
        "accepted": "2",
        "ended": "1",
        "waiting": "1",
        "claimed": "0",
        "deferred": "0",
        "dead": "0",
        "unproven": "0",
        "lost": "0",
    }


def test_what_a_power_cut_has_taken_back_is_not_lost(maildefer, kept, monkeypatch) -> None:
    monkeypatch.setattr(durable, "keeps_order", lambda device: True)
    key = pushed(maildefer, kept)
    with open(f"{kept.new}/{key}", "rb") as file:
        checksum = crc32(file.read())
    os.mkdir(kept.synced)
    os.rename(f"{kept.new}/{key}", f"{kept.synced}/{key}.{checksum:08x}.00000000")
    ended = maildefer("audit", "--patience", "0", kept.path)
    assert ended.code == 0, ended.out + ended.err
    assert os.listdir(kept.new) == [key]


def test_a_loss_is_named_and_fails_the_command(maildefer, kept) -> None:
    key = pushed(maildefer, kept)
    os.unlink(f"{kept.new}/{key}")
    ended = maildefer("audit", "--patience", "0", kept.path)
    assert ended.code == 1
    assert ended.out.startswith(f"lost  {key}  accepted ")
    assert "1 lost, 0 unproven" in ended.err


def test_programs_read_json(maildefer, kept) -> None:
    key = pushed(maildefer, kept)
    os.unlink(f"{kept.new}/{key}")
    suspect, whole = maildefer("audit", "--json", "--patience", "0", kept.path).records
    assert (suspect["kind"], suspect["key"], suspect["verdict"]) == ("suspect", key, "lost")
    assert (whole["kind"], whole["accepted"], whole["lost"]) == ("audit", 1, 1)


def test_a_queue_without_a_journal_says_how_to_begin_one(maildefer, queue) -> None:
    assert maildefer("audit", "--off", "--yes", queue.path).code == 0
    ended = maildefer("audit", queue.path)
    assert ended.code == 1
    assert f"maildefer audit --on {queue.path}" in ended.err


def test_ending_asks_first(maildefer, kept) -> None:
    pushed(maildefer, kept)
    assert maildefer("audit", "--off", kept.path).code == 1
    assert os.listdir(kept.journal)
    assert maildefer("audit", "--off", "--yes", kept.path).code == 0
    assert not os.path.exists(kept.journal)


def test_on_and_off_together_are_wrong_usage(maildefer, queue) -> None:
    assert maildefer("audit", "--on", "--off", queue.path).code == 2


def test_ending_leaves_what_is_none_of_its_files_and_says_where_it_is(maildefer, kept) -> None:
    pushed(maildefer, kept)
    os.mkdir(f"{kept.journal}/2026-11-28.vm.ef3ea2a6.6.settled")
    ended = maildefer("audit", "--off", "--yes", kept.path)
    assert ended.code == 1
    assert not os.path.exists(kept.journal), "it is off all the same"
    [left] = [name for name in os.listdir(kept.control) if name.startswith("journal-ended-")]
    assert f"{kept.control}/{left} holds what is no file of a journal" in ended.err
    assert os.listdir(f"{kept.control}/{left}") == ["2026-11-28.vm.ef3ea2a6.6.settled"]
    assert maildefer("audit", "--on", kept.path).code == 0


def test_what_waits_without_a_record_of_its_push_keeps_the_audit_from_being_content(maildefer, queue) -> None:
    journal.begin_journal(queue)
    os.rename(queue.journal, f"{queue.control}/away")
    journal.close_journals()
    before = pushed(maildefer, queue)
    os.rename(f"{queue.control}/away", queue.journal)
    journal.close_journals()
    maildefer("audit", "--on", queue.path)
    assert maildefer("audit", "--patience", "0", queue.path).code == 0, before
    os.rename(queue.journal, f"{queue.control}/away")
    journal.close_journals()
    key = pushed(maildefer, queue)
    os.rename(f"{queue.control}/away", queue.journal)
    ended = maildefer("audit", "--patience", "0", queue.path)
    assert ended.code == 1
    assert f"unrecorded  {key}" in ended.out
    assert "1 push left no record, so the audit is blind" in ended.err


def test_a_queue_that_was_handed_all_of_its_mail_says_where_the_pushes_are_on_record(maildefer, kept) -> None:
    journal.close_journals()
    journal.journal_of(kept).record_end("ack", "1.M2P3Q4.h,S=1", handoffs=1)
    ended = maildefer("audit", kept.path)
    assert ended.code == 0
    assert "1 end is of messages from other queues" in ended.err
