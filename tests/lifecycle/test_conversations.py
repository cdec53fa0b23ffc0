"""Conversations: one message of each at a time, on all workers and hosts, and no longer than its worker lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from maildefer.maildir.names import split_beat
from maildefer.maildir.push import Pusher
from maildefer.maildir.upkeep.leases import fence
from maildefer.message.envelope import block
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import APPLICATION, BODY, TTL_SECONDS, Project, eventually

pytestmark = pytest.mark.lifecycle

CONVERSATIONS = APPLICATION.parent / "conversations"
ANN, BOB = "ann@example.org", "bob@example.org"


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Project:
    mark = request.node.get_closest_marker("ttl")
    return Project(tmp_path, CONVERSATIONS, ttl_seconds=mark.args[0] if mark else TTL_SECONDS)


def push(project: Project, sender: str, what: str, count: int = 1, queue: str = "run/queue") -> list[str]:
    """Messages of one conversation; each adds one to its sender's counter, if no other does at the same time."""
    pusher = Pusher(project.layouts[queue], host="test")
    compose = lambda stem: [  # noqa: E731
        block(stem, sender, f"{what}@test", host="test", when=time.time(), via="push"),
        BODY,
    ]
    return [key for key in pusher.push_all([compose] * count) if isinstance(key, str)]


def counted(project: Project, sender: str = ANN) -> int:
    return int((project.path / f"count-{sender}").read_text())


def overlaps(project: Project) -> int:
    """How often a handler began while another was at it."""
    words = [note.word for note in project.notes()]
    return sum(1 for before, after in pairwise(words) if before == after == "start")


def waiting(pool: Pool) -> int:
    """How many workers wait for a conversation."""
    return sum(worker["waits_for"] is not None for worker in pool.status().get("workers", ()))


def test_messages_of_one_conversation_are_handled_one_at_a_time(project: Project, start: Start) -> None:
    start(workers=4)
    push(project, ANN, "sleep0.02", 20)
    push(project, ANN, "sleep0.02", 20, "run/later")
    eventually(project.is_empty, "all are handled")
    assert overlaps(project) == 0
    assert counted(project) == 40


def test_without_tokens_they_get_into_each_others_way(project: Project, start: Start) -> None:
    """What the others of this module would not notice if it could not happen."""
    start(workers=4, environ={"WITHOUT_TOKENS": "1"})
    push(project, ANN, "sleep0.02", 20)
    push(project, ANN, "sleep0.02", 20, "run/later")
    eventually(project.is_empty, "all are handled")
    assert overlaps(project) > 0
    assert counted(project) < 40


def test_the_same_goes_for_several_hosts(project: Project, start: Start) -> None:
    for host in ("a", "b"):
        start(host=host, workers=2)
    push(project, ANN, "sleep0.02", 20)
    push(project, ANN, "sleep0.02", 20, "run/later")
    eventually(project.is_empty, "all are handled")
    assert overlaps(project) == 0
    assert counted(project) == 40
    assert len({note.pid for note in project.notes("end")}) > 2, "both hosts took part"


def test_a_host_that_does_not_serve_the_tokens_queue_heeds_them_all_the_same(
    project: Project, start: Start
) -> None:
    guest = start(host="a", workers=2, queues=["run/later"])
    start(host="b", workers=2, queues=["run/queue"])
    push(project, ANN, "sleep0.02", 10)
    push(project, ANN, "sleep0.02", 10, "run/later")
    eventually(project.is_empty, "all are handled")
    assert overlaps(project) == 0
    assert counted(project) == 20
    guest.await_event("attempt.ended", 10)
    assert {event["queue"] for event in guest.events("attempt.ended")} == {"run/later"}


def test_what_waits_for_its_conversation_is_handled_in_the_queues_order(
    project: Project, start: Start
) -> None:
    pool = start(workers=5, environ={"PATIENCE": "60"})
    keys = push(project, ANN, "wait")
    eventually(lambda: project.notes("start"), "the first is in its handler")
    for count in range(1, 5):
        keys += push(project, ANN, "quick")
        eventually(lambda count=count: waiting(pool) == count, "another one waits")  # type: ignore[misc]
    project.go()
    eventually(project.is_empty, "all are handled")
    assert [note.key for note in project.notes("start")] == keys
    assert counted(project) == 5


def test_another_conversation_does_not_wait(project: Project, start: Start) -> None:
    start(workers=2)
    push(project, ANN, "wait")
    eventually(lambda: project.notes("start"), "ann's message is in hand")
    push(project, BOB, "quick", 5)
    eventually(lambda: len(project.notes("end")) == 5, "bob's are handled")
    project.go()
    eventually(project.is_empty, "ann's is, too")
    assert (counted(project), counted(project, BOB)) == (1, 5)


def test_a_message_that_waits_for_its_conversation_is_not_charged(project: Project, start: Start) -> None:
    pool = start(workers=2)
    push(project, ANN, "wait")
    eventually(lambda: project.notes("start"), "the first is in hand")
    [key] = push(project, ANN, "wait")
    pool.await_event("attempt.ended", outcome="postponed", key=key)
    project.go()
    eventually(project.is_empty, "both are handled")
    assert [note.attempt for note in project.notes("start", key)] == [1]
    assert counted(project) == 2


@pytest.mark.ttl(300)
@pytest.mark.parametrize("queue", ["run/queue", "run/later"])
def test_a_killed_workers_conversation_goes_on_at_once(queue: str, project: Project, start: Start) -> None:
    pool = start(workers=2)
    push(project, ANN, "wait", 1, queue)
    [note] = eventually(lambda: project.notes("start"), "the first is in hand")
    push(project, ANN, "quick", 2, queue)
    os.kill(note.pid, signal.SIGKILL)
    project.go()
    pool.await_event("token.freed")
    eventually(project.is_empty, "all three are handled")
    assert counted(project) == 3
    assert len(project.notes("start")) == 4


@pytest.mark.slow
def test_a_dead_hosts_conversation_goes_on_within_the_ttl_and_a_bit(project: Project, start: Start) -> None:
    first = start(host="a", workers=1)
    push(project, ANN, "wait", 1, "run/later")
    eventually(lambda: project.notes("start"), "a has it")
    second = start(host="b", workers=1)
    first.kill_tree()
    push(project, ANN, "quick")
    project.go()
    second.await_event("token.freed")
    eventually(project.is_empty, "b handles both")
    assert counted(project) == 2


def test_who_loses_the_lease_of_the_tokens_is_no_longer_the_only_one(project: Project, start: Start) -> None:
    """Its claim, in another queue, is good as ever; but others may handle the conversation from now on."""
    pool = start(workers=1)
    push(project, ANN, "wait", 1, "run/later")
    [note] = eventually(lambda: project.notes("start"), "it is in hand")

    def fenced() -> bool:
        beats = filter(None, map(split_beat, project.leases()))
        return any(fence(project.queue, lease, beat) for lease, beat in beats)

    eventually(fenced, "the lease is fenced")
    died = pool.await_event("worker.died")
    assert (died["pid"], died["charged"]) == (note.pid, False)
    project.go()
    eventually(project.is_empty, "it is handled again")
    assert counted(project) == 1


def test_a_drained_pool_leaves_no_token_taken(project: Project, start: Start) -> None:
    pool = start(workers=2, settings={"drain_seconds": 0.3})
    push(project, ANN, "quick", 5)
    eventually(project.is_empty, "they are handled")
    push(project, ANN, "wait", 1, "run/later")
    eventually(lambda: len(project.notes("start")) == 6, "the last one is in hand")
    assert pool.stop() == 0
    assert os.listdir(f"{project.queue.tokens}/held") == []


def test_an_application_without_conversations_pays_nothing(tmp_path: Path, start: Start) -> None:
    project = Project(tmp_path)  # over the other one
    pool = start(workers=1)
    project.push("quick", 10)
    eventually(project.is_empty, "they are handled")
    assert len(project.notes("end")) == 10
    assert os.listdir(project.queue.tokens) == []
    assert pool.stop() == 0
    loaded = "import sys, maildefer.pool.worker.worker, maildefer.pool.keeper.keeper; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert {"maildefer.maildir.upkeep.tokens", "maildefer.maildir.upkeep.token_reclaim"}.isdisjoint(
        modules.stdout.split()
    )
