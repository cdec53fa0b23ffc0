"""At most so many, over all hosts: judged by what handlers wrote when they began and ended."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lifecycle.conftest import Start
from tests.lifecycle.machines import machine
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import APPLICATION, Project, eventually
from tests.lifecycle.test_hosts import send_all

pytestmark = pytest.mark.lifecycle

LIMITS = APPLICATION.parent / "limits"
_LATE_SECONDS = (
    0.5  # from the slot that a start takes to the note of its time, where others have the processor
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, LIMITS, journal=True)


@dataclass(frozen=True, slots=True)
class Mark:
    word: str
    key: str
    pid: int
    time: float
    to: str


def marks(project: Project, to: str = "") -> list[Mark]:
    """What the handlers wrote, in order of time."""
    try:
        text = (project.path / "journal").read_text()
    except FileNotFoundError:
        return []
    lines = [line.split() for line in text.rpartition("\n")[0].splitlines()]
    found = [Mark(word, key, int(pid), float(at), whom) for word, key, _, pid, at, whom in lines]
    return sorted((mark for mark in found if mark.to.startswith(to)), key=lambda mark: mark.time)


def most_at_once(
    project: Project, to: str, died: dict[int, float] | None = None, by: Callable[[str], str] = str
) -> int:
    """How many ran at a time at most, of one key; a worker that died runs until then."""
    running: dict[str, dict[int, str]] = {}
    most = 0
    for mark in marks(project, to):
        group = running.setdefault(by(mark.to), {})
        for pid in [pid for pid in group if died and died.get(pid, mark.time) < mark.time]:
            del group[pid]
        if mark.word == "start":
            group[mark.pid] = mark.key
            most = max(most, len(group))
        else:
            group.pop(mark.pid, None)
    return most


def most_in(project: Project, to: str, period: float) -> int:
    """How many began in any window of that length, of one recipient."""
    times = [mark.time for mark in marks(project, to) if mark.word == "start"]
    return max((sum(1 for t in times if began <= t < began + period) for began in times), default=0)


def handled(project: Project, to: str) -> int:
    return sum(1 for mark in marks(project, to) if mark.word == "end")


def attempts(*pools: Pool) -> Counter[str]:
    return Counter(event["outcome"] for pool in pools for event in pool.events("attempt.ended"))


def test_no_more_of_a_handler_run_at_a_time_than_its_limit(project: Project, start: Start) -> None:
    pool = start(workers=4)
    project.push("pair-0.05", 20)
    eventually(project.is_empty, "all are handled")
    assert most_at_once(project, "pair-") == 2
    assert handled(project, "pair-") == 20
    assert len(pool.events("limit.reached")) >= 1
    eventually(lambda: attempts(pool)["acked"] == 20, "all are logged")
    assert attempts(pool) == {"acked": 20}, "what waits has no lines"


def test_each_key_has_its_own_limit(project: Project, start: Start) -> None:
    start(workers=4)
    for name in ("a", "b", "c"):
        project.push(f"list-{name}-0.05", 8)
    eventually(project.is_empty, "all are handled")
    for name in ("a", "b", "c"):
        assert most_at_once(project, f"list-{name}-") == 1
        assert handled(project, f"list-{name}-") == 8
    assert most_at_once(project, "list-", by=lambda to: "all") > 1, "they go on beside each other"


def test_a_queue_with_one_limited_handler_moves_nothing_that_has_no_slot(
    project: Project, start: Start
) -> None:
    pool = start(workers=4)
    project.push("sole-5", 10, "run/later")
    eventually(lambda: len(marks(project, "sole-")) == 2, "two run")
    project.push("free-0", 20)
    eventually(lambda: handled(project, "free-") == 20, "the other queue goes on")
    assert len(project.names("new", "run/later")) == 8
    assert len(project.names("later_new", "run/later")) == 0
    assert all(name.returns == 0 for name in project.names("new", "run/later"))
    project.go()
    eventually(project.is_empty, "all are handled")
    assert most_at_once(project, "sole-") == 2
    assert handled(project, "sole-") == 10
    assert pool.stop() == 0
    assert os.listdir(f"{project.queue.limits}/held") == []


@pytest.mark.slow
def test_no_window_has_more_starts_than_the_rate_and_what_waits_costs_few_attempts(
    project: Project, start: Start
) -> None:
    pools = [
        start(host=host, workers=2, environ={"RATE": "10/2s", **machine(project, host)})
        for host in ("a", "b")
    ]
    project.push("mail-example.org", 70)
    eventually(project.is_empty, "all are handled", seconds=60)
    assert handled(project, "mail-") == 70
    assert most_in(project, "mail-", 2.0 - _LATE_SECONDS) <= 10
    began = [mark.time for mark in marks(project, "mail-") if mark.word == "start"]
    assert began[-1] - began[0] < 45, "70 at 5 a second take 14 s, and on a busy machine more"
    released = sum(worker["released"] for pool in pools for worker in pool.status()["workers"])
    assert released < 4 * 70, "each waits a few times, not once a second"
    eventually(lambda: sum(attempts(*pools).values()) >= 70, "all are logged")
    assert attempts(*pools) == {"acked": 70}


@pytest.mark.slow
def test_thousands_of_one_key_do_not_delay_anothers_by_a_second(project: Project, start: Start) -> None:
    start(workers=2, environ={"RATE": "30/min"})
    keys = project.push("mail-example.org", 10_000)
    assert len(keys) == 10_000
    project.push("mail-example.net", 1)
    eventually(lambda: handled(project, "mail-example.net") == 1, "the other one's is sent")
    eventually(lambda: len(project.names("new")) == 0, "all others wait")
    seconds: list[float] = []
    while len(seconds) < 5 or (min(seconds) >= 1 and len(seconds) < 25):
        pushed = time.monotonic()
        count = handled(project, "mail-example.com")
        project.push("mail-example.com", 1)
        eventually(lambda count=count: handled(project, "mail-example.com") > count, "sent")  # type: ignore[misc]
        seconds.append(time.monotonic() - pushed)
    assert min(seconds) < 1, "whatever else the machine has to do"
    assert most_in(project, "mail-example.org", 60 - _LATE_SECONDS) <= 30, "however long it took"


@pytest.mark.slow
@pytest.mark.parametrize(("to", "most"), [("list-a", 1), ("pair", 2), ("sole", 2)])
def test_only_a_frozen_hosts_last_handlers_run_beside_others_and_the_log_names_them(
    to: str, most: int, project: Project, start: Start
) -> None:
    """Two hosts with four workers, of which some are killed; then one host freezes for longer than the TTL."""
    pools = [start(host=host, workers=4, environ=machine(project, host)) for host in ("a", "b")]
    gone: dict[int, float] = {}

    def running(pool: Pool) -> list[int]:
        """The workers of a pool that are in a handler."""
        found, pids = marks(project, to), set(pool.worker_pids()) - gone.keys()
        ended = {(mark.key, mark.pid) for mark in found if mark.word == "end"}
        return [m.pid for m in found if m.pid in pids and m.word == "start" and (m.key, m.pid) not in ended]

    project.push(f"{to}-0.3", 30, "run/later" if to == "sole" else None)
    for _ in range(3):
        [pid, *_] = eventually(lambda: running(pools[0]) or running(pools[1]), "one is in a handler")
        gone[pid] = time.monotonic()  # not after: another may have its slot before we go on
        os.kill(pid, signal.SIGKILL)
    first = eventually(lambda: next(filter(running, pools), None), "a host is in a handler")
    [second] = [pool for pool in pools if pool is not first]
    lease = first.status()["queues"][0]["lease"]
    frozen = first.tree()
    gone |= dict.fromkeys(frozen, time.monotonic())
    send_all(frozen, signal.SIGSTOP)
    second.await_event("lease.fenced", lease=lease, queue="run/queue")
    before = handled(project, to)
    eventually(lambda: handled(project, to) > before or project.is_empty(), "the other host goes on")
    send_all(frozen, signal.SIGCONT)
    eventually(project.is_empty, "all are handled")
    assert most_at_once(project, f"{to}-", gone) == most
    assert handled(project, to) >= 30
    if running_then := [event for event in second.events("limit.overlapped") if event["lease"] == lease]:
        assert {event["pid"] for event in running_then} <= gone.keys(), "frozen, or killed just before"


def test_calls_of_a_batch_are_limited(project: Project, start: Start) -> None:
    for host in ("a", "b"):
        start(host=host, workers=2)
    project.push("batch-0", 40)
    eventually(project.is_empty, "all are handled")
    assert most_at_once(project, "batch-") == 1
