"""What an operator does to a running pool: signals, and requests through the mount."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks import processes
from maildefer.control import requests
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import ROOT, Pool
from tests.lifecycle.project import Project, eventually

pytestmark = pytest.mark.lifecycle
TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)
FOREIGN = (signal.SIGUSR2,)  # means something to other masters


def test_ttin_forks_one_worker_more_and_ttou_lets_one_go(start: Start) -> None:
    pool = start(workers=2)
    pool.signal(signal.SIGTTIN)
    eventually(lambda: len(pool.worker_pids()) == 3, "a third worker")
    pool.signal(signal.SIGTTOU)
    pool.signal(signal.SIGTTOU)
    eventually(lambda: len(pool.worker_pids()) in (1, 2), "fewer workers")
    pool.await_event("worker.ended")
    assert pool.events("worker.died") == []


def test_the_last_worker_stays_however_often_ttou_comes(start: Start) -> None:
    pool = start(workers=2)
    for count in range(1, 4):
        pool.signal(signal.SIGTTOU)
        pool.await_event("pool.resized", count)
    eventually(lambda: len(pool.worker_pids()) == 1, "one worker")
    assert [event["workers"] for event in pool.events("pool.resized")] == [1, 1, 1]


def test_a_worker_that_is_let_go_finishes_its_message_first(project: Project, start: Start) -> None:
    pool = start(workers=2)
    keys = project.push("wait", 2)
    eventually(lambda: len(project.notes("start")) == 2, "both are busy")
    pool.signal(signal.SIGTTOU)
    pool.await_event("pool.resized")
    project.go()
    eventually(project.is_empty, "both are handled")
    assert project.starts() == dict.fromkeys(keys, 1)


def test_tstp_stops_claiming_and_cont_goes_on(project: Project, start: Start) -> None:
    pool = start()
    pool.signal(signal.SIGTSTP)
    pool.await_event("pool.paused")
    keys = project.push("quick", 20)
    eventually(lambda: len(pool.worker_pids()) == 2, "it still answers")
    beat = eventually(project.leases, "it has its lease")
    eventually(lambda: project.leases() != beat, "and it still beats")
    assert project.notes() == []
    assert pool.status()["paused"]
    pool.signal(signal.SIGCONT)
    eventually(project.is_empty, "all are handled")
    assert project.starts() == dict.fromkeys(keys, 1)


def test_a_message_in_hand_is_finished_in_a_pause(project: Project, start: Start) -> None:
    pool = start(workers=1)
    project.push("wait")
    eventually(lambda: project.notes("start"), "the handler begins")
    pool.signal(signal.SIGTSTP)
    pool.await_event("pool.paused")
    project.go()
    eventually(project.is_empty, "it is acked")


def test_a_paused_pool_can_be_stopped(project: Project, start: Start) -> None:
    pool = start()
    pool.signal(signal.SIGTSTP)
    pool.await_event("pool.paused")
    project.push()
    assert pool.stop() == 0
    assert len(project.names("new")) == 1


def test_signals_of_a_terminal_reach_only_the_supervisor(project: Project, start: Start) -> None:
    """Ctrl-C, Ctrl-Z, Ctrl-\\\\ and a hang-up go to the whole foreground group."""
    pool = start()
    before = parts(pool)
    for signum in (*TERMINAL, *FOREIGN):
        for pid in before:
            os.kill(pid, signum)
    keys = project.push("quick", 10)
    eventually(project.is_empty, "the children go on")
    assert project.starts() == dict.fromkeys(keys, 1)
    assert parts(pool) == before


def test_a_signal_that_means_nothing_here_ends_nobody(project: Project, start: Start) -> None:
    pool = start()
    before = parts(pool)
    for signum in FOREIGN:
        pool.signal(signum)
    keys = project.push("quick", 10)
    eventually(project.is_empty, "the pool goes on")
    assert project.starts() == dict.fromkeys(keys, 1)
    assert parts(pool) == before


def parts(pool: Pool) -> set[int]:
    """The supervisor's children for good; a keeper's own come and go."""
    return {pool.child(kind) for kind in ("keeper", "scout", "template")} | set(pool.worker_pids())


def logs_of(pid: int) -> set[str]:
    """The logs that a process has open; a worker's is not its descriptor 2, which is its handlers'."""
    found = set()
    with suppress(FileNotFoundError):  # it has just ended: a keeper's children come and go
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # it has just been closed
                found.add(os.readlink(each))
    return {path for path in found if "/pool.log" in path}


def test_usr1_reopens_the_log_in_every_process(project: Project, start: Start) -> None:
    log = project.path / "pool.log"
    pool = start(log_file=str(log))
    project.push()
    eventually(lambda: "attempt.ended" in log.read_text(), "it is logged")
    moved = log.rename(project.path / "pool.log.1")
    size = moved.stat().st_size
    pool.signal(signal.SIGUSR1)
    eventually(log.exists, "a new log")
    eventually(lambda: all(logs_of(pid) == {str(log)} for pid in pool.tree()), "all of them write to it")
    project.push()
    eventually(lambda: "attempt.ended" in log.read_text(), "it is logged there")
    assert moved.stat().st_size == size


# While there is a file `held` beside it, what is forked does not come to its handlers of signals.
HELD = """
import os, time
from maildefer.host import captured_output

_close = captured_output.close

def close(**given):
    _close(**given)
    while os.path.exists(os.path.join(os.path.dirname(__file__), "held")):
        time.sleep(0.005)

captured_output.close = close
"""


def test_usr1_that_comes_before_a_new_keeper_can_handle_it_is_not_lost(
    project: Project, start: Start, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, log = tmp_path_factory.mktemp("held"), project.path / "pool.log"
    (folder / "sitecustomize.py").write_text(HELD)
    pool = start(log_file=str(log), environ={"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"})
    (folder / "held").touch()
    os.kill(processes.by_role(pool.pid)["keeper"][0], signal.SIGKILL)
    eventually(lambda: log.read_text().count('"child.started", "kind": "keeper"') == 2, "there is another")
    log.rename(project.path / "pool.log.1")
    pool.signal(signal.SIGUSR1)
    eventually(log.exists, "a new log")
    (folder / "held").unlink()
    eventually(lambda: all(logs_of(pid) == {str(log)} for pid in pool.tree()), "all of them write to it")


@pytest.mark.parametrize("verb", ["pause", "resume", "reload", "stop"])
def test_a_request_through_the_mount_is_carried_out_within_a_beat(
    project: Project, start: Start, verb: requests.Verb
) -> None:
    pool = start()
    lease = pool.status()["queues"][0]["lease"]
    requests.file_request(project.queue.path, lease, verb)
    pool.await_event("request.received", verb=verb)
    match verb:
        case "pause":
            pool.await_event("pool.paused")
        case "reload":
            pool.await_event("pool.reloading")
        case "stop":
            assert pool.wait() == 0
        case "resume":
            eventually(lambda: len(pool.worker_pids()) == 2, "as before")
    assert (project.path / "run/queue/.maildefer/requests/done" / f"{lease}.{verb}").exists()


def test_a_request_for_another_lease_is_left_alone(project: Project, start: Start) -> None:
    pool = start()
    requests.file_request(project.queue.path, "b-123456-99-aabbccddeeff", "stop")
    lease = pool.status()["queues"][0]["lease"]
    requests.file_request(project.queue.path, lease, "pause")
    pool.await_event("request.received", verb="pause")
    assert pool.events("request.received", verb="stop") == []
