"""A mailbox of a test's, to be fetched by POP3 (RFC 1939)."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Mailbox(socketserver.ThreadingTCPServer):
    """Anybody may open it; deleted messages go when the client says QUIT."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, messages: list[bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Conversation)
        self.messages = messages

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Conversation(socketserver.StreamRequestHandler):
    server: Mailbox

    def handle(self) -> None:
        deleted: set[int] = set()
        self._say("+OK")
        for line in self.rfile:
            verb, *words = line.decode().split()
            number = int(words[0]) - 1 if words and words[0].isdecimal() else 0
            match verb.upper():
                case "STAT":
                    self._say(f"+OK {len(self.server.messages)} {sum(map(len, self.server.messages))}")
                case "LIST" if words:
                    self._say(f"+OK {words[0]} {len(self.server.messages[number])}")
                case "LIST":
                    self._list(len(message) for message in self.server.messages)
                case "UIDL":
                    self._list(f"uid-{at}" for at in range(len(self.server.messages)))
                case "RETR" | "TOP":
                    self._say("+OK")
                    self.wfile.write(self.server.messages[number].replace(b"\n", b"\r\n") + b".\r\n")
                case "DELE":
                    deleted.add(number)
                    self._say("+OK")
                case "QUIT":
                    kept = [message for at, message in enumerate(self.server.messages) if at not in deleted]
                    self.server.messages[:] = kept
                    self._say("+OK")
                    return
                case "USER" | "PASS" | "NOOP" | "RSET":
                    self._say("+OK")
                case _:
                    self._say("-ERR")

    def _say(self, text: str) -> None:
        try:
            self.wfile.write(text.encode() + b"\r\n")
        except ConnectionError:  # some clients say QUIT and are gone
            pass

    def _list(self, facts: Iterator[object]) -> None:
        lines = [f"{number} {fact}" for number, fact in enumerate(facts, 1)]
        self._say("\r\n".join(["+OK", *lines, "."]))


@contextmanager
def mailbox(*messages: bytes) -> Iterator[Mailbox]:
    with Mailbox(list(messages)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
