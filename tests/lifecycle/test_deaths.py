"""Workers that die, hang or grow, and what becomes of the messages that they were on."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

import pytest

from maildefer.host.identity import pid_exists
from maildefer.pool.receiver.consumer import Consumer
from tests.lifecycle.conftest import Start
from tests.lifecycle.project import Project, eventually

pytestmark = pytest.mark.lifecycle


@pytest.mark.invariant(5)
@pytest.mark.ttl(300)
def test_a_killed_workers_message_is_handled_by_another_and_its_crash_is_charged(
    project: Project, start: Start
) -> None:
    pool = start(workers=2)
    [key] = project.push("wait")
    [first] = eventually(lambda: project.notes("start"), "the handler begins")
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: len(project.notes("start")) == 2, "another worker has it, long before the TTL")
    second = project.notes("start")[1]
    assert (second.key, second.attempt) == (key, 2)
    assert second.pid != first.pid
    [claimed] = project.names("cur")
    assert (claimed.key, claimed.attempts, claimed.crashes) == (key, 2, 1)
    project.go()
    eventually(project.is_empty, "it is acked")
    died = pool.events("worker.died")
    assert [(event["pid"], event["how"], event["charged"]) for event in died] == [
        (first.pid, "SIGKILL", True)
    ]


def test_a_worker_killed_between_messages_charges_nobody(project: Project, start: Start) -> None:
    pool = start(workers=2)
    for pid in pool.worker_pids():
        os.kill(pid, signal.SIGKILL)
    pool.await_event("worker.died", 2)
    project.push("wait", 2)
    eventually(lambda: len(project.notes("start")) == 2, "new workers serve")
    assert [entry.crashes for entry in project.names("cur")] == [0, 0]
    assert pool.events("worker.died", charged=True) == []


def test_a_worker_killed_while_it_claims_or_settles_charges_nobody(project: Project, start: Start) -> None:
    """It is stopped on its way to the handler: the claim is on the board, the handler's deadline isn't."""
    project.edit(
        "workers/front.py",
        "hoard: list",
        "from maildefer.pool.worker import attempt as _attempt\n"
        "def _received(*arguments):\n    time.sleep(0.005)\n    while not os.path.exists('go'): time.sleep(0.005)\n"
        "    return _original(*arguments)\n"
        "_original, _attempt.received = _attempt.received, _received\nhoard: list",
    )
    pool = start(workers=1)
    [key] = project.push()
    eventually(lambda: project.names("cur"), "it is claimed")
    [pid] = pool.worker_pids()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: [e for e in project.names("cur") if e.returns == 1], "another has it")
    [entry] = project.names("cur")
    assert (entry.key, entry.attempts, entry.crashes) == (key, 1, 0)
    assert [event["charged"] for event in pool.events("worker.died")] == [False]
    project.go()
    eventually(project.is_empty, "it is handled")


@pytest.mark.parametrize("what", ["exit0", "exit3", "segfault"])
def test_a_handler_that_ends_its_process_is_charged_and_its_message_buried_at_the_limit(
    project: Project, start: Start, what: str
) -> None:
    pool = start(workers=2, settings={"max_crashes": 2})
    [key] = project.push(what)
    others = project.push("quick", 20)
    eventually(lambda: project.names("dead_new"), "it is buried")
    eventually(project.is_empty, "the others are handled")
    [dead] = project.names("dead_new")
    assert (dead.key, dead.crashes) == (key, 2)
    assert project.starts() == {key: 2, **dict.fromkeys(others, 1)}
    [reason] = reasons(project)
    how = {"exit0": "by exiting with 0", "exit3": "by exiting with 3", "segfault": "by SIGSEGV"}[what]
    assert reason["reason"].startswith(
        f"its worker died 2 times while handling it, at last {how} in workers.front.HANDLE after "
    )
    assert (reason["death"], reason["handler"]) == (how, "workers.front.HANDLE")
    assert ("in _segfault" in str(reason["traceback"])) == (what == "segfault")
    assert len(pool.events("worker.died", charged=True)) == 2


@pytest.mark.parametrize("what", ["sysexit0", "sysexit3", "interrupt", "fail"])
def test_a_handler_that_raises_whatever_it_is_defers_and_ends_no_worker(
    project: Project, start: Start, what: str
) -> None:
    pool = start(workers=1)
    before = pool.worker_pids()
    [key] = project.push(what)
    eventually(lambda: project.names("later_new"), "it is deferred")
    project.push()
    eventually(lambda: project.notes("end"), "the same worker serves on")
    assert pool.worker_pids() == before
    [entry] = project.names("later_new")
    assert (entry.key, entry.attempts, entry.crashes) == (key, 1, 0)


def test_a_child_that_a_handler_forked_ends_and_settles_nothing(project: Project, start: Start) -> None:
    pool = start(workers=1)
    before = pool.worker_pids()
    [key] = project.push("fork")
    others = project.push("quick", 5)
    eventually(project.is_empty, "all are handled")
    ends = [note.pid for note in project.notes("end", key)]
    assert len(set(ends)) == 2, "the child came back from the handler"
    assert project.starts() == dict.fromkeys([key, *others], 1)
    assert pool.worker_pids() == before
    pool.await_event("attempt.ended", 6)
    assert len(pool.events("attempt.ended")) == 6
    assert pool.events("claim.lost") == []


def test_a_handler_that_closes_every_descriptor_loses_at_most_its_worker(
    project: Project, start: Start
) -> None:
    pool = start(workers=1)
    [key] = project.push("closeall")
    others = project.push("quick", 20)
    eventually(project.is_empty, "all are handled")
    pool.await_event("worker.died", charged=False)
    assert project.starts() == dict.fromkeys([key, *others], 1)
    assert project.names("dead_new") == []


def test_a_worker_whose_handler_has_used_up_the_descriptors_is_replaced(
    project: Project, start: Start
) -> None:
    pool = start(workers=2)
    project.push("leak")  # it fails itself, having nothing left to write its note with
    others = set(project.push("quick", 40))
    eventually(lambda: others <= {note.key for note in project.notes("end")}, "the others are handled")
    pool.await_event("worker.recycled")
    assert len(pool.events("worker.recycled")) == 1
    assert [entry.crashes for entry in project.names("later_new")] == [0]
    assert project.names("dead_new") == []


def test_a_handlers_write_to_a_closed_pipe_is_an_exception_and_no_death(
    project: Project, start: Start
) -> None:
    pool = start(workers=1)
    project.push("brokenpipe")
    eventually(lambda: project.notes("end"), "the handler saw BrokenPipeError")
    eventually(project.is_empty, "it is acked")
    assert pool.events("worker.died") == []


def test_a_handler_over_its_time_is_killed_with_its_stack_in_the_log(project: Project, start: Start) -> None:
    pool = start(workers=1, settings={"handler_timeout_seconds": 0.2, "max_crashes": 2})
    [key] = project.push("hang")
    eventually(lambda: project.names("dead_new"), "it is buried after two crashes")
    [dead] = project.names("dead_new")
    assert (dead.key, dead.crashes) == (key, 2)
    timed_out = pool.events("worker.timed_out")
    assert [event["entry"].startswith(key) for event in timed_out] == [True, True]
    pool.await_event("worker.died", 2)
    for died in pool.events("worker.died"):
        assert (died["how"], died["handler"]) == ("SIGABRT", "workers.front.HANDLE")
        assert "front.py" in died["traceback"], "where the handler stood"
    assert "\nFatal Python error" not in pool.log(), "in the event, and nowhere else"
    [reason] = reasons(project)
    times, death = reason["reason"].split(", at last ")
    assert times == "its worker died 2 times while handling it"
    assert re.fullmatch(
        r"by its time limit of 0\.2 s in workers\.front\.HANDLE after (\d{3} ms|\d\.\d s)", death
    )
    assert (reason["death"], reason["handler"]) == ("by its time limit of 0.2 s", "workers.front.HANDLE")
    assert 0.2 <= reason["seconds"] < 60
    assert re.search(r'front\.py", line \d+ in HANDLE$', reason["traceback"]), "and not how we came there"
    project.push()
    eventually(lambda: project.notes("end"), "the pool serves on")


def test_a_handler_that_does_not_end_by_its_abort_is_told_of_as_well(project: Project, start: Start) -> None:
    pool = start(workers=1, settings={"handler_timeout_seconds": 0.2, "max_crashes": 1})
    project.push("stubborn")
    eventually(lambda: project.names("dead_new"), "it is buried")
    [reason] = reasons(project)
    assert reason["death"] == "by its time limit of 0.2 s, by SIGKILL, since SIGABRT did not end it"
    assert reason["handler"] == "workers.front.HANDLE"
    [died] = pool.events("worker.died")
    assert "traceback" not in died


def test_the_dump_of_a_handlers_child_is_not_its_workers(project: Project, start: Start) -> None:
    project.edit(
        "workers/front.py",
        "def _once(",
        "def _twins(argument: str) -> None:\n    if not (pid := os.fork()):\n        DEEDS['segfault']('')\n"
        "    os.waitpid(pid, 0)\n    os.kill(os.getpid(), signal.SIGKILL)\n\n\ndef _once(",
    )
    project.edit("workers/front.py", '"once": _once', '"once": _once, "twins": _twins')
    pool = start(workers=1, settings={"max_crashes": 1})
    project.push("twins")
    eventually(lambda: project.names("dead_new"), "it is buried")
    [reason] = reasons(project)
    assert (reason["death"], reason["traceback"]) == ("by SIGKILL", None)
    assert "in _twins" in pool.log(), "it is in the log, as the child's own words"


def family(project: Project) -> dict[str, int]:
    """The children of a handler by kind; 0 once they have ended."""
    pids = {path.suffix[1:]: int(path.read_text()) for path in project.path.glob("family.*")}
    return {kind: pid if pid_exists(pid) else 0 for kind, pid in pids.items()}


def end(pids: dict[str, int]) -> None:
    for pid in filter(None, pids.values()):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("what", ["familyhang", "familystubborn"])
def test_a_handlers_children_end_with_its_time_limit(project: Project, start: Start, what: str) -> None:
    pool = start(workers=1, settings={"handler_timeout_seconds": 0.5, "max_crashes": 1})
    project.push(what)
    try:
        eventually(lambda: project.names("dead_new"), "it is buried")
        eventually(
            lambda: [k for k, pid in family(project).items() if pid] == ["daemon"], "its children have ended"
        )
        [died] = pool.events("worker.died")
        assert died["children"] == 3
        project.push()
        eventually(lambda: project.notes("end"), "the pool serves on")
        assert pool.stop() == 0
        eventually(lambda: not any(family(project).values()), "what had left its family ends with the pool")
    finally:
        end(family(project))


@pytest.mark.parametrize("hurried", [False, True])
def test_a_handlers_children_end_with_the_pool(project: Project, start: Start, hurried: bool) -> None:
    pool = start(workers=2, settings={"drain_seconds": 0.2})
    project.push("familyhang" if hurried else "family")
    try:
        eventually(lambda: len(family(project)) == 4, "they are there")
        if not hurried:
            eventually(project.is_empty, "their message is done")
        assert all(family(project).values()), "a handler may leave something to run"
        assert pool.stop() == 0
        eventually(lambda: not any(family(project).values()), "all have ended")
    finally:
        end(family(project))


def test_a_handlers_children_end_with_the_worker_that_died(project: Project, start: Start) -> None:
    pool = start(workers=1, settings={"max_crashes": 1})
    project.push("familysegfault")
    try:
        eventually(lambda: project.names("dead_new"), "it is buried")
        eventually(
            lambda: [k for k, pid in sorted(family(project).items()) if pid] == ["daemon", "session"],
            "those of its session have ended",
        )
        assert pool.stop() == 0
        eventually(lambda: not any(family(project).values()), "the others end with the pool")
    finally:
        end(family(project))


def reasons(project: Project) -> list[dict[str, Any]]:
    folder = project.path / "run/queue/.maildefer/dead"
    return [json.loads(path.read_text()) for path in folder.iterdir()]


def test_a_deadline_counts_the_handlers_time_only(project: Project, start: Start) -> None:
    """Neither the time of other messages, nor that between them."""
    pool = start(workers=1, settings={"handler_timeout_seconds": 3})
    project.push("sleep0.2", 20)
    eventually(project.is_empty, "all are handled")
    ended = pool.status()["up_seconds"]
    eventually(lambda: pool.status()["up_seconds"] > ended + 2, "some looks at the deadlines later")
    assert pool.events("worker.timed_out") == []


def test_five_deaths_in_a_row_slow_the_forks_down(project: Project, start: Start) -> None:
    pool = start(workers=2, settings={"max_crashes": 50})
    project.push("exit3")
    pool.await_event("pool.throttled")
    event = pool.events("pool.throttled")[0]  # two workers may have died at once
    assert (event["deaths"], event["pause_ms"]) == (5, 1000)
    eventually(lambda: pool.status()["throttled_seconds"] > 0, "status says so")
    pool.await_event("pool.throttled", 2)
    assert len(project.notes("start")) <= 7


def test_a_throttled_pool_recovers_with_the_first_settle(project: Project, start: Start) -> None:
    pool = start(workers=2, settings={"max_crashes": 5})
    project.push("exit3")
    eventually(lambda: project.names("dead_new"), "the poison is buried")
    keys = project.push("quick", 5)
    eventually(project.is_empty, "the others are handled")
    eventually(lambda: len(pool.worker_pids()) == 2, "all workers are back")
    assert set(keys) <= project.starts().keys()


def test_a_worker_is_replaced_after_its_share(project: Project, start: Start) -> None:
    pool = start(workers=1, settings={"messages_per_worker": 20})
    keys = project.push("quick", 100)
    eventually(project.is_empty, "all are handled")
    pool.await_event("worker.ended", 4)
    assert all(18 <= event["handled"] <= 22 for event in pool.events("worker.ended"))
    assert project.starts() == dict.fromkeys(keys, 1)
    assert pool.events("worker.died") == []


def test_a_share_of_one_message_is_one(project: Project, start: Start) -> None:
    pool = start(workers=1, settings={"messages_per_worker": 1})
    project.push("quick", 8)
    eventually(project.is_empty, "all are handled")
    pool.await_event("worker.ended", 8)
    assert {event["handled"] for event in pool.events("worker.ended")} == {1}


def test_a_worker_that_has_grown_is_replaced_after_its_message(project: Project, start: Start) -> None:
    pool = start(workers=1, settings={"memory_bytes_per_worker": 150 << 20})
    [before] = pool.worker_pids()
    project.push("grow200")
    event = pool.await_event("worker.recycled")
    assert event["pid"] == before
    assert event["resident_bytes"] > 150 << 20
    eventually(lambda: pool.worker_pids() and before not in pool.worker_pids(), "another takes its place")
    project.push()
    eventually(project.is_empty, "it serves")


def test_a_worker_that_has_rested_is_replaced_and_the_pool_serves_on(project: Project, start: Start) -> None:
    pool = start(workers=2, settings={"idle_seconds_per_worker": 0.1})
    for _ in range(2):
        project.push("quick")
        event = pool.await_event("worker.recycled", 1 + len(pool.events("worker.recycled")))
        assert event["idle_seconds"] >= 0
        eventually(lambda pid=event["pid"]: pid not in pool.worker_pids(), "it has ended")  # type: ignore[misc]
        eventually(lambda: len(pool.worker_pids()) == 2, "another takes its place")
    assert project.is_empty()
    assert pool.events("worker.died") == []


def test_a_worker_that_was_too_big_from_the_start_handles_a_message_all_the_same(
    project: Project, start: Start
) -> None:
    pool = start(workers=1, settings={"memory_bytes_per_worker": 1})
    keys = project.push("quick", 3)
    eventually(project.is_empty, "all are handled")
    assert project.starts() == dict.fromkeys(keys, 1)
    pool.await_event("worker.recycled")


@pytest.mark.ttl(300)
def test_no_child_survives_a_killed_supervisor(project: Project, start: Start) -> None:
    pool = start(workers=2)
    project.push("hang", 2)
    eventually(lambda: len(project.notes("start")) == 2, "both are busy")
    children = pool.tree()[1:]
    assert len(children) >= 4  # the scout may be starting something
    pool.signal(signal.SIGKILL)
    pool.wait()
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children), "all are gone")


@pytest.mark.ttl(300)
def test_the_next_supervisor_of_a_host_takes_over_at_once(project: Project, start: Start) -> None:
    first = start(workers=2)
    keys = project.push("wait", 2)
    eventually(lambda: len(project.notes("start")) == 2, "both are busy")
    first.kill_tree()
    second = start(workers=2)
    eventually(lambda: len(project.notes("start")) == 4, "they are taken over long before the TTL")
    assert second.events("lease.fenced") != []
    assert [entry.crashes for entry in project.names("cur")] == [1, 1]
    project.go()
    eventually(project.is_empty, "they are acked")
    assert project.starts() == dict.fromkeys(keys, 2)


def test_a_killed_keeper_is_replaced_under_the_same_lease(project: Project, start: Start) -> None:
    pool = start(workers=2)
    lease = pool.status()["queues"][0]["lease"]
    keys = project.push("sleep0.01", 100)
    os.kill(pool.child("keeper"), signal.SIGKILL)
    pool.await_event("child.died", kind="keeper", how="SIGKILL")
    pool.await_event("child.started", 2, kind="keeper")
    eventually(project.is_empty, "all are handled")
    eventually(lambda: any(name.startswith(lease) for name in project.leases()), "the lease lives")
    pool.await_event("lease.joined", 4)
    assert pool.status()["queues"][0]["lease"] == lease
    assert project.starts() == dict.fromkeys(keys, 1)
    assert pool.stop() == 0


@pytest.mark.invariant(5)
def test_keeper_and_worker_killed_together_still_charge_the_crash(project: Project, start: Start) -> None:
    pool = start(workers=1)
    [key] = project.push("wait")
    [first] = eventually(lambda: project.notes("start"), "the handler begins")
    os.kill(pool.child("keeper"), signal.SIGKILL)
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: len(project.notes("start")) == 2, "it is taken over")
    [entry] = project.names("cur")
    assert (entry.key, entry.crashes) == (key, 1)
    project.go()
    eventually(project.is_empty, "it is acked")


def test_a_death_that_the_keeper_did_not_live_to_hear_of_is_in_the_reason(
    project: Project, start: Start
) -> None:
    pool = start(workers=1, settings={"max_crashes": 1})
    [key] = project.push("wait")
    [first] = eventually(lambda: project.notes("start"), "the handler begins")
    os.kill(pool.child("keeper"), signal.SIGKILL)
    os.kill(first.pid, signal.SIGSEGV)
    eventually(lambda: project.names("dead_new"), "it is buried")
    [reason] = reasons(project)
    assert (reason["death"], reason["handler"]) == ("by SIGSEGV", "workers.front.HANDLE")
    assert "in _wait" in reason["traceback"]
    buried = pool.await_event("entry.buried", key=key)
    assert buried["reason"] == reason["reason"]


def test_the_exception_of_a_program_that_consumes_is_in_the_reason(project: Project) -> None:
    project.push()

    def consume() -> None:
        with Consumer(project.queue, max_crashes=1) as consumer:
            assert consumer.claim(30) is not None
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        consume()
    [reason] = reasons(project)
    assert reason["reason"] == "its worker died once while handling it, by an exception of its program"


def test_a_killed_scout_is_replaced_and_nothing_is_left_lying(project: Project, start: Start) -> None:
    pool = start(workers=2)
    keys = project.push("sleep0.01", 60)
    os.kill(pool.child("scout"), signal.SIGKILL)
    keys += project.push("sleep0.01", 60)
    pool.await_event("child.started", 2, kind="scout")
    eventually(project.is_empty, "all are handled")
    assert project.starts() == dict.fromkeys(keys, 1)
