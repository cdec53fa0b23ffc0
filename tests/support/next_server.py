"""Next servers for mail that is sent: one with real sockets and replies by script; and what real ones have taken."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

CLOSE = "close"  # the connection, without a reply
TAKEN = "taken"  # the message, and then the connection closed without a reply


@dataclass
class NextServer:
    """Takes all mail, but for what `replies` says.

    `replies`: by verb, or by a whole line such as `RCPT TO:<a@x>`; the verb `MESSAGE` is the end of the data. A list is
    used up, one reply a time.
    """

    port: int
    replies: dict[str, str | list[str]] = field(default_factory=dict)
    extensions: list[str] = field(default_factory=lambda: ["8BITMIME", "SMTPUTF8"])
    tls: ssl.SSLContext | None = None
    delay_seconds: float = 0.0
    """Between a message's end and the reply to it."""
    connections: int = 0
    encrypted: int = 0
    open_now: int = 0
    lines: list[str] = field(default_factory=list)
    messages: list[tuple[str, list[str], bytes]] = field(default_factory=list)
    taken_at: list[float] = field(default_factory=list)
    most_at_once: int = 0
    """Of messages that were not answered yet."""
    unanswered: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def copies(self, recipient: str) -> int:
        return sum(recipient in recipients for _, recipients, _ in self.messages)

    def reply_to(self, line: str) -> str | None:
        """The scripted reply to a line, if there is one."""
        with self.lock:
            for known in (line, line.partition(" ")[0].upper()):
                scripted = self.replies.get(known)
                if isinstance(scripted, list):
                    scripted = scripted.pop(0) if scripted else None
                if scripted:
                    return scripted
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class RealServer:
    """A mail server of another project, which puts what it takes into a Maildir, below a field for the recipient."""

    port: int
    maildir: Path
    field: bytes

    def copies(self, recipient: str) -> int:
        return self.recipients().count(recipient)

    def recipients(self) -> list[str]:
        """Of all messages there are, one for each copy."""
        line = re.compile(rb"^%b: *(\S+)" % re.escape(self.field), re.MULTILINE | re.IGNORECASE)
        found = (line.search(data) for data in self.messages())
        return sorted(match[1].decode() for match in found if match)

    def messages(self) -> list[bytes]:
        new = self.maildir / "new"
        return [path.read_bytes() for path in new.iterdir()] if new.exists() else []


def greets(port: int) -> bool:
    """Whether a server on loopback is ready for mail."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            return client.recv(512).startswith(b"220")
    except OSError:
        return False


@contextmanager
def running(host: str = "127.0.0.1", port: int = 0) -> Iterator[NextServer]:
    """A server on a port of its own, on loopback."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family)
    server = NextServer(listening.getsockname()[1])
    threads: list[threading.Thread] = []
    clients: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            clients.append(client)
            thread = threading.Thread(target=_session, args=(server, client))
            threads.append(thread)
            thread.start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield server
    finally:
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        accepting.join(timeout=60)
        for client in clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(timeout=60)


def _session(server: NextServer, client: socket.socket) -> None:
    with server.lock:
        server.connections += 1
        server.open_now += 1
    try:
        with suppress(OSError, ssl.SSLError, EOFError):
            _Session(server, client).run()
    finally:
        with server.lock:
            server.open_now -= 1


class _Session:
    """One connection; only its thread uses it."""

    def __init__(self, server: NextServer, client: socket.socket) -> None:
        self._server = server
        self._client = client
        self._pending = b""

    def run(self) -> None:
        try:
            self._converse()
        finally:
            self._client.close()

    def _line(self) -> bytes:
        while b"\n" not in self._pending:
            if not (more := self._client.recv(65536)):
                raise EOFError
            self._pending += more
        one, _, self._pending = self._pending.partition(b"\n")
        return one.rstrip(b"\r")

    def _say(self, text: str) -> None:
        if text == CLOSE:
            raise EOFError
        self._client.sendall(text.encode() + b"\r\n")
        if text.startswith("421"):
            raise EOFError

    def _converse(self) -> None:
        server, sender, recipients = self._server, "", list[str]()
        is_encrypted = False
        self._say(server.reply_to("GREETING") or "220 next.test ESMTP")
        while True:
            command = self._line().decode("utf-8", "replace")
            with server.lock:
                server.lines.append(command)
            verb = command.partition(" ")[0].upper()
            scripted = server.reply_to(command)
            if verb in ("EHLO", "LHLO", "HELO") and scripted is None:
                offered = [*server.extensions, *(["STARTTLS"] if server.tls and not is_encrypted else [])]
                scripted = "\r\n".join(f"250-{each}" for each in ["next.test", *offered]) + "\r\n250 HELP"
            elif verb == "STARTTLS" and scripted is None and server.tls is not None:
                self._say("220 go ahead")
                self._client = server.tls.wrap_socket(self._client, server_side=True)
                is_encrypted = True
                server.encrypted += 1
                continue
            elif verb == "MAIL":
                sender, recipients = command, []
            elif verb == "RCPT" and (scripted or "250").startswith("250"):
                recipients.append(command.partition("<")[2].partition(">")[0])
            elif verb == "DATA" and (scripted is None or scripted.startswith("354")):
                self._say(scripted or "354 go ahead")
                self._take_message(sender, recipients)
                continue
            self._say(scripted or "250 OK")
            if verb == "QUIT":
                return

    def _take_message(self, sender: str, recipients: list[str]) -> None:
        server, data = self._server, b""
        with server.lock:
            server.unanswered += 1
            server.most_at_once = max(server.most_at_once, server.unanswered)
        try:
            while (one := self._line()) != b".":
                data += one + b"\r\n"
            time.sleep(server.delay_seconds)
        finally:
            with server.lock:
                server.unanswered -= 1
        reply = server.reply_to("MESSAGE") or "250 2.0.0 taken"
        if reply == TAKEN or reply.startswith("250"):
            with server.lock:
                server.messages.append((sender, list(recipients), data))
                server.taken_at.append(time.monotonic())
        self._say(CLOSE if reply == TAKEN else reply)
