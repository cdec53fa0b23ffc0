"""Whole pools on the clients of a bed, messages that enter on all of them, and the reckoning at the end.

Beat and TTL are small, and keep the relation of the defaults: three beats and two of a client's longest retry.  With
the default TTL the retry is the NFSv4 client's longest pause during a server's grace period, 15 s: 3 * 5 + 2 * 15 = 45.
Here the grace period is 10 s; the client pauses 0.1 s, 0.2 s, … 6.4 s, so 6.4 s is the longest that begins in it:
3 * 1 + 2 * 6.4 = 15.8.
"""

from __future__ import annotations

import re
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.mount.bed import EXPORT, NfsBed
from tests.mount.guest import Guest, Job

BEAT_SECONDS, TTL_SECONDS = 1.0, 16.0
WORKERS = 2
APPLICATION = Path(__file__).parent / "application"
ROOT = Path(__file__).resolve().parent.parent.parent
QUEUE, RUN = "/mnt/nfs/queue", "/mnt/nfs/run"
_PYTHON = "/mnt/python"  # where all users may come to it, as they may not to a home of root's
_LET_IN = f"mkdir -p {_PYTHON} && mountpoint -q {_PYTHON} || mount --bind {sys.base_prefix} {_PYTHON}"
_LEFT = "tmp new cur .later .dead .maildefer/leases .maildefer/tokens .maildefer/dead"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a case came to."""

    accepted: int
    lost: int
    extra: int
    takeovers: int
    fences: int
    doubles: int  # generations of an entry that were handled twice: two claims of one name
    left: tuple[str, ...]


@dataclass(slots=True)
class Crew:
    """The pools and the feeders of a bed's clients."""

    bed: NfsBed
    pools: list[Job] = field(default_factory=list)
    feeders: list[Job] = field(default_factory=list)
    settings: str = ""  # the application's module, where it is not the usual one
    more_queues: tuple[str, ...] = ()  # that it has

    def python(self, guest: Guest, *argv: str, user: int = 0, group: int = 0) -> Job:
        """Start Python in the application's directory, with this checkout, as root or as another user."""
        runtime = f"/run/maildefer-{user}"
        path = f"{ROOT}:{sysconfig.get_path('purelib')}"
        env = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "MAILDEFER_HOST_ID": guest.name}
        env |= {"MAILDEFER_RUNTIME_DIR": runtime, "MAILDEFER_LOG_FORMAT": "logfmt"}
        env |= {"MAILDEFER_SETTINGS_MODULE": self.settings} if self.settings else {}
        script = f'mkdir -p -m 700 {runtime}; cd "$0" && exec "$@"'
        python = [sys.executable]
        if user:
            script = f"{_LET_IN}; mkdir -p -m 700 {runtime} && chown {user} {runtime}; {script}"
            become = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
            python = [*become, f"{_PYTHON}/bin/python{sysconfig.get_python_version()}"]
        return guest.run(["sh", "-c", script, str(APPLICATION), *python, *argv], env)

    def maildefer(self, guest: Guest, *argv: str, user: int = 0, group: int = 0) -> Job:
        return self.python(guest, "-m", "maildefer.cli", *argv, user=user, group=group)

    def begin(self) -> None:
        """Make the queue, and start a pool on every client; they are up when each has joined."""
        self.make_queue()
        for guest in self.bed.clients:
            self.start_pool(guest)
        leases = len(self.bed.clients) * (1 + len(self.more_queues))
        eventually(lambda: self.count("lease.joined") == leases, "all pools join", 60)

    def make_queue(self) -> None:
        seconds = str(BEAT_SECONDS), str(TTL_SECONDS)
        made = self.python(self.bed.clients[0], "make.py", *seconds, *self.more_queues)
        assert made.wait(60) == 0, made.err.read_text()

    def start_pool(self, guest: Guest) -> Job:
        pid = f"{RUN}/{guest.name}.pid"
        pool = self.maildefer(guest, "supervise", "--workers", str(WORKERS), "--pid", pid)
        self.pools.append(pool)
        return pool

    def feed(
        self,
        count: int,
        *,
        at_once: int = 0,
        pause_seconds: float = 0.1,
        dead: int = 0,
        priorities: bool = False,
    ) -> None:
        """Let messages enter on every client: some as fast as they can, the others one after each pause."""
        argv = [*map(str, (at_once, count, pause_seconds, dead)), *(["any"] if priorities else [])]
        for guest in self.bed.clients:
            self.feeders.append(self.python(guest, "feed.py", *argv))

    def count(self, event: str, guest: Guest | None = None, **facts: str) -> int:
        """How many lines of an event there are in the logs of all pools, or of one client's."""
        return len(self.lines(event, guest, **facts))

    def lines(self, event: str, guest: Guest | None = None, **facts: str) -> list[str]:
        wanted = [f" event={event} ", *(f" {name}={value}" for name, value in facts.items())]
        return [
            line
            for pool in self.pools
            if guest is None or pool.guest is guest
            for line in pool.err.read_text(errors="replace").splitlines()
            if all(want in f"{line} " for want in wanted)
        ]

    def notes(self, word: str, guest: Guest | None = None) -> list[tuple[str, int]]:
        """Keys and attempts that the handlers noted."""
        rows = self.rows(f"journal.{guest.name if guest else '*'}.*")
        return [(row[1], int(row[2])) for row in rows if row[0] == word and len(row) == 3]

    def rows(self, pattern: str) -> list[list[str]]:
        """The words of each line that programs and handlers wrote to files of that pattern."""
        paths = self.bed.directory.glob(pattern)
        return [line.split() for path in paths for line in path.read_text().splitlines()]

    def accepted(self) -> set[str]:
        return {key for keys in self.rows("accepted.*") for key in keys}

    def kill_workers(self, guest: Guest) -> int:
        """Kill all workers of a client; returns how many there were."""
        workers = guest.check(["sh", "-c", "pgrep -f '[m]aildefer: worker'"]).split()
        guest.check(["kill", "-9", *workers])
        return len(workers)

    def crash_server(self, *handled: int, workers_too: bool = False) -> int:
        """Crash the server and boot it again, each time that so many were handled; returns how many workers died.

        With `workers_too`, all workers of a client are killed while it is away, each time of another client.
        """
        deaths = 0
        for count, guest in zip(handled, self.bed.clients, strict=False):
            self.await_handled(count)
            self.bed.server.kill()
            deaths += self.kill_workers(guest) if workers_too else 0
            self.bed.server.boot()
        return deaths

    def in_hand(self, guest: Guest) -> Counter[tuple[str, int]]:
        """What a client's handlers have begun and not ended."""
        begun = Counter(self.notes("start", guest))
        return begun - Counter(self.notes("end", guest)) - Counter(self.notes("defer", guest))

    def await_handled(self, count: int, guest: Guest | None = None, seconds: float = 90) -> None:
        what = f"{guest.name if guest else 'somebody'} handles {count}"
        eventually(lambda: len(self.notes("end", guest)) >= count, what, seconds)

    def await_fenced(self, guest: Guest, seconds: float = 120) -> None:
        """Somebody else has ended the client's lease."""
        eventually(lambda: self._fences_of(guest), f"{guest.name} is fenced", seconds)

    def _fences_of(self, guest: Guest) -> int:
        lines = self.lines("lease.fenced")
        return sum(1 for line in lines if re.search(rf" lease={guest.name}-", line))

    def drain(self, seconds: float = 180) -> None:
        """Wait for the feeders, then until nothing waits, is claimed or is deferred."""
        deadline = time.monotonic() + seconds
        for feeder in self.feeders:
            code = feeder.wait(max(1.0, deadline - time.monotonic()))
            assert code in (0, 137), (
                f"feeding on {feeder.guest.name} ended in {code}: {feeder.err.read_text()}"
            )
        folders = " ".join(f"{EXPORT}/queue/{folder}" for folder in ("new", "cur", ".later/new"))
        look = ["sh", "-c", f"find {folders} -type f | head -n 5"]
        eventually(lambda: not self.bed.server.check(look), "everything is drained", seconds)

    def stop(self, guest: Guest | None = None) -> None:
        """One client stops the pools of all, through the mount; then every supervisor that lived has ended well."""
        stop = self.maildefer(guest or self.bed.clients[-1], "stop", "--all", RUN, "--timeout", "60")
        assert stop.wait(120) == 0, f"stop: {stop.out.read_text()} {stop.err.read_text()}"
        for pool in self.pools:
            code = pool.wait(30)
            assert code in (0, 137), f"the pool of {pool.guest.name} ended in {code}: {self.tail(pool)}"
        for client in self.bed.clients:
            left = client.check(["sh", "-c", "ps -e -o args= | grep '[m]aildefer' || true"])
            assert left == "", f"{client.name} still runs {left}"

    def tail(self, pool: Job) -> str:
        lines = pool.err.read_text(errors="replace").splitlines()
        return "\n".join(
            [line for line in lines if "attempt.ended" not in line and "entry.promoted" not in line][-40:]
        )

    def reckon(self) -> Figures:
        """Compare what was accepted, what the handlers noted, what the logs tell, and what lies on the server."""
        accepted, started, ended = self.accepted(), self.notes("start"), self.notes("end")
        expected = len({key for key, _ in started}) + len({key for key, _ in self.notes("defer")})
        places = f"{_LEFT} .maildefer/requests ../run"
        unheld = "! -path '*/done/*' ! -path '*/tokens/???/*' ! -name maildirfolder"
        script = f"cd {EXPORT}/queue && find {places} -type f {unheld}"
        return Figures(
            accepted=len(accepted),
            lost=len(accepted - {key for key, _ in ended}),
            extra=len(started) - expected,
            takeovers=self.count("claim.reclaimed") + self.count("claim.released"),
            fences=self.count("lease.fenced"),
            doubles=self._doubles(started),
            left=tuple(self.bed.server.check(["sh", "-c", script]).split()),
        )

    def _doubles(self, started: list[tuple[str, int]]) -> int:
        """A release gives the attempt back, so that its key may begin the same attempt once more, in a later name."""
        released = Counter(re.findall(r" key=(\S+)", "\n".join(self.lines("claim.released"))))
        again: Counter[str] = Counter()
        for (key, _), times in Counter(started).items():
            again[key] += times - 1
        return (again - released).total()


def eventually(condition: Callable[[], T], what: str, seconds: float) -> T:
    """Wait until the condition gives something true, and return that; AssertionError when it does not in time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)
    return found
