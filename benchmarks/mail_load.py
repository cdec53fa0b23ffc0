"""Steady mail by SMTP from a client that nothing discourages, and that writes down what it was told."""

from __future__ import annotations

import json
import smtplib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_TIMEOUT_SECONDS = 30.0
_PAUSE_SECONDS = 0.05
_HEAD = b"From: ann@example.org\r\nSubject: a message\r\n\r\n"


@dataclass(slots=True)
class Told:
    """What front ends said.

    Doubtful is a message that was sent whole, and got no reply, or one that it is to be tried again: what pushed it may
    have been killed before it could say so.
    """

    keys: list[str] = field(default_factory=list)
    doubtful: int = 0
    refused: int = 0


class Door:
    """Where a pool's front end listens, as its log says; read on from where the last look ended. Any thread."""

    def __init__(self, log_path: Path, kind: str = "intake") -> None:
        self._log_path = log_path
        self._kind = f'"{kind}"'.encode()
        self._at = 0
        self._port: int | None = None
        self._lock = threading.Lock()

    def port(self) -> int | None:
        """None as long as there is none."""
        with self._lock:
            try:
                with self._log_path.open("rb") as log:
                    log.seek(self._at)
                    for line in log:
                        if not line.endswith(b"\n"):
                            break
                        self._at += len(line)
                        if b'"child.started"' in line and self._kind in line:
                            self._port = int(json.loads(line)["address"].rpartition(":")[2])
            except FileNotFoundError:  # the pool has not been started
                pass
            return self._port


class MailLoad:
    """A thread that sends `count` messages, one every `every_seconds`, each until it is accepted.

    `port` says where a front end listens now, None where none is known; `recipient` gives the next message's.
    """

    def __init__(
        self,
        port: Callable[[], int | None],
        recipient: Callable[[], str],
        count: int,
        every_seconds: float,
        body: bytes = b"Hello.\r\n",
    ) -> None:
        self.told = Told()
        self._port = port
        self._recipient = recipient
        self._count = count
        self._every = every_seconds
        self._message = _HEAD + body
        self._halt = threading.Event()
        self._connection: smtplib.SMTP | None = None
        self.thread = threading.Thread(target=self._run, name="mail")

    def stop(self) -> None:
        """Send no more, whatever is left."""
        self._halt.set()

    def _run(self) -> None:
        due = time.monotonic()
        for _ in range(self._count):
            recipient = self._recipient()
            while not self._halt.is_set() and not self._sent(recipient):
                self._halt.wait(_PAUSE_SECONDS)
            due += self._every
            if self._halt.wait(max(0.0, due - time.monotonic())):
                break
        self._drop()

    def _sent(self, recipient: str) -> bool:
        """One transaction; False when it has to be tried again."""
        begun = False
        try:
            connection = self._connected()
            if connection is None:
                return False
            if connection.mail("ann@example.org")[0] != 250 or connection.rcpt(recipient)[0] != 250:
                self.told.refused += 1
                self._drop()
                return False
            begun = True
            code, text = connection.data(self._message)
        except smtplib.SMTPDataError:  # said before the message was sent
            self.told.refused += 1
        except (OSError, smtplib.SMTPException):
            self.told.doubtful += begun
        else:
            if code == 250:
                self.told.keys.append(text.rpartition(b" ")[2].decode())
                return True
            self.told.doubtful += 1
        self._drop()
        return False

    def _connected(self) -> smtplib.SMTP | None:
        if self._connection is None and (port := self._port()) is not None:
            self._connection = smtplib.SMTP("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)
            self._connection.ehlo()
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
