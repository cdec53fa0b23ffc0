"""Messages a second through whole pools on real NFS, on one, two and three clients, which share this machine's cores.

The clients and the server are guests (tests/mount), whose system calls cost more than on hardware: the figures tell
how they compare, and no more.
"""

from __future__ import annotations

import re
from datetime import datetime

from benchmarks.figures import Figure
from benchmarks.places import Unavailable
from tests.mount.bed import NfsBed, missing
from tests.mount.guest import Guest
from tests.mount.harness import WORKERS, Crew, eventually

VERSION = "4.2"
MESSAGES = {"noop": 3000, "sleep": 900}
NAMES = {"noop": "a no-op", "sleep": "a handler of 20 ms"}


def measure(quick: bool) -> list[Figure]:
    """Messages a second from the first settled attempt to the last."""
    if text := missing():
        raise Unavailable(text)
    rounds, share = (1, 3) if quick else (3, 1)
    figures = []
    with NfsBed(clients=3, vers=VERSION) as bed:
        for what, count in MESSAGES.items():
            for clients in (1, 2, 3):
                samples = [_rate(bed, bed.clients[:clients], what, count // share) for _ in range(rounds)]
                case = f"{NAMES[what]}, NFS {VERSION}, {WORKERS} workers on each client"
                name = f"{clients} client{'s' if clients > 1 else ''}"
                figures.append(
                    Figure(benchmark="nfs", case=case, name=name, unit="messages/s", samples=samples)
                )
    return figures


def _rate(bed: NfsBed, clients: list[Guest], what: str, count: int) -> float:
    crew = Crew(bed)
    crew.make_queue()
    fill = crew.python(bed.clients[0], "fill.py", str(count), f"{what}@test")
    if fill.wait(300) != 0:
        raise RuntimeError(f"filling failed: {fill.err.read_text()}")
    for client in clients:
        crew.start_pool(client)
    eventually(lambda: crew.count("attempt.ended") >= count, f"{count} are handled", 300)
    crew.stop(clients[0])
    times = [
        datetime.fromisoformat(at)
        for at in re.findall(r"^ts=(\S+) ", "\n".join(crew.lines("attempt.ended")), re.M)
    ]
    if len(times) != count:
        raise RuntimeError(f"{len(times)} attempts of {count} messages")
    return (count - 1) / (max(times) - min(times)).total_seconds()
