"""A line to a server of the test's that stands still after so many bytes from the client, until the server hangs up."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass


@dataclass
class SlowLine:
    """`port` is that of the line; each connection carries so many bytes to the server while it `stalls`."""

    port: int
    most_bytes: int
    stalls: bool = True


@contextmanager
def to(port: int, most_bytes: int) -> Iterator[SlowLine]:
    listening = socket.socket()
    listening.setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVBUF, 32768
    )  # what the client can't send makes it wait
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    line = SlowLine(listening.getsockname()[1], most_bytes)
    threads: list[threading.Thread] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                threads.append(threading.Thread(target=_carry, args=(line, client, port)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield line
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for thread in (accepting, *threads):
            thread.join()


def _carry(line: SlowLine, client: socket.socket, port: int) -> None:
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        sends = threading.Thread(target=_send, args=(line, client, server))
        sends.start()
        with suppress(OSError):
            while said := server.recv(65536):
                client.sendall(said)
        with suppress(OSError):  # it may be gone
            client.shutdown(socket.SHUT_RDWR)
        sends.join()


def _send(line: SlowLine, client: socket.socket, server: socket.socket) -> None:
    left = line.most_bytes if line.stalls else 1 << 40
    with suppress(OSError):
        while left and (data := client.recv(min(left, 65536))):
            server.sendall(data)
            left -= len(data)
        if left:
            server.shutdown(socket.SHUT_WR)
