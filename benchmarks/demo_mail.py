"""The demo's mail, and its way in: real messages, blog posts and a few bounces, by SMTP on four connections."""

from __future__ import annotations

import queue
import re
import smtplib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from maildefer.mail import MailRequest

CONNECTIONS: Final = 4
AUTHORS: Final = ("ann@example.org", "bob@example.org", "chris@example.net", "dana@example.net")
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """One mail to `name@osb.localhost`."""

    name: str
    sender: str
    data: bytes
    is_real: bool = False

    @property
    def is_bounce(self) -> bool:
        return not self.sender

    @property
    def wants_answer(self) -> bool:
        return not MailRequest("demo", self.sender, None, self.data).is_automatic


@dataclass(slots=True)
class Sent:
    """What the front end said; filled in by the sending threads. `seconds`: until all of it was handled."""

    accepted: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    failed: str = ""
    seconds: float = 0.0


def real(corpus: Iterable[tuple[str, bytes]]) -> Iterator[Mail]:
    """The messages of the corpus, as they are, posted by one of the authors."""
    for number, (name, data) in enumerate(corpus):
        safe = re.sub(r"[^a-z0-9_-]", "-", name.lower())
        yield Mail(name=f"real-{safe}", sender=AUTHORS[number % len(AUTHORS)], data=data, is_real=True)


def posts(count: int) -> Iterator[Mail]:
    for number in range(count):
        name, author = f"post-{number:04}", AUTHORS[number % len(AUTHORS)]
        text = f"This is post number {number}.\n" * (1 + number % 40)
        data = (
            f"From: {author}\nTo: {name}@osb.localhost\nSubject: Post {number}: caf\u00e9 & <tea>\n\n{text}"
        )
        yield Mail(name=name, sender=author, data=data.encode())


def bounces(count: int) -> Iterator[Mail]:
    """Mail from the null sender, which the blog rejects: so that there are dead letters to look at."""
    for number in range(count):
        data = f"From: mailer-daemon@example.com\nSubject: Undelivered mail\n\nBounce {number}.\n"
        yield Mail(name=f"bounce-{number}", sender="", data=data.encode())


def send_all(port: int, mail: list[Mail], sent: Sent) -> None:
    """Send everything; returns when the front end has answered for each mail."""
    waiting: queue.SimpleQueue[Mail] = queue.SimpleQueue()
    for one in mail:
        waiting.put(one)
    threads = [threading.Thread(target=_send, args=(port, waiting, sent)) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _send(port: int, waiting: queue.SimpleQueue[Mail], sent: Sent) -> None:
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=60) as connection:
            while True:
                try:
                    mail = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    # SMTP has one line end; the corpus has three.
                    data = _LINE_END.sub(b"\r\n", mail.data)
                    connection.sendmail(mail.sender, [f"{mail.name}@osb.localhost"], data)
                    sent.accepted.add(mail.name)
                except (smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused) as refusal:
                    sent.refused[mail.name] = str(refusal)
    except (OSError, smtplib.SMTPException) as fault:
        sent.failed = sent.failed or repr(fault)
