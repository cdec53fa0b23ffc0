"""Fills a queue quickly: entries as maildefer's push writes them, but never synced."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from maildefer.message.envelope import block

ENTRY_BYTES = 2048
RECIPIENT = "noop@osb.example.org"
_HOST = "bench-000000"


def make_maildir(path: str) -> str:
    """Makes a plain, empty Maildir; maildefer takes it as it is."""
    for directory in ("tmp", "new", "cur"):
        os.makedirs(os.path.join(path, directory))
    return path


def fill(path: str, count: int, recipients: Sequence[str] = (RECIPIENT,)) -> None:
    """Writes `count` entries into `new/`. Names count up from this process's pid: no two are alike."""
    new = os.path.join(path, "new") + "/"
    for index in range(count):
        stem = entry_stem(index)
        content = entry_bytes(stem, recipients[index % len(recipients)])
        fd = os.open(f"{new}{stem},S={len(content)}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o660)
        os.write(fd, content)
        os.close(fd)


def entry_stem(index: int) -> str:
    """A key without its size, unlike any other of this process."""
    now_us = time.time_ns() // 1000
    token = os.urandom(4).hex()
    return f"{now_us // 1_000_000}.M{now_us % 1_000_000:06d}P{os.getpid()}Q{index}R{token}.{_HOST}"


def entry_bytes(stem: str, recipient: str = RECIPIENT) -> bytes:
    """One entry of ENTRY_BYTES: the envelope's three lines, a header, and a body that fills it up."""
    top = block(stem, "sender@example.org", recipient, host=_HOST, when=time.time(), via="push")
    return top + message_bytes(ENTRY_BYTES - len(top))


def message_bytes(size_bytes: int) -> bytes:
    """An ordinary short mail."""
    head = (
        f"From: Sender <sender@example.org>\nTo: {RECIPIENT}\nSubject: a message of the benchmark\n"
        "Date: Mon, 01 Jan 2024 00:00:00 +0000\nMessage-ID: <benchmark@example.org>\n"
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n"
    ).encode()
    body = b"All work and no play makes a dull queue.\n" * (size_bytes // 40 + 1)
    return head + body[: max(0, size_bytes - len(head))]
