"""HUP and other reasons to roll the workers over to new code."""

from __future__ import annotations

import signal
import threading

import pytest

from benchmarks import processes
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import Project, eventually

pytestmark = pytest.mark.lifecycle
SLOW = 'import os, time\nwhile os.path.exists("slow"): time.sleep(0.005)\n"""Two'  # settings, while that is there


def test_hup_replaces_every_worker_and_the_new_ones_run_the_new_code(project: Project, start: Start) -> None:
    pool = start(workers=2)
    old = set(pool.worker_pids())
    project.edit("workers/front.py", 'note("start", message)', 'note("start", message); note("new", message)')
    pool.signal(signal.SIGHUP)
    await_rolled(pool, old)
    project.push()
    eventually(project.is_empty, "it is handled")
    assert len(project.notes("new")) == 1
    assert pool.events("worker.died") == []


def test_a_roll_under_load_loses_nothing_and_handles_nothing_twice(project: Project, start: Start) -> None:
    pool = start(workers=2)
    old = set(pool.worker_pids())
    keys = project.push("sleep0.01", 40)
    pool.signal(signal.SIGHUP)
    keys += project.push("sleep0.01", 100)
    await_rolled(pool, old)
    keys += project.push("sleep0.01", 20)  # a busy machine's new workers may have come late for the others
    eventually(project.is_empty, "all are handled")
    assert project.starts() == dict.fromkeys(keys, 1)
    assert {note.pid for note in project.notes("end")} - old, "the new ones handle too"


def test_there_are_never_fewer_workers_than_wanted_during_a_roll(project: Project, start: Start) -> None:
    pool = start(workers=3)
    old = set(pool.worker_pids())
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            ready = [
                w for w in pool.status().get("workers", ()) if w["state"] in ("idle", "busy", "handling")
            ]
            seen.append(len(ready))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        pool.signal(signal.SIGHUP)
        await_rolled(pool, old, count=3)
    finally:
        done.set()
        watcher.join()
    assert min(seen) >= 3
    assert max(seen) <= 5, "one begins, while another may not have ended yet"


def test_a_worker_finishes_its_message_before_it_is_replaced(project: Project, start: Start) -> None:
    pool = start(workers=1)
    [key] = project.push("wait")
    eventually(lambda: project.notes("start"), "the handler begins")
    pool.signal(signal.SIGHUP)
    pool.await_event("worker.started", 2)
    project.push("quick", 5)
    eventually(lambda: len(project.notes("end")) == 5, "the new worker serves while the old one is busy")
    project.go()
    eventually(project.is_empty, "all are handled")
    assert project.starts()[key] == 1


def test_a_broken_application_keeps_the_old_workers_and_says_why(project: Project, start: Start) -> None:
    pool = start(workers=2)
    old = sorted(pool.worker_pids())
    project.edit("workers/front.py", "def HANDLE(", "def HANDLE((")
    pool.signal(signal.SIGHUP)
    assert "workers/front.py" in pool.await_event("application.broken")["error"]
    project.push()
    eventually(project.is_empty, "the old code goes on")
    assert sorted(pool.worker_pids()) == old
    assert "workers/front.py" in pool.status()["reload_refused"]
    project.edit("workers/front.py", "def HANDLE((", "def HANDLE(")
    pool.signal(signal.SIGHUP)
    await_rolled(pool, set(old))
    assert pool.status()["reload_refused"] is None


def test_a_second_hup_during_the_look_at_the_application_is_not_lost(project: Project, start: Start) -> None:
    """The first look has read the file by then; what is saved after it needs another one."""
    project.edit("conf/settings.py", '"""Two', SLOW)
    pool = start(workers=1)
    (project.path / "slow").touch()
    pool.signal(signal.SIGHUP)
    eventually(lambda: processes.by_role(pool.pid).get("probe"), "the look is under way")
    pool.signal(signal.SIGHUP)
    (project.path / "slow").unlink()
    pool.await_event("pool.reloading", 2)


def test_new_code_that_only_the_template_cannot_load_is_refused(project: Project, start: Start) -> None:
    """The probe is content, the template of the new code is not: the old one and its workers stay."""
    pool = start(workers=2)
    old = set(pool.worker_pids())
    project.edit(
        "conf/settings.py",
        '"""Two',
        'import sys\nif "maildefer.pool.worker.worker" in sys.modules: raise RuntimeError("no licence left")\n"""Two',
    )
    pool.signal(signal.SIGHUP)
    eventually(lambda: "no licence left" in str(pool.status()["reload_refused"]), "it is refused")
    project.push()
    eventually(project.is_empty, "the old workers serve")
    assert set(pool.worker_pids()) == old
    assert pool.stop() == 0


def test_other_queues_in_the_settings_restart_the_pool_under_the_same_pid(
    project: Project, start: Start
) -> None:
    pool = start(workers=1)
    [key] = project.push("wait")
    eventually(lambda: project.notes("start"), "the handler begins")
    project.edit("conf/settings.py", '"run/later"', '"run/another"')
    pool.signal(signal.SIGHUP)
    pool.await_event("pool.draining", reason="other queues in the settings")
    project.go()
    pool.await_event("pool.started", 2)
    pool.await_ready()
    assert [queue["queue"] for queue in pool.status()["queues"]] == ["run/queue", "run/another"]
    project.push()
    eventually(project.is_empty, "it serves")
    assert project.starts()[key] == 1
    assert pool.stop() == 0


def test_signals_that_come_while_a_pool_starts_anew_end_it_no_more_than_at_any_other_time(
    project: Project, start: Start
) -> None:
    project.edit("conf/settings.py", '"""Two', SLOW)
    pool = start(workers=1)
    project.push("wait")
    eventually(lambda: project.notes("start"), "the handler begins")
    project.edit("conf/settings.py", '"run/later"', '"run/another"')
    pool.signal(signal.SIGHUP)
    pool.await_event("pool.draining", reason="other queues in the settings")
    (project.path / "slow").touch()
    project.go()
    eventually(lambda: processes.by_role(pool.pid).get("probe"), "it looks at the application anew")
    for signum in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN):
        pool.signal(signum)
    (project.path / "slow").unlink()
    pool.await_event("pool.started", 2)
    pool.await_event("pool.resized")
    pool.await_event("pool.reloading")
    assert pool.stop() == 0


def test_more_workers_than_the_pool_has_room_for_restart_it_under_the_same_pid(
    project: Project, start: Start
) -> None:
    """The board's size is fixed; a roll to more workers than it holds would wait for a free slot for ever."""
    project.edit("conf/settings.py", "queues =", "workers = 1\nqueues =")
    pool = start(workers=None)
    project.edit("conf/settings.py", "workers = 1", "workers = 80")
    pool.signal(signal.SIGHUP)
    pool.await_event("pool.draining", reason="more workers in the settings than there is room for")
    pool.await_event("pool.started", 2)
    eventually(lambda: len(pool.worker_pids()) == 80, "all are there")
    project.push()
    eventually(project.is_empty, "it serves")
    assert pool.stop() == 0


def test_with_reload_on_a_saved_file_is_enough(project: Project, start: Start) -> None:
    pool = start(workers=1, settings={"reload": 1})
    old = set(pool.worker_pids())
    project.edit("workers/front.py", 'note("start", message)', 'note("start", message); note("new", message)')
    await_rolled(pool, old, count=1)
    project.push()
    eventually(lambda: project.notes("new"), "the new code runs")


def await_rolled(pool: Pool, old: set[int], count: int = 2) -> None:
    def rolled() -> bool:
        pids = set(pool.worker_pids())
        return len(pids) == count and not pids & old

    eventually(rolled, "all workers are new")
