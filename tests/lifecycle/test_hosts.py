"""Several hosts on one directory: who takes over from whom, when, and what the one who was taken over from may do."""

from __future__ import annotations

import os
import signal

import pytest

from tests.lifecycle.commands import maildefer
from tests.lifecycle.conftest import Start
from tests.lifecycle.machines import machine
from tests.lifecycle.project import Project, eventually

pytestmark = pytest.mark.lifecycle


@pytest.mark.invariant(3)
def test_two_hosts_share_the_work_and_handle_each_message_once(project: Project, start: Start) -> None:
    first, second = start(host="a", workers=2), start(host="b", workers=2)
    eventually(lambda: first.status()["queues"][0]["hosts"] == 2, "a knows of b")
    eventually(lambda: second.status()["queues"][0]["hosts"] == 2, "b knows of a")
    keys = project.push("wait", 4)
    pids = eventually(
        lambda: len(on := {note.pid for note in project.notes("start")}) == 4 and on, "no worker is idle"
    )
    assert pids == {event["pid"] for host in (first, second) for event in host.events("worker.started")}
    project.go()
    keys += project.push("sleep0.01", 200)
    eventually(project.is_empty, "all are handled")
    assert project.starts() == dict.fromkeys(keys, 1)


@pytest.mark.ttl(300)
def test_a_host_that_leaves_in_good_order_keeps_nobody_waiting(project: Project, start: Start) -> None:
    first, second = start(host="a"), start(host="b")
    assert first.stop() == 0
    keys = project.push("quick", 40)
    eventually(project.is_empty, "b handles them all")
    assert project.starts() == dict.fromkeys(keys, 1)
    assert second.events("lease.fenced") == []


@pytest.mark.invariant(6)
def test_machines_of_one_host_id_do_not_fence_each_other_and_say_that_they_have_one_name(
    project: Project, start: Start
) -> None:
    """As where the variable comes with an image: each has a boot id of its own, and sees none of the other's pids."""
    first, second = (start(host=host, host_id="image", environ=machine(project, host)) for host in ("a", "b"))
    leases = {pool.status()["queues"][0]["lease"]: pool for pool in (second, first)}
    for other, pool in zip(leases, (first, second), strict=True):
        told = pool.await_event("host.duplicated", queue="run/queue")
        assert told["lease"] == other
    keys = project.push("quick", 40)
    eventually(project.is_empty, "all are handled")
    assert project.starts() == dict.fromkeys(keys, 1)
    assert first.events("lease.fenced") == second.events("lease.fenced") == []
    assert len(first.events("host.duplicated", queue="run/queue")) == 1


@pytest.mark.ttl(300)
def test_a_paused_hosts_share_goes_to_the_others(project: Project, start: Start) -> None:
    first = start(host="a")
    start(host="b")
    first.signal(signal.SIGTSTP)
    first.await_event("pool.paused")
    project.push("quick", 40)
    eventually(project.is_empty, "b handles them all")


@pytest.mark.slow
def test_a_killed_hosts_messages_are_taken_over(project: Project, start: Start) -> None:
    first = start(host="a", workers=2)
    keys = project.push("wait", 2)
    eventually(lambda: len(project.notes("start")) == 2, "a has them")
    second = start(host="b", workers=2)
    first.kill_tree()
    eventually(lambda: len(project.notes("start")) == 4, "b has them")
    assert len(second.events("lease.fenced", queue="run/queue")) == 1
    assert [entry.crashes for entry in project.names("cur")] == [1, 1]
    project.go()
    eventually(project.is_empty, "they are acked")
    assert project.starts() == dict.fromkeys(keys, 2)


@pytest.mark.invariant(7)
@pytest.mark.slow
def test_a_host_frozen_longer_than_the_ttl_settles_nothing_twice(project: Project, start: Start) -> None:
    """All of its processes stop, as in a suspended machine, with messages in hand; another host takes these over."""
    first = start(host="a", workers=2)
    keys = project.push("wait", 2)
    eventually(lambda: len(project.notes("start")) == 2, "a has them")
    lease = first.status()["queues"][0]["lease"]
    frozen, workers = first.tree(), first.worker_pids()
    send_all(frozen, signal.SIGSTOP)
    second = start(host="b", workers=2)
    second.await_event("lease.fenced", lease=lease, queue="run/queue")
    eventually(lambda: len(project.notes("start")) == 4, "b has them")
    project.go()
    eventually(project.is_empty, "b acks them")
    # The workers first: they come to the end of their handlers before anybody tells them that they are dead.
    send_all(workers, signal.SIGCONT)
    first.await_event("claim.lost", 2)
    # Then the keeper, which must not take a supervisor that wakes a moment later for one that hangs.
    supervisor, *others = frozen
    send_all(others, signal.SIGCONT)
    first.await_event("lease.lost", queue="run/queue")
    assert not first.events("child.died")
    send_all([supervisor], signal.SIGCONT)
    first.await_event("lease.joined", 2, queue="run/queue")  # the other queue may be first
    assert first.status()["queues"][0]["lease"] != lease
    more = project.push("quick", 40)
    eventually(project.is_empty, "both go on")
    assert project.starts() == dict.fromkeys(keys, 2) | dict.fromkeys(more, 1)
    acked = [
        event["key"] for pool in (first, second) for event in pool.events("attempt.ended", outcome="acked")
    ]
    assert len(set(acked)) == len(acked), "nothing is settled twice"


@pytest.mark.invariant(8)
@pytest.mark.slow
def test_a_stopped_supervisor_is_a_frozen_host(project: Project, start: Start) -> None:
    """Its keeper ends the workers and stops beating, so that another host takes over."""
    first = start(host="a", workers=2)
    keys = project.push("wait", 2)
    eventually(lambda: len(project.notes("start")) == 2, "a has them")
    second = start(host="b", workers=2)
    lease = first.status()["queues"][0]["lease"]
    workers = first.worker_pids()
    first.signal(signal.SIGSTOP)
    eventually(lambda: all(is_over(pid) for pid in workers), "a's workers are killed")
    second.await_event("lease.fenced", lease=lease, queue="run/queue")
    eventually(lambda: len(project.notes("start")) == 4, "b has them")
    project.go()
    eventually(project.is_empty, "b acks them")
    first.signal(signal.SIGCONT)
    first.await_event("lease.joined", 3)
    more = project.push("quick", 40)
    eventually(project.is_empty, "both go on")
    assert project.starts() == dict.fromkeys(keys, 2) | dict.fromkeys(more, 1)


@pytest.mark.slow
@pytest.mark.ttl(60)
def test_a_supervisor_stopped_for_a_moment_loses_nothing_and_repeats_nothing(
    project: Project, start: Start
) -> None:
    first = start(host="a", workers=2)
    start(host="b", workers=2)
    keys = project.push("sleep0.05", 80)
    first.signal(signal.SIGSTOP)
    eventually(project.is_empty, "all are handled, a's workers too go on")
    first.signal(signal.SIGCONT)
    assert project.starts() == dict.fromkeys(keys, 1)
    assert first.stop() == 0


def test_a_fenced_host_joins_again_under_a_new_lease(project: Project, start: Start) -> None:
    pool = start(workers=2)
    keys = project.push("wait", 2)
    eventually(lambda: len(project.notes("start")) == 2, "both are busy")
    lease = pool.status()["queues"][0]["lease"]
    [beat] = [name for name in project.leases() if name.startswith(lease)]
    fence(project, lease)
    pool.await_event("lease.lost", lease=lease)
    eventually(lambda: any(not name.startswith(lease) for name in project.leases()), "a new lease")
    eventually(lambda: len(project.notes("start")) == 4, "its own old claims are taken back")
    assert not os.path.exists(f"{project.queue.leases}/{beat}")
    killed = pool.events("worker.died")
    assert [(event["how"], event["charged"]) for event in killed] == [("SIGKILL", False)] * 2
    project.go()
    eventually(project.is_empty, "they are acked")
    assert project.starts() == dict.fromkeys(keys, 2)


def test_a_fence_of_one_queue_leaves_the_others_workers_alone(project: Project, start: Start) -> None:
    pool = start(workers=1)
    [key] = project.push("wait", queue="run/later")
    eventually(lambda: project.notes("start"), "it is in hand, in the second queue")
    project.push("wait")
    fence(project, pool.status()["queues"][0]["lease"])
    pool.await_event("lease.lost", queue="run/queue")
    pool.await_event("lease.joined", 3)
    project.go()
    eventually(project.is_empty, "all are handled")
    assert project.starts()[key] == 1
    assert pool.events("worker.died") == []


def test_a_queue_whose_directory_goes_away_is_served_again_when_it_is_back(
    project: Project, start: Start
) -> None:
    pool = start(workers=2)
    away = project.path / "away"
    os.rename(project.queue.path, away)
    eventually(lambda: pool.status()["queues"][0]["state"] != "served", "the keeper sees it")
    project.push("quick", 5, queue="run/later")
    eventually(lambda: len(project.notes("end")) == 5, "the other queue is served")
    assert not os.path.exists(project.queue.path), "it is not made anew: it may be on a mount that is away"
    os.rename(away, project.queue.path)
    pool.await_event("lease.joined", 3)
    keys = project.push("quick", 5)
    eventually(project.is_empty, "it is served again")
    assert set(keys) <= {note.key for note in project.notes("end")}
    eventually(lambda: pool.status()["queues"][0]["state"] == "served", "status says so")
    assert pool.stop() == 0


def test_what_a_pool_waits_for_is_not_made_anew_by_others(project: Project, start: Start) -> None:
    pool = start(workers=1)
    away = project.path / "away"
    os.rename(project.queue.path, away)
    eventually(lambda: pool.status()["queues"][0]["state"] != "served", "the keeper sees it")
    refused = maildefer(pool, "push", project.queue.path)
    assert refused.returncode == 75, refused.stderr
    assert f"the pool {pool.process.pid} serves it and waits for it" in refused.stderr
    assert not os.path.exists(project.queue.path)
    os.rename(away, project.queue.path)
    pool.await_event("lease.joined", 3)
    assert maildefer(pool, "push", project.queue.path).returncode == 0
    os.rename(project.queue.path, away)
    assert pool.stop() == 0
    assert maildefer(pool, "push", project.queue.path).returncode == 0, "nobody waits any more"


@pytest.mark.slow
def test_messages_in_hand_while_the_directory_is_away_are_not_lost(project: Project, start: Start) -> None:
    pool = start(workers=2)
    [key] = project.push("wait")
    eventually(lambda: project.notes("start"), "the handler begins")
    away = project.path / "away"
    os.rename(project.queue.path, away)
    eventually(lambda: pool.status()["queues"][0]["state"] != "served", "the keeper sees it")
    project.go()
    os.rename(away, project.queue.path)
    pool.await_event("lease.joined", 3)
    eventually(project.is_empty, "it is handled")
    assert project.starts()[key] in (1, 2)


def test_a_new_keeper_does_not_make_a_queue_that_went_away(project: Project, start: Start) -> None:
    pool = start(workers=1)
    os.rename(project.queue.path, project.path / "away")
    eventually(lambda: pool.status()["queues"][0]["state"] != "served", "the keeper sees it")
    os.kill(pool.child("keeper"), signal.SIGKILL)
    pool.await_event("child.started", 2, kind="keeper")
    pool.await_event("lease.joined", 3)  # the other queue, again
    assert not os.path.exists(project.queue.path)


def test_a_stop_reaches_all_hosts_through_the_mount(project: Project, start: Start) -> None:
    pools = [start(host="a"), start(host="b")]
    assert len(project.ask_all("stop")) == 2
    assert [pool.wait() for pool in pools] == [0, 0]
    assert project.leases() == []


def fence(project: Project, lease: str) -> None:
    """What another host does after the TTL."""

    def moved() -> bool:
        for name in project.leases():
            if name.startswith(lease):
                try:
                    os.rename(f"{project.queue.leases}/{name}", f"{project.queue.fenced}/{name}")
                except FileNotFoundError:  # it has just beaten
                    return False
                return True
        return False

    eventually(moved, "the fence")


def send_all(pids: list[int], signum: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, signum)
        except ProcessLookupError:  # the keeper's children come and go
            continue


def is_over(pid: int) -> bool:
    """Ended, if only as a zombie: its parent is stopped."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return True
