"""Memory of the front end while 50 clients send a large message each: it does not grow with the messages."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence

from benchmarks import filesystem, processes, product
from benchmarks.figures import Figure, Limit
from benchmarks.filler import RECIPIENT, make_maildir

_CLIENTS = 50
_LINES = (b"x" * 76 + b"\r\n") * 1000
_LOOK_SECONDS = 0.05
MB = 1e6


def measure(quick: bool) -> list[Figure]:
    """The most resident memory that front end and writer had at a time, above what they had idle."""
    sizes = (2_000_000, 8_000_000) if quick else (5_000_000, 20_000_000)
    figures = []
    with filesystem.ext4() as base:
        growths = {size: _growth_bytes(base, size) for size in sizes}
    for size, growth in growths.items():
        per_client = growth / _CLIENTS / MB
        # The bounded buffer, in both processes, and what Python keeps of it.
        limit = Limit(bound=4, at_most=True)
        figures.append(_figure(f"{_CLIENTS} × {size / MB:g} MB", "RSS a connection", "MB", per_client, limit))
    small, large = (growths[size] for size in sizes)
    case = f"{_CLIENTS} × {sizes[1] / MB:g} MB"
    return [
        *figures,
        _figure(case, "to messages a quarter as large", "", large / small, Limit(bound=1.5, at_most=True)),
    ]


def _growth_bytes(base: str, size_bytes: int) -> float:
    with filesystem.fresh_directory(base) as directory:
        queue = make_maildir(os.path.join(directory, "queue"))
        with product.intake(queue) as (port, pid):
            pids = processes.tree(pid)
            before, most = _resident(pids), 0
            taken: list[bool] = []
            clients = [
                threading.Thread(target=lambda: taken.append(_send(port, size_bytes)))
                for _ in range(_CLIENTS)
            ]
            for client in clients:
                client.start()
            while any(client.is_alive() for client in clients):
                most = max(most, _resident(pids))
                time.sleep(_LOOK_SECONDS)
        if taken.count(True) != _CLIENTS:
            raise RuntimeError(f"of {_CLIENTS} messages {taken.count(True)} were taken")
    return float(max(most - before, 1))


def _resident(pids: Sequence[int]) -> int:
    return sum(map(processes.rss_bytes, pids))


def _send(port: int, size_bytes: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=300) as client:
        client.sendall(f"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n".encode())
        for _ in range(size_bytes // len(_LINES) + 1):
            client.sendall(_LINES)
        client.sendall(b".\r\nQUIT\r\n")
        return b" queued as " in b"".join(iter(lambda: client.recv(65536), b""))


def _figure(case: str, name: str, unit: str, value: float, limit: Limit) -> Figure:
    return Figure(benchmark="large", case=case, name=name, unit=unit, samples=[value], limit=limit)
