"""Clients that send numbered messages and remember which of them were acknowledged."""

from __future__ import annotations

import itertools
import socket
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from maildefer.message.envelope import split
from tests.support.front_end_security import ENVELOPE, GREETING, PATIENCE_SECONDS

LINES = (10, 40, 7_000)  # 1 KiB, 4 KiB, and 750 KiB, which goes to tmp/ as it comes
_PAUSE_SECONDS = 0.02


def message(number: int) -> bytes:
    """Its bytes tell its number and its length, so that a whole one is known by sight."""
    return f"Subject: {number}\n\n".encode() + b"%0106d\n" % number * LINES[number % len(LINES)]


class Load:
    """Some clients at a time, each with one connection until it breaks; a context manager.

    `acknowledged`: the numbers for whose messages a 250 came back. `replies`: the codes of all others, counted.
    """

    def __init__(self, address: tuple[str, int], clients: int = 6) -> None:
        self.acknowledged: set[int] = set()
        self.replies: Counter[bytes] = Counter()
        self._address = address
        self._numbers = itertools.count()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)

    def _send(self) -> None:
        while not self._ending.is_set():
            try:
                with socket.create_connection(self._address, timeout=PATIENCE_SECONDS) as client:
                    self._converse(client)
            except OSError:  # killed, or not there yet
                self._ending.wait(_PAUSE_SECONDS)

    def _converse(self, client: socket.socket) -> None:
        with client.makefile("rb") as replies:
            self._reply(replies)
            client.sendall(GREETING)
            self._reply(replies)
            while not self._ending.is_set():
                number = next(self._numbers)
                client.sendall(ENVELOPE + b"DATA\r\n")
                codes = [self._reply(replies) for _ in range(3)]
                if codes[-1] != b"354":
                    self.replies[next(code for code in codes if code[:1] in b"45")] += 1
                    client.sendall(b"RSET\r\n")
                    self._reply(replies)
                    self._ending.wait(_PAUSE_SECONDS)
                    continue
                client.sendall(message(number).replace(b"\n", b"\r\n") + b".\r\n")
                if (code := self._reply(replies)) == b"250":
                    self.acknowledged.add(number)
                else:
                    self.replies[code] += 1

    def _reply(self, replies: object) -> bytes:
        """The code of a reply's last line; OSError where none comes any more."""
        while line := replies.readline():  # type: ignore[attr-defined]
            if line[3:4] != b"-":
                return bytes(line[:3])
        raise ConnectionResetError


class Watch:
    """Reads each entry as soon as it is in `new/`, as a worker would: a context manager.

    `seen`: name and number of each; `partial`: the names of those that weren't whole at first sight.
    """

    def __init__(self, queue: Path) -> None:
        self.seen: dict[str, int] = {}
        self.partial: list[str] = []
        self._new = queue / "new"
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look_on)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join(PATIENCE_SECONDS)
        self.look()

    def numbers(self) -> Sequence[int]:
        return list(self.seen.values())

    def look(self) -> None:
        for path in self._new.iterdir():
            if path.name not in self.seen and path.name not in self.partial:
                try:
                    self._judge(path.name, path.read_bytes())
                except FileNotFoundError:  # withdrawn, or made room of
                    continue

    def _judge(self, name: str, data: bytes) -> None:
        _, offset = split(data, name)
        kept = data[offset:]
        number = int(kept[9 : kept.index(b"\n")]) if kept[:9] == b"Subject: " and b"\n" in kept else -1
        if number >= 0 and kept == message(number) and name.endswith(f",S={len(data)}"):
            self.seen[name] = number
        else:
            self.partial.append(name)

    def _look_on(self) -> None:
        while not self._ending.wait(0.002):
            self.look()
