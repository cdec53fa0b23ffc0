"""What a pool does with messages: several queues, deferrals, handoffs, faults of filesystem and deployment."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from maildefer.maildir import journal
from maildefer.pool.worker.queue_view import UNROUTED_LIMIT
from tests.lifecycle.conftest import Start
from tests.lifecycle.project import Project, eventually

pytestmark = pytest.mark.lifecycle


def test_a_pool_makes_the_queues_of_its_settings_where_there_is_none_yet(
    project: Project, start: Start
) -> None:
    """As in a project that is as `maildefer new` has made it."""
    journal.close_journals()
    shutil.rmtree(project.path / "run")
    pool = start()
    project.renew()
    keys = project.push("quick", 3)
    eventually(project.is_empty, "they are handled")
    assert project.starts() == dict.fromkeys(keys, 1)
    assert pool.events("join.failed") == []


def test_the_first_queue_comes_first(project: Project, start: Start) -> None:
    pool = start(workers=1)
    pool.signal(signal.SIGTSTP)
    pool.await_event("pool.paused")
    high = project.push("quick", 60)  # first, so that the scout has seen them when the others come
    low = project.push("quick", 60, queue="run/later")
    pool.signal(signal.SIGCONT)
    eventually(project.is_empty, "all are handled")
    order = [note.key for note in project.notes("start")]
    assert len([key for key in order[:60] if key in set(high)]) > 40
    assert set(order) == {*low, *high}


def test_a_full_first_queue_does_not_starve_the_second(project: Project, start: Start) -> None:
    pool = start(workers=1)
    pool.signal(signal.SIGTSTP)  # else a worker keeps up with pushes where syncs take long
    pool.await_event("pool.paused")
    project.push("sleep0.05", 1000)
    pool.signal(signal.SIGCONT)
    eventually(lambda: project.notes("start"), "the first is under way")
    low = set(project.push("quick", 3, queue="run/later"))
    eventually(lambda: low <= {note.key for note in project.notes("end")}, "the second is served")
    assert project.names("new"), "while the first is still full"


def test_a_deferred_entry_is_handled_again_when_it_is_due(project: Project, start: Start) -> None:
    once = 'if not os.path.exists("again"): open("again", "x").close(); raise Defer('
    project.edit("workers/front.py", "raise Defer(", once)
    pool = start()
    [key] = project.push("defer1")
    eventually(project.is_empty, "it is handled in the end")
    first, second = project.notes("start")
    assert (first.key, second.key, second.attempt) == (key, key, 2)
    assert 0.9 <= second.time - first.time <= 30, "not only when all that is deferred is listed"
    assert pool.await_event("entry.promoted")["key"] == key


def test_what_another_host_deferred_is_promoted_too(project: Project, start: Start) -> None:
    first = start(host="a")
    [key] = project.push("defer5")  # not sooner, as it would be handled again here
    first.await_event("attempt.ended", outcome="deferred")
    assert first.stop() == 0
    project.edit("workers/front.py", "raise Defer(", "if False: raise Defer(")
    start(host="b")
    eventually(project.is_empty, "b promotes and handles it")
    assert project.starts()[key] == 2


def test_a_rejected_message_is_buried_with_its_reason(project: Project, start: Start) -> None:
    pool = start()
    [key] = project.push("reject")
    eventually(lambda: project.names("dead_new"), "it is buried")
    pool.await_event("attempt.ended", outcome="buried", key=key)
    [reason] = os.listdir(project.queue.reasons)
    assert reason.startswith(key)
    assert '"never"' in Path(project.queue.reasons, reason).read_text()


def test_a_handlers_change_of_directory_ends_with_its_message(project: Project, start: Start) -> None:
    start(workers=1)
    for _ in range(2):
        project.push("move")
        eventually(project.is_empty, "it is rejected, in the directory that it has chosen")
        project.push("quick")
        eventually(project.is_empty, "the next message is handled")
    assert [note.word for note in project.notes()] == ["start", "start", "end"] * 2
    assert not (project.path / "run" / "journal").exists()


def test_a_handoff_takes_the_message_to_the_other_queue_under_its_key(project: Project, start: Start) -> None:
    pool = start()
    [key] = project.push("handoff")
    eventually(lambda: project.notes("back"), "the second queue's handler has it")
    eventually(project.is_empty, "it is acked there")
    assert [(note.word, note.key) for note in project.notes()] == [
        (word, key) for word in ("start", "end", "start", "back", "end")
    ]
    pool.await_event("attempt.ended", outcome="handed_off", queue="run/queue", key=key)
    pool.await_event("attempt.ended", outcome="acked", queue="run/later", key=key)


def test_a_hundred_unrouted_messages_in_a_row_pause_the_queue(project: Project, start: Start) -> None:
    pool = start(workers=2)
    project.push("no-such-route", UNROUTED_LIMIT + 60)
    project.push("quick", 3, queue="run/later")
    event = pool.await_event("queue.paused", queue="run/queue")
    assert "no route" in event["why"]
    eventually(lambda: len(project.notes("end")) == 3, "the other queue is served")
    eventually(lambda: project.names("cur") == [], "what was in hand is settled")
    assert UNROUTED_LIMIT <= len(project.names("dead_new")) < UNROUTED_LIMIT + 10
    left = project.names("new")
    assert [entry.attempts for entry in left] == [0] * len(left)
    assert pool.status()["queues"][0]["paused"]


def test_new_code_ends_a_pause_for_want_of_routes_once_no_old_worker_is_left(
    project: Project, start: Start
) -> None:
    pool = start(workers=2)
    project.push("no-such-route", UNROUTED_LIMIT + 60)
    pool.await_event("queue.paused", queue="run/queue")
    eventually(lambda: project.names("cur") == [], "what was in hand is settled")
    waiting = {entry.key for entry in project.names("new")}
    project.edit("workers/front.py", "(argument)@test", '(argument)@test", what="[a-z-]+')
    project.edit("workers/front.py", "ACTIONS[what]", "ACTIONS.get(what, ACTIONS['quick'])")
    project.edit(  # new workers take their time, so that old ones have it to claim
        "conf/settings.py",
        '"""Two',
        'import sys, time\nif "maildefer.pool.worker.worker" in sys.modules: time.sleep(0.3)\n"""Two',
    )
    pool.signal(signal.SIGHUP)
    eventually(lambda: project.names("new") == [] == project.names("cur"), "the rest is settled")
    assert {note.key for note in project.notes("end")} == waiting, "by handlers"


def test_now_and_then_an_unrouted_message_pauses_nothing(project: Project, start: Start) -> None:
    pool = start(workers=1)
    for _ in range(6):
        project.push("no-such-route", 30)
        project.push("quick", 1)
        eventually(project.is_empty, "they are settled")
    assert pool.events("queue.paused") == []


def test_an_entry_that_cannot_be_read_waits_uncharged_and_holds_up_nobody(
    project: Project, start: Start
) -> None:
    pool = start(ready=False, privileged=False)
    pool.await_ready()
    pool.signal(signal.SIGTSTP)
    pool.await_event("pool.paused")
    [key] = project.push()
    Path(project.queue.new, key).chmod(0)
    pool.signal(signal.SIGCONT)
    event = pool.await_event("entry.unreadable", queue="run/queue")
    assert "permission" in event["error"].lower()
    [other] = project.push("quick")
    eventually(lambda: other in project.starts(), "the next message is handled meanwhile")
    waiting = eventually(lambda: project.names("later_new"), "it waits")[0]
    assert (waiting.key, waiting.attempts, waiting.crashes) == (key, 0, 0)

    def is_handled_once_it_can_be_read() -> bool:
        for path in (*Path(project.queue.later_new).iterdir(), *Path(project.queue.new).iterdir()):
            with suppress(FileNotFoundError):  # it has just become due, or is claimed
                path.chmod(0o600)
        return project.is_empty()

    eventually(is_handled_once_it_can_be_read, "it is handled when it can be read")
    assert project.starts()[key] == 1
    assert project.names("dead_new") == []
    assert pool.events("queue.paused") == []


def test_a_message_whose_ack_is_refused_for_a_while_is_not_handled_again(
    project: Project, start: Start
) -> None:
    pool = start(workers=2, privileged=False)
    [key] = project.push("wait")
    eventually(lambda: project.notes("start"), "the handler begins")
    folder = Path(project.queue.cur)
    folder.chmod(0o500)
    project.go()
    eventually(lambda: project.notes("end"), "the handler ends")
    scans = pool.status()["up_seconds"]
    eventually(lambda: pool.status()["up_seconds"] > scans + 1, "it is tried for a while")
    assert len(project.names("cur")) == 1
    folder.chmod(0o770)
    eventually(project.is_empty, "it is acked")
    assert project.starts() == {key: 1}


def test_several_unreadable_entries_in_a_row_pause_the_queue(project: Project, start: Start) -> None:
    pool = start(ready=False, privileged=False)
    pool.await_ready()
    pool.signal(signal.SIGTSTP)
    pool.await_event("pool.paused")
    for key in project.push("quick", 5):
        Path(project.queue.new, key).chmod(0)
    pool.signal(signal.SIGCONT)
    event = pool.await_event("queue.paused", queue="run/queue")
    assert "permission" in event["why"].lower()
    eventually(lambda: pool.status()["queues"][0]["paused_for"] == "EACCES", "status says why")
    assert project.starts() == {}
    assert project.names("dead_new") == []


@pytest.mark.parametrize("kind", ["directory", "link", "fifo", "empty"])
def test_what_is_no_message_is_buried_and_stops_nobody(project: Project, start: Start, kind: str) -> None:
    pool = start(workers=2)
    path = Path(project.queue.new, "1.M1.foreign")
    match kind:
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to("/etc/hostname")
        case "fifo":
            os.mkfifo(path)
        case "empty":
            path.touch()
    keys = project.push("quick", 5)
    eventually(lambda: project.names("dead_new"), "it is buried")
    eventually(project.is_empty, "the messages are handled")
    assert project.starts() == dict.fromkeys(keys, 1)
    assert pool.events("worker.died") == []
