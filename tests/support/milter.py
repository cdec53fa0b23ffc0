"""A milter that puts header fields into each message at the place where OpenDKIM and OpenDMARC put theirs."""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ADD_HEADERS = 0x01
_NOTHING_BUT_THE_END = 0x01 | 0x02 | 0x04 | 0x08 | 0x10 | 0x20 | 0x40 | 0x100 | 0x200


class _Connection(socketserver.StreamRequestHandler):
    fields: list[tuple[str, str]]

    def handle(self) -> None:
        while len(head := self.rfile.read(5)) == 5:
            size, command = struct.unpack(">Ic", head)
            self.rfile.read(size - 1)
            match command:
                case b"O":
                    self._send(b"O" + struct.pack(">III", 6, _ADD_HEADERS, _NOTHING_BUT_THE_END))
                case b"D" | b"A":
                    pass  # macros, and the end of a message that was given up: without an answer
                case b"Q":
                    return
                case b"E":
                    for name, value in self.fields:
                        self._send(b"i" + struct.pack(">I", 1) + f"{name}\0{value}\0".encode())
                    self._send(b"c")
                case _:
                    self._send(b"c")

    def _send(self, packet: bytes) -> None:
        self.wfile.write(struct.pack(">I", len(packet)) + packet)


@contextmanager
def inserting(*fields: tuple[str, str]) -> Iterator[int]:
    """The port of a milter that inserts these at index 1, one after the other."""
    kind = type("Connection", (_Connection,), {"fields": list(fields)})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), kind) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
