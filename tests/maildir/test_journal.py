"""The journal's records: which there are, when they are written, and what is torn."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maildefer.errors import EntryNotFound, MountFault
from maildefer.maildir import control_folder, journal, journal_file, pop
from maildefer.maildir.claims import Claim, Claimer
from maildefer.maildir.journal import Journal
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.operator import entries, record_keeping
from maildefer.maildir.push import Pusher
from maildefer.maildir.system import SYSTEM
from maildefer.maildir.upkeep import promote
from tests.support.queues import DATA, LABEL, FakeSlots

LEASE = f"{LABEL}-17-abcdef012345"


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Layout]:
    """A queue of the real filesystem that keeps a journal."""
    layout = create_queue(str(tmp_path / "queue"))
    journal.begin_journal(layout)
    yield layout
    journal.close_journals()


@pytest.fixture
def pusher(queue: Layout) -> Pusher:
    return Pusher(queue, host=LABEL)


def push(pusher: Pusher) -> str:
    return pusher.push(lambda stem: [DATA])


def claimed(queue: Layout, key: str) -> Claim:
    claim = Claimer(queue, FakeSlots(), lease=LEASE, host=LABEL).claim(key)
    assert claim is not None
    return claim


def records(queue: Layout) -> list[list[str]]:
    """Verb, key, detail; without times."""
    found: list[list[str]] = []
    for path in sorted(Path(queue.journal).iterdir()):
        for line in filter(None, path.read_text().rstrip("\0").split("\n")):
            fields = line.split(" ")
            assert fields[-1] == "."
            found.append(fields[1:-1])
    return found


def test_a_push_is_recorded_after_it_is_durable(queue: Layout, pusher: Pusher) -> None:
    key = push(pusher)
    assert records(queue) == [["push", key]]
    [name] = os.listdir(queue.journal)
    assert name.endswith(".pushed")


def test_pushes_of_a_batch_are_recorded_by_one_write(queue: Layout) -> None:
    writes: list[bytes | memoryview] = []
    system = replace(SYSTEM, write=lambda fd, data: writes.append(data) or os.write(fd, data))
    pen = Journal(queue, host="h", boot="b", system=system)
    pen.record_pushes(["1.a", "2.b", "3.c"])
    assert len(writes) == 1
    assert records(queue) == [["push", "1.a"], ["push", "2.b"], ["push", "3.c"]]


def test_a_push_that_failed_is_not_recorded(queue: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    pusher = Pusher(queue, host=LABEL)
    monkeypatch.setattr(
        pusher.placer._new_folder, "sync", lambda: (_ for _ in ()).throw(OSError(errno.EIO, "gone"))
    )
    with pytest.raises(MountFault):
        push(pusher)
    assert records(queue) == []


def test_an_ack_is_recorded_before_the_unlink(queue: Layout, pusher: Pusher) -> None:
    """Whoever is killed in between leaves a record too much, and never one too few."""
    key = push(pusher)
    seen: list[list[list[str]]] = []
    claimer = Claimer(
        queue,
        FakeSlots(),
        lease=LEASE,
        host=LABEL,
        system=replace(SYSTEM, unlink=lambda path: seen.append(records(queue)) or os.unlink(path)),
    )
    claimer.journal = journal.journal_of(queue)
    claim = claimer.claim(key)
    assert claim is not None
    claim.ack()
    assert seen == [[["push", key], ["ack", key]]]


@pytest.mark.parametrize(
    ("settle", "place"),
    [
        ("release", "new/{key},n=1"),
        ("defer", ".later/new/{key},a=1,n=1,d="),
        ("postpone", ".later/new/{key},n=1,d="),
        ("bury", ".dead/new/{key},n=1"),
        ("handoff", "../other/new/{key},h=1,n=1"),
        ("keep", ".done/new/{key},a=1,n=1,d="),
    ],
)
def test_each_other_settle_is_recorded_with_where_it_leads(
    queue: Layout, pusher: Pusher, settle: str, place: str
) -> None:
    key = push(pusher)
    claim = claimed(queue, key)
    other = create_queue(f"{queue.path}/../other")
    settles: dict[str, Callable[[], object]] = {
        "release": claim.release,
        "defer": lambda: claim.defer(60),
        "postpone": lambda: claim.postpone(60),
        "bury": lambda: claim.bury("no"),
        "handoff": lambda: claim.handoff(other),
        "keep": lambda: claim.ack(keep_seconds=60.0),
    }
    settles[settle]()
    _, record = records(queue)
    assert record[:2] == ["move", key]
    assert record[2].startswith(place.format(key=key))


def test_what_operators_do_is_recorded(queue: Layout, pusher: Pusher) -> None:
    requeued, deleted = push(pusher), push(pusher)
    claimed(queue, requeued).bury("no")
    entries.requeue(queue, entries.find(queue, requeued))
    entries.delete(queue, entries.find(queue, deleted))
    assert ["move", requeued, f"new/{requeued},n=2"] in records(queue)
    assert ["delete", deleted] in records(queue)


def test_what_was_to_be_deleted_and_was_gone_is_recorded_as_kept(queue: Layout, pusher: Pusher) -> None:
    key = push(pusher)
    found = entries.find(queue, key)
    claimed(queue, key)
    with pytest.raises(EntryNotFound):
        entries.delete(queue, found)
    assert records(queue)[1:] == [["delete", key], ["kept", key]]


def test_a_pop_and_a_withdrawal_are_ends(queue: Layout, pusher: Pusher) -> None:
    popped, withdrawn = push(pusher), push(pusher)
    pusher.withdraw(withdrawn)
    [found] = entries.list_entries(queue, "waiting")
    taken = pop.pop_entry(queue, found, host=LABEL)
    assert taken is not None
    assert taken.unlink()
    assert records(queue)[2:] == [["withdraw", withdrawn], ["pop", popped]]


def test_a_promotion_is_recorded(queue: Layout, pusher: Pusher) -> None:
    key = push(pusher)
    claimed(queue, key).defer(0)
    promoter = promote.Promoter(queue)
    promoter.relist()
    assert promoter.promote(SYSTEM.time() + 10) == [key]
    assert records(queue)[-1] == ["move", key, f"new/{key},a=1,n=2"]


def test_without_its_folder_there_is_no_journal(tmp_path: Path) -> None:
    layout = create_queue(str(tmp_path / "plain"))
    assert record_keeping.end_journal(layout) is None
    assert journal.journal_of(layout) is None
    key = push(Pusher(layout, host=LABEL))
    claim = claimed(layout, key)
    assert claim._claimer.journal is None
    claim.ack()
    assert not os.path.exists(layout.journal)


def test_who_looks_before_the_queue_is_made_looks_again_afterwards(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / "late"))
    assert journal.journal_of(layout) is None
    create_queue(layout.path)
    assert journal.journal_of(layout) is not None


def test_a_claimer_that_serves_anew_keeps_the_journal_of_the_queue_that_is_there_then(
    queue: Layout, pusher: Pusher
) -> None:
    """As after another filesystem was mounted there, or the queue was moved away and made anew."""
    claimer = Claimer(queue, FakeSlots(), lease=f"{LABEL}-17-abcd", host=LABEL)
    first = claimer.claim(push(pusher))
    assert first is not None
    first.ack()
    os.rename(queue.path, f"{queue.path}.away")
    create_queue(queue.path)
    claimer.serve_under(f"{LABEL}-17-ef01")
    key = push(Pusher(queue, host=LABEL))
    second = claimer.claim(key)
    assert second is not None
    second.ack()
    assert ["ack", key] in records(queue)


def test_a_journal_that_is_ended_leaves_nothing(queue: Layout, pusher: Pusher) -> None:
    push(pusher)
    record_keeping.end_journal(queue)
    assert not os.path.exists(queue.journal)
    assert journal.journal_of(queue) is None


def test_names_of_other_writers_cannot_forge_a_record(queue: Layout) -> None:
    evil = "1.x\n1.0 push y .\n %é\udcff"
    assert journal_file.unquoted(journal_file.quoted(evil)) == evil
    journal.journal_of(queue).record_end("ack", evil)
    assert records(queue) == [["ack", journal_file.quoted(evil)]]


def test_a_full_disk_stops_nobody_and_leaves_a_gap(queue: Layout) -> None:
    full = [True]

    def write(descriptor: int, data: bytes | memoryview) -> int:
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(descriptor, data)

    pen = Journal(queue, host="h", boot="b", system=replace(SYSTEM, write=write, time=lambda: 1000.0))
    pen.record_end("ack", "1.a")
    full[0] = False
    pen.record_end("ack", "2.b")
    pen.record_end("ack", "3.c")
    assert records(queue) == [["gap", "1000.000"], ["ack", "2.b"], ["ack", "3.c"]]


def test_a_process_leaves_files_that_somebody_has_removed_and_says_so(queue: Layout) -> None:
    clock = [1000.0]
    pen = Journal(queue, host="h", boot="b", system=replace(SYSTEM, time=lambda: clock[0]))
    for _ in range(20):  # the first sixteen are appended, the others go into a mapped file
        pen.record_end("ack", "1.a")
        pen.record_pushes(["1.a"])
    for name in os.listdir(queue.journal):
        os.unlink(f"{queue.journal}/{name}")
    clock[0] += 9.0
    pen.record_end("ack", "2.b")
    assert os.listdir(queue.journal) == []
    clock[0] += 2.0
    for key in ("3.c", "4.d"):
        pen.record_end("ack", key)
    pen.record_pushes(["5.e"])
    assert records(queue) == [["push", "5.e"], ["gap", "1011.000"], ["ack", "3.c"], ["ack", "4.d"]]
    pen.close()


def test_a_process_goes_on_in_peace_where_the_journal_was_ended(
    queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(journal, "_report", lambda event, **facts: told.append(event))
    clock = [1000.0]
    pen = Journal(queue, host="h", boot="b", system=replace(SYSTEM, time=lambda: clock[0]))
    pen.record_end("ack", "1.a")
    record_keeping.end_journal(queue)
    clock[0] += 60.0
    pen.record_end("ack", "2.b")
    assert told == []
    pen.close()


def test_where_a_handler_has_left_no_memory_a_record_is_tried_once_more(
    queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    pen = Journal(queue, host="h", boot="b")
    told: list[str] = []
    monkeypatch.setattr(journal, "_report", lambda event, **facts: told.append(facts["error"]))
    left, real = [0], journal_file.open_appended

    def opened(*arguments: Any, **more: Any) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise MemoryError
        return real(*arguments, **more)

    def fail_once(*arguments: Any, **more: Any) -> int:
        monkeypatch.setattr("maildefer.maildir.journal.open_appended", opened)
        raise MemoryError

    left[0] = 1
    monkeypatch.setattr("maildefer.maildir.journal.open_appended", fail_once)
    pen.record_end("ack", "1.a")
    assert (records(queue), told) == ([["ack", "1.a"]], [])
    pen.close()
    pen.record_end("ack", "2.b")
    assert told == ["Cannot allocate memory"]


def test_a_short_write_leaves_a_torn_record_and_a_gap(queue: Layout) -> None:
    short = [True]

    def write(descriptor: int, data: bytes | memoryview) -> int:
        return os.write(descriptor, data[:9] if short[0] else data)

    pen = Journal(queue, host="h", boot="b", system=replace(SYSTEM, write=write))
    pen.record_end("ack", "1.a")
    short[0] = False
    pen.record_end("ack", "2.b")
    [path] = Path(queue.journal).iterdir()
    torn, gap, whole = filter(None, path.read_text().split("\n"))
    assert not torn.endswith(" .")
    assert gap.split(" ")[1] == "gap"
    assert whole.split(" ")[1:] == ["ack", "2.b", "."]


def test_a_handler_that_closes_every_descriptor_costs_no_record(queue: Layout, pusher: Pusher) -> None:
    """Nor does a record get into what is opened next."""
    script = (
        "import os, sys\n"
        "from maildefer.maildir.journal import Journal\n"
        "from maildefer.maildir.layout import Layout\n"
        "pen = Journal(Layout(sys.argv[1]), host='h', boot='b')\n"
        "pen.record_end('ack', '1.a')\n"
        "os.closerange(0, 4096)\n"
        "mine = [os.open(sys.argv[2], os.O_RDWR | os.O_CREAT) for _ in range(20)]\n"
        "pen.record_end('ack', '2.b')\n"
    )
    theirs = f"{queue.path}/../theirs"
    subprocess.run([sys.executable, "-c", script, queue.path, theirs], check=True)
    assert records(queue) == [["ack", "1.a"], ["ack", "2.b"]]
    assert os.stat(theirs).st_size == 0


def test_threads_share_a_journal(queue: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_file, "_ROOM_BYTES", 4096)
    pen = journal.journal_of(queue)
    assert pen is not None
    pause = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def write(number: int) -> None:
        for count in range(1000):
            pen.record_end("ack", f"{number}.{count}")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(pause)
    expected = [f"{number}.{count}" for number in range(4) for count in range(1000)]
    assert sorted(key for _, key in records(queue)) == sorted(expected)
    assert len(os.listdir(queue.journal)) == 2, "the shared one, and one of this process's own"


def test_on_nfs_each_process_writes_its_ends_past_the_cache_into_a_file_of_its_own(queue: Layout) -> None:
    opened: dict[str, int] = {}

    def note(path: str, flags: int, mode: int = 0, *, dir_fd: int | None = None) -> int:
        if not flags & os.O_DIRECTORY:
            opened[path] = flags
        return os.open(path, flags & ~os.O_DIRECT, mode, dir_fd=dir_fd)

    system = replace(SYSTEM, open=note)
    for _ in range(2):
        pen = Journal(queue, host="h", boot="b", direct=True, system=system)
        pen.record_end("ack", "1.a")
        pen.record_pushes(["2.b"])
        pen.close()
    ends = [name for name in opened if name.endswith(".settled")]
    assert [opened[name] & (os.O_DIRECT | os.O_APPEND) for name in ends] == [os.O_DIRECT] * 2
    assert [flags & os.O_DIRECT for name, flags in opened.items() if name.endswith(".pushed")] == [0]
    assert all(name.split(".")[1:3] == ["h", "b"] for name in opened)


def test_where_the_cache_cannot_be_passed_it_is_used(queue: Layout) -> None:
    def refuse(path: str, flags: int, mode: int = 0, *, dir_fd: int | None = None) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return os.open(path, flags, mode, dir_fd=dir_fd)

    pen = Journal(queue, host="h", boot="b", direct=True, system=replace(SYSTEM, open=refuse))
    pen.record_end("ack", "1.a")
    pen.record_end("ack", "2.b")
    assert records(queue) == [["ack", "1.a"], ["ack", "2.b"]]


def test_a_local_filesystem_is_no_nfs(queue: Layout) -> None:
    assert control_folder.is_nfs(queue.journal) is False
    assert control_folder.is_nfs(f"{queue.journal}/nowhere") is False, (
        "and what nobody knows is taken for none"
    )


def test_each_day_has_its_own_file(queue: Layout) -> None:
    clock = [86400.0 * 10 - 1]
    pen = Journal(queue, host="h", boot="b", system=replace(SYSTEM, time=lambda: clock[0]))
    pen.record_end("ack", "1.a")
    clock[0] += 2
    pen.record_end("ack", "2.b")
    assert sorted(os.listdir(queue.journal)) == ["1970-01-10.h.b.settled", "1970-01-11.h.b.settled"]
