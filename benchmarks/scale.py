"""What long lists cost: seconds, memory and microseconds an entry at growing sizes, beside `os.scandir`.

`python -m benchmarks scale --sizes 10000,1000000`. Each case runs in a process of its own, so that its memory is its
own: `python -m benchmarks.scale CASE SIZE FOLDER`.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any, Final

from benchmarks import filesystem
from benchmarks.figures import Figure, Limit
from benchmarks.places import PYTHON, ROOT
from maildefer.control import queue_status
from maildefer.control.audit import audit
from maildefer.handling.application import Application
from maildefer.handling.handoff_check import check_handoffs
from maildefer.maildir import journal, scan
from maildefer.maildir.layout import Format, create_queue
from maildefer.maildir.upkeep.observer import LeaseObserver
from maildefer.maildir.upkeep.promote import Promoter
from maildefer.maildir.upkeep.reclaim import Reclaimer, StateOf
from maildefer.pool.context import QueueOfPool
from maildefer.pool.scoreboard import (
    GATHERED_PLACES,
    QUEUE_SHIFT,
    Header,
    ProcessKind,
    QueueState,
    QueueWord,
    Scoreboard,
    SlotWord,
)
from maildefer.pool.status_record import on_claims
from maildefer.pool.worker.offers import share_of, unpack
from maildefer.pool.worker.scout import QueueScout

SIZES: Final = (10_000, 100_000)
QUICK_SIZES: Final = (1_000, 10_000)
sizes: Sequence[int] = ()  # as asked on the command line
ENTRIES_A_ROUTE: Final = 10  # a size of 100,000 means 10,000 routes
# An entry of the largest size may cost so much more than one of the smallest: 1 is linear, the sizes' ratio quadratic.
LINEAR: Final = Limit(bound=2, at_most=True)
FLAT_MB: Final = Limit(bound=64, at_most=True)  # beyond what the process took before


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one case at one size."""

    seconds: float
    cpu_us_per_entry: float
    scandir_us_per_entry: float
    grown_mb: float


def measure(quick: bool) -> list[Figure]:
    """Every case at every size, on tmpfs: what is looked for is our own work, not the disk's."""
    chosen = sizes or (QUICK_SIZES if quick else SIZES)
    rounds = 1 if quick else 3
    figures: list[Figure] = []
    with filesystem.tmpfs() as base:
        for case in CASES:
            costs: dict[int, list[Cost]] = {size: [] for size in chosen}
            for _ in range(rounds):
                for size in chosen:
                    costs[size].append(_cost(case, size, base))
            figures += _figures(case, costs)
    return figures


def _cost(case: str, size: int, base: str) -> Cost:
    with filesystem.fresh_directory(base) as folder:
        command = [PYTHON, "-m", "benchmarks.scale", case, str(size), folder]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise RuntimeError(f"{case} of {size:,}: {done.stderr[-2000:]}")
    return Cost(**json.loads(done.stdout))


def _figures(case: str, costs: dict[int, list[Cost]]) -> list[Figure]:
    figures = []
    for size, taken in costs.items():
        for name, unit, limit in (
            ("seconds", "s", None),
            ("cpu_us_per_entry", "µs", None),
            ("scandir_us_per_entry", "µs", None),
            ("grown_mb", "MB", None if case in GROWING else FLAT_MB),
        ):
            samples = [float(getattr(cost, name)) for cost in taken]
            figures.append(_figure(case, f"{size:,}: {name.replace('_', ' ')}", unit, samples, limit))
    few, many = min(costs), max(costs)
    growth = [
        mine.cpu_us_per_entry / first.cpu_us_per_entry
        for first, mine in zip(costs[few], costs[many], strict=True)
    ]
    figures.append(_figure(case, f"an entry of {many:,} beside one of {few:,}", "times", growth, LINEAR))
    return figures


def _figure(case: str, name: str, unit: str, samples: list[float], limit: Limit | None) -> Figure:
    return Figure(benchmark="scale", case=case, name=name, unit=unit, samples=samples, limit=limit)


# The cases. Each prepares its folder, and returns what is measured and the folder that it lists.

Work = tuple[Callable[[], object], str]


def promote(size: int, folder: str) -> Work:
    """Entries that are due at the same moment."""
    layout = create_queue(f"{folder}/queue")
    _touch(layout.later_new, size, ",n=1,d=1700000000")
    promoter = Promoter(layout)

    def work() -> None:
        while any(scan.entries(layout.later_new)):
            promoter.relist(time.time())
            promoter.promote(time.time())

    return work, layout.later_new


def list_deferred(size: int, folder: str) -> Work:
    """A keeper's look at entries that are due tomorrow, which it takes once a minute."""
    layout = create_queue(f"{folder}/queue")
    _touch(layout.later_new, size, f",n=1,d={int(time.time()) + 86_400}")
    return Promoter(layout).relist, layout.later_new


def take_over(size: int, folder: str) -> Work:
    """Entries of another host's share, which claims nothing."""
    layout = create_queue(f"{folder}/queue")
    _touch(layout.new, 2 * size, "")
    for name in os.listdir(layout.new):
        if share_of(name, 2) == 0:
            os.unlink(f"{layout.new}/{name}")
    board = Scoreboard(1, 4)
    for word, value in ((QueueWord.STATE, QueueState.SERVED), (QueueWord.HOSTS, 2), (QueueWord.LOCAL, 1)):
        board.words[board.queue(0) + word] = int(value)

    def claim(data: bytes) -> None:
        for name in unpack(data):
            os.unlink(f"{layout.new}/{name}")

    claim_all = SimpleNamespace(send=claim)
    shared: Any = SimpleNamespace(
        queues=[QueueOfPool(name="run/queue", layout=layout)],
        board=board,
        offers=[(claim_all, None)],
        not_paused=0,
    )
    scout = QueueScout(shared, 0)

    def work() -> None:
        while any(scan.entries(layout.new)):
            scout._pass()

    return work, layout.new


def audit_claims(size: int, folder: str) -> Work:
    """A keeper's scan of `cur/`, where its workers hold everything, for batches; taken at each beat."""
    layout = create_queue(f"{folder}/queue")
    own = "bench-1-abcdef012345"
    board = Scoreboard(1, size // GATHERED_PLACES + 4)
    each = board.slots - 2
    board.words[Header.USED] = each
    for slot in range(each):
        base = board.slot(slot)
        board.words[base + SlotWord.PID], board.words[base + SlotWord.KIND] = (
            1000 + slot,
            int(ProcessKind.WORKER),
        )
        board.words[base + SlotWord.GATHERED] = GATHERED_PLACES
    for number in range(size):
        slot, place = number % each, number // each
        board.words[board.gathering(slot) + place] = number + 1 | 1 << QUEUE_SHIFT
        owner = f"{own}.{1000 + slot}.{number + 1}"
        _create(f"{layout.cur}/1763982000.M0P1Q{number}R9c1f0a77.bench,S=0,a=1:1,{owner}")

    def look() -> StateOf:
        on_claim = on_claims(board)
        return lambda owner: "held" if on_claim(owner.pid, owner.seq) else "dead"

    observer = LeaseObserver(layout, Format(), lambda: own, lambda holder: False)
    recovery = Reclaimer(
        layout, observer, own=lambda: own, look=look, host="bench", max_crashes=5, grace_seconds=60
    )

    def work() -> None:
        if recovery.scan():
            raise RuntimeError("what a worker holds was taken back")

    return work, layout.cur


def audit_journal(size: int, folder: str) -> Work:
    """The loss audit of entries that all wait."""
    layout = create_queue(f"{folder}/queue")
    journal.begin_journal(layout)
    _touch(layout.new, size, "")
    with open(f"{layout.journal}/2026-01-01.bench.b0000000.pushed", "w", encoding="ascii") as file:
        file.writelines(f"\n1.0 push {name} ." for name in os.listdir(layout.new))
    return lambda: audit([layout.path], timeout_seconds=0), layout.new


def count(size: int, folder: str) -> Work:
    """What `status` counts."""
    layout = create_queue(f"{folder}/queue")
    _touch(layout.new, size, "")

    def work() -> None:
        if queue_status.read_queue_status(layout.path, 600).waiting != size:
            raise RuntimeError("not all were counted")

    return work, layout.new


def load_routes(size: int, folder: str) -> Work:
    """Loading and checking an application of very many routes, fifty to a module."""
    queues: list[str] = []
    os.makedirs(f"{folder}/scaled")
    for number in range(max(1, size // ENTRIES_A_ROUTE // 50)):
        queues.append(f"scaled.m{number}")
        with open(f"{folder}/scaled/m{number}.py", "w", encoding="ascii") as file:
            file.write("from maildefer.routing import route, stateless\n")
            file.writelines(
                f'@route("m{number}r{each}@host")\n@stateless\ndef H{each}(message): pass\n'
                for each in range(50)
            )
    with open(f"{folder}/scaled/settings.py", "w", encoding="ascii") as file:
        file.write(f"queues = {{'run/queue': {queues!r}}}\n")
    os.environ["MAILDEFER_SETTINGS_MODULE"] = "scaled.settings"
    os.chdir(folder)
    sys.path.insert(0, folder)
    return lambda: check_handoffs(Application.load()), f"{folder}/scaled"


CASES: Final = {
    case.__name__: case
    for case in (promote, list_deferred, take_over, audit_claims, audit_journal, count, load_routes)
}
GROWING: Final = {"load_routes", "audit_claims"}  # each route, and each claim in hand, is held in memory


def main(case: str, size: int, folder: str) -> None:
    """Measures one case here, and prints its cost."""
    work, listed = CASES[case](size, folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    with os.scandir(listed) as listing:
        for found in listing:
            found.name  # noqa: B018  # what there is to compare with: each name once
    scanned = time.process_time() - began
    began, wall = time.process_time(), time.perf_counter()
    work()
    used, took = time.process_time() - began, time.perf_counter() - wall
    cost = Cost(
        seconds=took,
        cpu_us_per_entry=used / size * 1e6,
        scandir_us_per_entry=scanned / size * 1e6,
        grown_mb=(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3,
    )
    print(json.dumps(asdict(cost)))


def _touch(folder: str, size: int, fields: str) -> None:
    for number in range(size):
        _create(f"{folder}/1763982000.M0P1Q{number}R9c1f0a77.bench,S=0{fields}")


def _create(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o660))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
