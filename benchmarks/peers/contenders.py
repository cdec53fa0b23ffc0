"""The queues that are measured, and how one's processes are run in a fresh place."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks import processes
from benchmarks.contenders.peers.job import NOTE_BYTES
from benchmarks.figures import OURS
from benchmarks.gate import Gated
from benchmarks.peers.servers import Server
from benchmarks.places import PYTHON, ROOT, Unavailable
from benchmarks.product import wait_until

WORKERS = 8
PEERS_PYTHON = ROOT / ".cache/peers/bin/python"
STAMP = ROOT / ".cache/peers.stamp"  # of a complete installation
_PROGRAM = "benchmarks.contenders.peers.program"
_WARM_MILLISECONDS = 20
_START_SECONDS = 60
_STOP_SECONDS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One queue; `drained` is of how many jobs its drain is, so that none takes less than a tenth of a second."""

    name: str
    module: str
    server: str | None = None
    drained: int
    recovers: bool = False
    syncs: bool = True
    patience_seconds: float = 12.0  # without any run, after which a job that has not run will not

    @property
    def python(self) -> str:
        """dirq and maildefer are in the project's own environment."""
        if self.module in ("maildefer", "dirq"):
            return PYTHON
        if not STAMP.exists():
            raise Unavailable("it is not installed: .ci/setup peers says why")
        return str(PEERS_PYTHON)


PEERS = (
    Peer(
        name=OURS,
        module="maildefer",
        drained=5_000,
    ),
    Peer(name="Huey, SQLite", module="huey", drained=2_000, patience_seconds=5),  # none comes back
    Peer(name="Dramatiq, Redis", module="dramatiq", server="redis", drained=2_000),
    Peer(name="Celery, Redis", module="celery", server="redis", drained=2_000),
    Peer(name="RQ", module="rq", server="redis", drained=200, recovers=True),
    Peer(name="dirq", module="dirq", drained=5_000, recovers=True, syncs=False),
    Peer(name="Procrastinate", module="procrastinate", server="postgres", drained=1_000, recovers=True),
)


class Note(NamedTuple):
    """What a job has left: see benchmarks/contenders/peers/job.py."""

    number: int
    pid: int
    began_ns: int


class Place:
    """One peer with an empty queue, in a fresh directory; with `short_waits` it notices soon who is dead."""

    def __init__(self, peer: Peer, directory: str, server: Server | None, *, short_waits: bool) -> None:
        self.peer, self.directory, self.server = peer, directory, server
        self._notes = Path(directory, "notes")
        self._notes.touch()
        sockets = server.sockets if server else ""
        self._environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "PEERS_PLACE": directory,
            "PEERS_SOCKETS": sockets,
            "PEERS_SHORT_WAITS": "1" if short_waits else "",
        }
        if server:
            server.empty()

    def enqueuer(self) -> Gated:
        """Enqueues what it is asked for: `FIRST COUNT MILLISECONDS`."""
        return Gated(self._command("enqueue"), self._environment)

    def recover(self) -> None:
        """Has the peer look for the jobs of the dead, where it doesn't do so by itself."""
        if self.peer.recovers:
            subprocess.run(self._command("recover"), env=self._environment, cwd=ROOT, check=True)

    @contextmanager
    def workers(self) -> Iterator[int]:
        """The pid that all workers are under. At the end none of them is left."""
        with open(f"{self.directory}/log", "ab") as log:
            process = subprocess.Popen(
                self._command("work", str(WORKERS)),
                env=self._environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        members: list[int] = []
        try:
            yield process.pid
            members = processes.tree(process.pid)
            process.terminate()
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            processes.kill(members or processes.tree(process.pid))
            process.wait()

    def warm_up(self, enqueuer: Gated) -> None:
        """Returns when every worker has run a job; without this, an empty queue."""
        done = self.count()
        deadline = time.monotonic() + _START_SECONDS
        while len({note.pid for note in self.notes()[done:]}) < WORKERS:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.peer.name}: not all workers run jobs:\n{self.log()}")
            before = self.count()
            enqueuer.ask(f"0 {WORKERS * 4} {_WARM_MILLISECONDS}")
            self.await_count(before + WORKERS * 4, _START_SECONDS)

    def count(self) -> int:
        """How many jobs have run, those that have twice counted so."""
        return os.path.getsize(self._notes) // NOTE_BYTES

    def notes(self) -> list[Note]:
        return [Note(*map(int, line.split())) for line in self._notes.read_text().splitlines()]

    def await_count(self, count: int, seconds: float) -> None:
        try:
            wait_until(lambda: self.count() >= count, seconds, f"{self.peer.name}: {count} jobs run", 0.002)
        except RuntimeError as error:
            raise RuntimeError(f"{error}, but {self.count()}\n{self.log()}") from None

    def log(self) -> str:
        """The end of what the workers said."""
        return Path(self.directory, "log").read_text(errors="replace")[-2000:]

    def _command(self, *words: str) -> list[str]:
        return [self.peer.python, "-m", _PROGRAM, self.peer.module, *words]
