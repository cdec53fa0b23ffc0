"""Large messages in the front end's writer: kept in tmp/ part by part, then entries like any other."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from maildefer.errors import QueueMissing
from maildefer.intake.options import parse
from maildefer.intake.outcomes import Refusal
from maildefer.intake.writer.process import Writer
from maildefer.intake.writer.protocol import Job, Message, WriterAnswer
from maildefer.intake.writer.shared_memory import make_links
from maildefer.maildir import durable
from maildefer.maildir.drafts.entry import Draft
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.push import Pusher
from maildefer.maildir.system import System
from maildefer.message.envelope import Envelope, split
from tests.support.front_end import stored


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create_queue(str(tmp_path / "queue"))


@pytest.fixture
def writer(layout: Layout) -> Iterator[Writer]:
    options = parse(["--socket-fd", "0", "--queue", layout.path, "--min-free-bytes", "0"])
    ours, theirs = make_links(options.buffer_bytes, local=True)
    yield Writer(layout, options, theirs)
    ours.socket.close()
    theirs.socket.close()


def part(
    data: bytes, *recipients: str, draft: int = 1, whole: bool = False, together: bool = True
) -> Message:
    return Message("a@b", recipients or ("c@d",), (data,), "ESMTP", "client", together, draft, whole)


def push(writer: Writer, *messages: Message) -> list[WriterAnswer]:
    return [writer.answer([Job(number, message)])[0] for number, message in enumerate(messages, 1)]


def entries(layout: Layout) -> list[tuple[Envelope | None, bytes]]:
    assert all(
        name.endswith(f",S={Path(layout.new, name).stat().st_size}") for name in os.listdir(layout.new)
    )
    return stored(Path(layout.path))


@pytest.mark.invariant(9)
def test_parts_become_one_entry_with_the_envelope_on_top(writer: Writer, layout: Layout) -> None:
    *parts, last = push(writer, part(b"Subject: x\n\n"), part(b"one\n"), part(b"two\n", whole=True))
    assert [answer.stored for answer in parts] == [[], []]
    assert last.stored[0].fault is None
    assert os.listdir(layout.new) == [last.stored[0].key]
    assert entries(layout) == [(Envelope("a@b", "c@d"), b"Subject: x\n\none\ntwo\n")]
    assert os.listdir(layout.tmp) == []


def test_a_part_is_in_tmp_and_not_an_entry_before_the_last_one_has_come(
    writer: Writer, layout: Layout
) -> None:
    push(writer, part(b"x" * 100_000))
    assert os.listdir(layout.new) == []
    (draft,) = os.listdir(layout.tmp)
    assert Path(layout.tmp, draft).stat().st_size > 100_000


def test_each_recipient_gets_an_entry_and_its_own_reply_in_order(writer: Writer, layout: Layout) -> None:
    recipients = ("one@d", "two@d", "three@d")
    body = os.urandom(700_000).replace(b"\r", b"\n")
    _, last = push(writer, part(body[:300_000], *recipients), part(body[300_000:], *recipients, whole=True))
    found = {}
    for each in last.stored:
        envelope, offset = split(data := Path(layout.new, each.key).read_bytes(), each.key)
        assert data[offset:] == body
        found[each.key] = envelope.recipient if envelope else None
    assert list(found.values()) == list(recipients)


def test_a_message_that_is_dropped_leaves_nothing(writer: Writer, layout: Layout) -> None:
    push(writer, part(b"x"), Message("", (), (), "", "", False, 1))
    assert os.listdir(layout.tmp) == os.listdir(layout.new) == []


def test_messages_in_parts_do_not_mix(writer: Writer, layout: Layout) -> None:
    push(
        writer,
        part(b"a", draft=1),
        part(b"b", draft=2),
        part(b"a", draft=1, whole=True),
        part(b"b", draft=2, whole=True),
    )
    assert sorted(data for _, data in entries(layout)) == [b"aa", b"bb"]


def test_a_disk_that_fills_up_in_the_middle_is_told_at_that_part_and_leaves_nothing(
    writer: Writer, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(writer, part(b"x"))

    def full(descriptor: int, data: bytes, system: object) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(durable, "write_all", full)
    (answer,) = push(writer, part(b"y"))
    assert [stored.fault for stored in answer.stored] == [Refusal.QUEUE_FULL]
    assert os.listdir(layout.tmp) == []


def test_a_disk_that_fills_up_at_the_last_part_fails_all_recipients(
    writer: Writer, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(writer, part(b"x", "c@d", "e@f"))

    def full(descriptor: int, data: bytes, system: object) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(durable, "write_all", full)
    (answer,) = push(writer, part(b"y", "c@d", "e@f", whole=True))
    assert [stored.fault for stored in answer.stored] == [Refusal.QUEUE_FULL] * 2
    assert os.listdir(layout.tmp) == os.listdir(layout.new) == []


@pytest.mark.parametrize("together", [True, False])
def test_a_copy_that_fails_fails_its_message_or_with_lmtp_its_recipient(
    writer: Writer, layout: Layout, together: bool
) -> None:
    recipients = ("c@d", "not\nan address", "e@f")
    _, answer = push(
        writer,
        part(b"x", *recipients, together=together),
        part(b"y", *recipients, whole=True, together=together),
    )
    assert [stored.fault for stored in answer.stored] == [None, Refusal.ADDRESS_REFUSED, None]
    assert len(os.listdir(layout.new)) == (0 if together else 2)
    assert os.listdir(layout.tmp) == []


def test_a_shortage_in_the_middle_drops_what_is_there(layout: Layout) -> None:
    options = parse(["--socket-fd", "0", "--queue", layout.path, "--min-free-bytes", str(1 << 60)])
    ours, theirs = make_links(options.buffer_bytes, local=True)
    writer = Writer(layout, options, theirs)
    writer._drafts.add_part(part(b"x"))
    (answer,) = push(writer, part(b"y"))
    assert [stored.fault for stored in answer.stored] == [Refusal.QUEUE_FULL]
    assert os.listdir(layout.tmp) == []
    ours.socket.close()
    theirs.socket.close()


def test_a_draft_that_is_swept_before_its_end_is_a_temporary_failure(writer: Writer, layout: Layout) -> None:
    push(writer, part(b"x"))
    (draft,) = os.listdir(layout.tmp)
    Path(layout.tmp, draft).unlink()
    (answer,) = push(writer, part(b"y", whole=True))
    assert [stored.fault for stored in answer.stored] == [Refusal.STORAGE_FAILED]
    assert os.listdir(layout.new) == []


def test_a_draft_that_is_swept_fails_alone_of_those_that_end_together(writer: Writer, layout: Layout) -> None:
    push(writer, part(b"x", draft=1))
    (draft,) = os.listdir(layout.tmp)
    Path(layout.tmp, draft).unlink()
    push(writer, part(b"x", draft=2))
    last = [Job(draft, part(b"y", draft=draft, whole=True)) for draft in (1, 2)]
    one, two = (answer.stored[0] for answer in writer.answer(last))
    assert one.fault == Refusal.STORAGE_FAILED
    assert os.listdir(layout.new) == [two.key]


@pytest.mark.invariant(1)
def test_a_draft_is_synced_before_it_is_renamed(layout: Layout) -> None:
    calls: list[str] = []

    def noting(name: str):
        real = getattr(os, name)

        def call(*arguments):
            calls.append(name)
            return real(*arguments)

        return call

    system = System(fsync=noting("fsync"), rename=noting("rename"))
    pusher = Pusher(layout, host="h", system=system)
    draft = pusher.draft()
    draft.append(b"x")
    pusher.push_all([lambda stem: draft])
    assert calls == ["fsync", "rename", "fsync"]  # the file, its name, the directory


def test_a_draft_of_a_queue_that_is_gone_says_so(tmp_path: Path) -> None:
    with pytest.raises(QueueMissing):
        Draft(Layout(str(tmp_path / "nowhere")), "stem")


def test_the_writers_end_leaves_no_drafts(writer: Writer, layout: Layout) -> None:
    push(writer, part(b"x"))
    writer._socket.shutdown(socket.SHUT_RDWR)
    writer.run()
    assert os.listdir(layout.tmp) == []
