"""Many messages in one stream."""

from __future__ import annotations

import io
import mailbox
from pathlib import Path

import pytest

from maildefer.message.mbox import NotAnMbox, StreamMessage, mbox, null_separated

MBOX = b"""From ann@example.org Tue Nov 24 12:00:00 2026
Subject: one

>From the start
>>From deeper
not From here
From inside, with no empty line before it

From MAILER-DAEMON Tue Nov 24 12:00:01 2026
Subject: two

two

From nobody Tue Nov 24 12:00:02 2026
Subject: three

"""


class Trickle(io.BytesIO):
    """Gives one byte at a time."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(1)


def test_an_mbox_is_read_message_by_message_with_its_senders() -> None:
    assert list(mbox(io.BytesIO(MBOX))) == [
        StreamMessage(
            b"Subject: one\n\nFrom the start\n>From deeper\nnot From here\n"
            b"From inside, with no empty line before it\n",
            "ann@example.org",
        ),
        StreamMessage(b"Subject: two\n\ntwo\n", ""),
        StreamMessage(b"Subject: three\n", None),
    ]


def test_an_mbox_of_the_standard_library_gives_its_messages(tmp_path: Path) -> None:
    box = mailbox.mbox(tmp_path / "box")
    messages = [b"Subject: %d\n\nText.\nFrom here on\n\n" % number for number in range(20)]
    for message in messages:
        box.add(message)
    box.close()
    with open(tmp_path / "box", "rb") as file:
        assert [found.data for found in mbox(file)] == messages


def test_an_empty_mbox_has_none() -> None:
    assert list(mbox(io.BytesIO(b""))) == list(mbox(io.BytesIO(b"\n\n"))) == []


def test_what_is_no_mbox_says_so_before_anything_is_pushed() -> None:
    with pytest.raises(NotAnMbox, match="Subject"):
        next(mbox(io.BytesIO(b"Subject: x\n\nFrom a@b now\n")))


@pytest.mark.parametrize("kind", [io.BytesIO, Trickle])
@pytest.mark.parametrize(
    ("stream", "messages"),
    [
        (b"", []),
        (b"\0", []),
        (b"one", [b"one"]),
        (b"one\0", [b"one"]),
        (b"one\0two\n", [b"one", b"two\n"]),
        (b"\0\0one\0\0two\0", [b"one", b"two"]),
    ],
)
def test_messages_between_nuls_are_read_however_they_come(
    kind: type[io.BytesIO], stream: bytes, messages: list[bytes]
) -> None:
    assert [found.data for found in null_separated(kind(stream))] == messages


def test_a_long_message_is_whole() -> None:
    long = bytes(range(1, 256)) * 2000
    assert [found.data for found in null_separated(io.BytesIO(long + b"\0" + long))] == [long, long]
