"""The audit of queues that are being served."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from maildefer.control import journal_reader
from maildefer.control.audit import audit
from maildefer.control.history import history_of
from maildefer.maildir import journal
from maildefer.maildir.operator import record_keeping
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import APPLICATION, Project, eventually

pytestmark = pytest.mark.lifecycle


def test_an_audit_while_everything_moves_accuses_nobody(project: Project, start: Start) -> None:
    """Claims, acks, deferrals, promotions, handoffs and crashes, between any two looks at the folders."""
    project.edit("workers/front.py", "raise Defer(", 'if not os.path.exists("go"): raise Defer(')
    start(workers=3, settings={"max_crashes": 2})
    accepted: list[str] = []

    def load() -> None:
        for _ in range(40):
            for what in ("quick", "handoff", "defer0.5", "sleep0.01"):
                accepted.extend(project.push(what, 3))
        accepted.extend(project.push("exit3", 2))

    pusher = threading.Thread(target=load)
    pusher.start()
    looks = 0
    while pusher.is_alive() or looks < 20:
        report = audit([project.queue.path], timeout_seconds=30)
        assert report.suspects == []
        looks += 1
    pusher.join()
    project.go()
    eventually(project.is_empty, "all are handled")
    report = audit([project.queue.path])
    assert report.queues == [layout.path for layout in project.layouts.values()], "handoffs are followed"
    assert (report.accepted, report.ended, report.found["dead"]) == (len(accepted), len(accepted) - 2, 2)


def test_what_vanishes_under_a_running_pool_is_named(project: Project, start: Start) -> None:
    start(workers=1)
    keys = project.push("quick", 20) + project.push("defer60", 2)
    eventually(lambda: len(project.names("later_new")) == 2, "two are deferred")
    eventually(lambda: not project.names("new") and not project.names("cur"), "the others are handled")
    [gone, _] = os.listdir(project.queue.later_new)
    os.rename(f"{project.queue.later_new}/{gone}", f"{project.queue.path}/gone")
    [suspect] = audit([project.queue.path], timeout_seconds=1).suspects
    assert (suspect.key in keys, suspect.verdict, suspect.last) == (
        True,
        "lost",
        f"moved to .later/new/{gone}",
    )
    os.rename(f"{project.queue.path}/gone", f"{project.queue.later_new}/{gone}")


def test_workers_of_a_reload_keep_a_journal_that_was_begun_meanwhile(tmp_path: Path) -> None:
    project = Project(tmp_path, APPLICATION)
    for layout in project.layouts.values():
        record_keeping.end_journal(layout)
    pool = Pool(project, workers=1).start().await_ready()
    try:
        project.push()
        eventually(project.is_empty, "it is handled without a record")
        for layout in project.layouts.values():
            journal.begin_journal(layout)
        [old] = pool.worker_pids()
        pool.signal(signal.SIGHUP)
        eventually(lambda: pool.worker_pids() and old not in pool.worker_pids(), "there is another worker")
        pool.await_ready()
        project.renew()
        project.push()
        eventually(project.is_empty, "it is handled")
        report = audit([project.queue.path])
        assert (report.accepted, report.ended) == (1, 1)
        assert pool.stop() == 0
    finally:
        if pool.process is not None and pool.process.poll() is None:
            pool.kill_tree()
        journal.close_journals()


def test_after_a_reload_the_keeper_records_each_death_and_the_burial_too(tmp_path: Path) -> None:
    project = Project(tmp_path, APPLICATION)
    pool = Pool(project, workers=1, settings={"max_crashes": 2}).start().await_ready()
    try:
        project.push("exit3")
        eventually(lambda: project.names("dead_new"), "its keeper has buried one before there is a journal")
        for layout in project.layouts.values():
            journal.begin_journal(layout)
            record_keeping.expect_records(layout)
        eventually(lambda: len(pool.worker_pids()) == 1, "there is a worker in the dead one's place")
        [old] = pool.worker_pids()
        pool.signal(signal.SIGHUP)
        eventually(lambda: pool.worker_pids() and old not in pool.worker_pids(), "there is another worker")
        pool.await_ready()
        eventually(lambda: audit([project.queue.path], timeout_seconds=0).blind == [], "its keeper keeps one")
        project.renew()
        [key] = project.push("exit3")
        eventually(lambda: len(project.names("dead_new")) == 2, "it is buried")
        history = history_of([project.queue], key)
        assert "accepted" in [one.event for one in history]
        # A worker may have died of it before this program has recorded that it pushed it.
        told = [one for one in history if one.event not in ("received", "accepted")]
        assert [one.event for one in told] == [
            "tried: died",
            "taken back from a worker that died",
            "tried: died",
            "buried",
            "now dead",
        ]
        assert "by exiting with 3" in told[0].facts["how"]
        assert told[2].facts["reason"] == told[4].facts["reason"]
        assert pool.stop() == 0
    finally:
        if pool.process is not None and pool.process.poll() is None:
            pool.kill_tree()
        journal.close_journals()


def test_a_pool_that_began_before_the_journal_is_named_until_its_workers_are_others(tmp_path: Path) -> None:
    project = Project(tmp_path, APPLICATION)
    queue = project.queue.path
    for layout in project.layouts.values():
        record_keeping.end_journal(layout)
    pool = Pool(project, workers=1).start().await_ready()
    try:
        eventually(lambda: os.listdir(project.queue.status), "its keeper has given an account of it")
        for layout in project.layouts.values():
            journal.begin_journal(layout)
            record_keeping.expect_records(layout)
        report = audit([queue], timeout_seconds=0)
        [text] = report.blind
        assert "has workers that began before the journal did" in text
        [old] = pool.worker_pids()
        pool.signal(signal.SIGHUP)
        eventually(lambda: pool.worker_pids() and old not in pool.worker_pids(), "there is another worker")
        pool.await_ready()
        assert audit([queue]).blind == [], "it hears of the others"
        record_keeping.expect_records(project.queue, journal_reader.kept_since(project.queue))
        assert audit([queue], timeout_seconds=0).blind == [], "it keeps the same journal"
        record_keeping.end_journal(project.queue)
        journal.begin_journal(project.queue)
        record_keeping.expect_records(project.queue)
        assert len(audit([queue], timeout_seconds=0).blind) == 1, "what it keeps is one that is gone"
        assert pool.stop() == 0
    finally:
        if pool.process is not None and pool.process.poll() is None:
            pool.kill_tree()
        journal.close_journals()
