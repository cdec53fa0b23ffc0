"""`python -m benchmarks.soak`: a pool under steady mixed load for an hour, its memory and descriptors plotted.

Flat is: of each process, the median of the last quarter's anonymous memory is no more than 3 % or 1 MB above that of
the second quarter's (the first is for warming up), and that of its descriptors no more than one above.
Ends with 1 if a process was replaced, is not flat, a message was lost or left over, or the pool did not end in order.
"""

from __future__ import annotations

import argparse
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import processes
from benchmarks.mail_load import MailLoad
from benchmarks.places import APPLICATIONS
from maildefer.control.audit import audit
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import Project, eventually

SAMPLES = 240
WIDTH = 60  # of a plot
MAIL = 0.2  # of the messages comes by SMTP
MIX = {"quick": 60, "slow": 10, "parse": 10, "defer": 5, "fail": 1, "onward": 10, "talk": 4}
GROWTH, GROWTH_BYTES = 0.03, 1 << 20
BARS = "▁▂▃▄▅▆▇█"


@dataclass(slots=True)
class Series:
    """One process's samples."""

    name: str
    memory_bytes: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)

    def faults(self) -> list[str]:
        """In what it is not flat."""
        quarter = len(self.memory_bytes) // 4
        if not quarter:
            return [f"{self.name}: too few samples"]
        (before, after), (fewer, more) = (
            (statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:]))
            for values in (self.memory_bytes, self.descriptors)
        )
        found = []
        if after > before + max(before * GROWTH, GROWTH_BYTES):
            found.append(f"{self.name}: memory grew from {before / 1e6:.1f} to {after / 1e6:.1f} MB")
        if more > fewer + 1:
            found.append(f"{self.name}: descriptors grew from {fewer:.0f} to {more:.0f}")
        return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=50, help="messages a second (50)")
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    print(f"soak: {options.minutes:g} min, {options.rate:g} messages a second, {options.workers} workers")
    with tempfile.TemporaryDirectory(prefix="maildefer-soak-") as directory:
        soak = Soak(Path(directory), options.minutes * 60, options.rate, options.workers)
        try:
            faults = soak.run()
        finally:
            soak.end()
    print(soak.plots())
    print("flat" if not faults else "\n".join(f"VIOLATED: {fault}" for fault in faults))
    return int(bool(faults))


class Soak:
    """One run."""

    def __init__(self, directory: Path, seconds: float, rate: float, workers: int) -> None:
        self._random = random.Random(1)
        self._seconds, self._rate = seconds, rate
        self._project = Project(
            directory,
            APPLICATIONS / "soak",
            queues=("run/queue", "run/later"),
            beat_seconds=5.0,
            ttl_seconds=45.0,
            journal=True,
        )
        self._pool = Pool(self._project, workers=workers, intake=True)
        self._port: int | None = None
        count = int(seconds * rate * MAIL)
        self._mail = MailLoad(lambda: self._port, self._recipient, count, 1 / (rate * MAIL))
        self._halt = threading.Event()
        self._pushed = 0
        self._series: dict[int, Series] = {}

    def run(self) -> list[str]:
        """Load, sample, drain, judge: the faults."""
        self._pool.start().await_ready()
        address = self._pool.await_event("child.started", seconds=60, kind="intake")["address"]
        self._port = int(address.rpartition(":")[2])
        eventually(
            lambda: len(processes.by_role(self._pool.pid).get("intake", [])) == 2, "front end and writer"
        )
        self._series = self._members()
        pusher = threading.Thread(target=self._push)
        for thread in (pusher, self._mail.thread):
            thread.start()
        self._sample()
        self._halt.set()
        self._mail.stop()
        for thread in (pusher, self._mail.thread):
            thread.join()
        eventually(self._project.is_empty, "all is handled", 180)
        members = self._members()
        faults = [fault for series in self._series.values() for fault in series.faults()]
        faults += [f"{self._series[pid].name} was replaced" for pid in self._series.keys() - members.keys()]
        if code := self._pool.stop(60):
            faults.append(f"the supervisor ended with {code}")
        return faults + self._losses()

    def end(self) -> None:
        """Leave no process behind, whatever happened."""
        self._halt.set()
        self._mail.stop()
        if self._pool.process is not None and self._pool.process.poll() is None:
            self._pool.kill_tree()

    def samples(self, name: str) -> list[float]:
        """A process's memory, in bytes."""
        return next(series.memory_bytes for series in self._series.values() if series.name == name)

    def plots(self) -> str:
        """For each process two lines of bars, from its least to its most."""
        lines = []
        for series in self._series.values():
            for what, values, unit in (
                ("memory", [value / 1e6 for value in series.memory_bytes], "MB"),
                ("files", series.descriptors, ""),
            ):
                low, high = min(values), max(values)
                lines.append(
                    f"  {series.name:<12} {what:<6} {bars(values)} {low:.1f} – {high:.1f} {unit}".rstrip()
                )
        return "\n".join(lines)

    def _losses(self) -> list[str]:
        report = audit([layout.path for layout in self._project.layouts.values()], timeout_seconds=10)
        accepted, sent = report.accepted, self._pushed + len(self._mail.told.keys)
        print(f"  {accepted} accepted ({len(self._mail.told.keys)} by SMTP), {report.ended} ended, ", end="")
        print(
            f"{report.found['dead']} dead, {report.count('lost')} lost, {report.count('unproven')} unproven"
        )
        found = [f"{suspect.verdict}: {suspect.key}" for suspect in report.suspects]
        if accepted != sent or self._mail.told.doubtful or report.ended != accepted:
            found.append(f"{sent} were acknowledged, {accepted} accepted, {report.ended} ended")
        return found

    def _recipient(self) -> str:
        [kind] = self._random.choices(list(MIX), list(MIX.values()))
        return f"{kind}{self._random.randrange(1000)}@test"

    def _push(self) -> None:
        every = 1 / (self._rate * (1 - MAIL))
        due = time.monotonic()
        while not self._halt.wait(max(0.0, due - time.monotonic())):
            due += every
            self._pushed += len(self._project.push(self._recipient().partition("@")[0]))

    def _sample(self) -> None:
        every = self._seconds / SAMPLES
        due = time.monotonic()
        for _ in range(SAMPLES):
            due += every
            time.sleep(max(0.0, due - time.monotonic()))
            for pid, series in self._series.items():
                if memory := processes.anonymous_bytes(pid):
                    series.memory_bytes.append(memory)
                    series.descriptors.append(processes.descriptors(pid))

    def _members(self) -> dict[int, Series]:
        roles = processes.by_role(self._pool.pid)
        return {
            pid: Series(role if len(pids) == 1 else f"{role} {number}")
            for role, pids in roles.items()
            for number, pid in enumerate(pids, 1)
        }


def bars(values: list[float]) -> str:
    """The values in so many columns, the mean of each."""
    low, high = min(values), max(values)
    step = max(1.0, len(values) / WIDTH)
    columns = [
        values[int(n * step) : max(int(n * step) + 1, int((n + 1) * step))]
        for n in range(int(len(values) / step))
    ]
    means = [statistics.fmean(column) for column in columns]
    return "".join(BARS[min(7, int((mean - low) / (high - low or 1) * 8))] for mean in means)


if __name__ == "__main__":
    sys.exit(main())
