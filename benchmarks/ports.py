"""Ports for programs that can't be handed a socket."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LEAST = 10_000
_RANDOM = random.SystemRandom()  # whatever a test run seeds, its processes choose apart
_given: set[int] = set()  # by this process, which may bind them later


def free_port() -> int:
    """One below those that the kernel hands out: whoever asks it for any port is not given this one meanwhile."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = _RANDOM.randrange(_LEAST, first) if first > _LEAST + 1000 else 0
        try:
            with socket.create_server(("127.0.0.1", port)) as trial:
                port = int(trial.getsockname()[1])
        except OSError:  # somebody's
            continue
        if port not in _given:
            _given.add(port)
            return port
