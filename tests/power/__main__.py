"""`python -m tests.power FILESYSTEM`, as root where the kernel has dm-log-writes: record, cut, mount, look.

It prints one line of JSON.  `--forget files`, `directories` or `markers` plants a bug: those are not synced; `order`
has the filesystem taken for one that keeps the order of changes.  `--one-sync` has one sync do for a push: then
`--forget check` takes whatever a cut has left for whole, and `recovery` leaves it where it is.  `--replace` has emptied
folders replaced all the time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final
from unittest.mock import patch

from maildefer.control import journal_gaps
from maildefer.maildir import durable, journal, journal_file
from maildefer.maildir.drafts import synced
from tests.power.disks import MAKE
from tests.power.inspection import complaints, mounted
from tests.power.mapper import Recorder
from tests.power.record import Cut, Entry, cuts, entries, marks_before
from tests.power.workload import work
from tests.support.queues import LABEL

_LOG_BYTES: Final = 1 << 30  # sparse


@dataclass(slots=True)
class Trial:
    """A disk, the log of what was written to it, and what came of each cut."""

    kind: str
    home: Path
    found: list[str] = field(default_factory=list)
    keeps_order: bool = False
    options: str = ""  # of the mount
    one_sync: bool = False
    replaces: bool = False
    replaced: int = 0
    audited: Counter[str] = field(default_factory=Counter)  # over all cuts: what audits said
    recovered: int = 0  # over all cuts: what was whole
    torn: int = 0

    def record(self, pushes: int, seed: int, forget: str) -> None:
        """Let the workload run on a fresh filesystem, whose state at first is kept."""
        size, make = MAKE[self.kind]
        for name, size_bytes in (("disk", size), ("log", _LOG_BYTES)):
            with open(self.home / name, "wb") as file:
                file.truncate(size_bytes)
        subprocess.run([*make, str(self.home / "disk")], check=True)
        self._copy("disk", "base")
        disk, log = attach(self.home / "disk"), attach(self.home / "log")
        point = self._point("mount")
        try:
            with Recorder(disk, log) as recorder, mounted(recorder.path, point, self.kind, *self._with()):
                self.keeps_order = durable.keeps_order(os.stat(point).st_dev)
                self.replaced = work(
                    f"{point}/queue",
                    pushes,
                    seed,
                    recorder.mark,
                    forget,
                    one_sync=self.one_sync,
                    replaces=self.replaces,
                )
        finally:
            subprocess.run(["losetup", "--detach", disk, log], check=True)

    def cut(self, log: list[Entry], chosen: list[Cut]) -> None:
        """Rebuild the disk for each cut, in order, and look."""
        point, at = self._point("after"), 0
        with open(self.home / "base", "r+b", 0) as base, open(self.home / "log", "rb", 0) as data:
            for cut in chosen:
                for entry in log[at : cut.end]:
                    write(base.fileno(), entry.at_byte, data.fileno(), entry.data_at, entry.size_bytes)
                at = cut.end
                self._copy("base", "work")
                with open(self.home / "work", "r+b", 0) as disk:
                    for where, size, source in cut.pieces:
                        write(disk.fileno(), where, data.fileno(), source, size)
                with mounted(str(self.home / "work"), point, self.kind, *self._with("loop")):
                    marks = marks_before(log, cut)
                    text = f"cut at {cut.end} of {len(log)}, {len(cut.pieces)} pieces more"
                    self.found += [
                        f"{text}: {what}"
                        for what in complaints(f"{point}/queue", marks, self._report, self.audited)
                    ]

    def _with(self, *more: str) -> list[str]:
        options = ",".join(filter(None, (*more, self.options)))
        return ["-o", options] if options else []

    def _report(self, key: str, is_whole: bool) -> None:
        self.recovered += is_whole
        self.torn += not is_whole

    def _copy(self, source: str, target: str) -> None:
        subprocess.run(
            ["cp", "--sparse=always", str(self.home / source), str(self.home / target)], check=True
        )

    def _point(self, name: str) -> str:
        (self.home / name).mkdir()
        return str(self.home / name)


def attach(path: Path) -> str:
    """A loop device for a file."""
    done = subprocess.run(
        ["losetup", "--find", "--show", str(path)], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def write(disk: int, where: int, log: int, source: int, size: int) -> None:
    if size:
        os.pwrite(disk, os.pread(log, size, source), where)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.power", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("filesystem", choices=sorted(MAKE))
    parser.add_argument("--pushes", type=int, default=60)
    parser.add_argument("--cuts", type=int, default=0, help="so many, chosen at random (0: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--forget",
        choices=("nothing", "files", "directories", "markers", "order", "check", "recovery"),
        default="nothing",
    )
    parser.add_argument("--mount", default="", metavar="OPTIONS", help="of mount(8), such as data=writeback")
    parser.add_argument("--one-sync", action="store_true", help="for a push")
    parser.add_argument("--replace", action="store_true", help="emptied folders")
    options = parser.parse_args()
    random = Random(options.seed)
    journal_file.name_host_with(lambda: LABEL)
    planted = {
        "order": patch.object(durable, "keeps_order", lambda device: True),
        "check": patch.object(synced, "_is_whole", lambda *arguments: True),
        "recovery": patch.object(synced, "_is_left", lambda *arguments: False),
    }
    with planted.get(options.forget, nullcontext()), TemporaryDirectory(dir="/dev/shm") as home:
        trial = Trial(
            options.filesystem,
            Path(home),
            options=options.mount,
            one_sync=options.one_sync,
            replaces=options.replace,
        )
        trial.record(options.pushes, options.seed, options.forget)
        log = list(entries(f"{home}/log"))
        begin = next(number for number, entry in enumerate(log) if entry.mark == "begin")
        every = list(cuts(log, begin, random))
        chosen = (
            sorted(random.sample(every, options.cuts), key=every.index)
            if 0 < options.cuts < len(every)
            else every
        )
        with ExitStack() as booted_again:
            for module in (journal, journal_file, journal_gaps, synced):
                booted_again.enter_context(patch.object(module, "boot_name", lambda: "another"))
            trial.cut(log, chosen)
    print(
        json.dumps(
            {
                "pushed": sum(entry.mark.startswith("pushed") for entry in log),
                "unique": sum(entry.mark.startswith("unique") for entry in log),
                "writes": sum(entry.size_bytes > 0 for entry in log),
                "confirmed": sum(entry.is_durable for entry in log),
                "keeps_order": trial.keeps_order,
                "cuts": len(chosen),
                "possible": len(every),
                "replaced": trial.replaced,
                **trial.audited,
                "recovered": trial.recovered,
                "torn": trial.torn,
                "found": trial.found,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
