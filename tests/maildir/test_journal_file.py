"""A process with many records maps a file for them: none costs a system call, and none is lost with the process."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maildefer.control.journal_reader import parse_record, read_lines
from maildefer.maildir import control_folder, journal, journal_file
from maildefer.maildir.claims import Claimer
from maildefer.maildir.journal import Journal
from maildefer.maildir.journal_file import MappedFile
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.system import SYSTEM
from maildefer.untrusted import UntrustedRecord
from tests.support.queues import LABEL, FakeSlots

MANY = 40  # records of a process, most of which are mapped


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Layout]:
    layout = create_queue(str(tmp_path / "queue"))
    journal.begin_journal(layout)
    yield layout
    journal.close_journals()


def pen(queue: Layout) -> Journal:
    return Journal(queue, host="h", boot="b")


def write(to: Journal, begin: int, number: int = MANY) -> list[str]:
    keys = [f"{key}.x" for key in range(begin, begin + number)]
    for key in keys:
        to.record_end("ack", key)
    return keys


def keys_in(path: Path, at: int = 0) -> list[str]:
    return [record.key for line, _ in read_lines(str(path), at) if (record := parse_record(line)) is not None]


def recorded(queue: Layout) -> list[str]:
    return [key for path in sorted(Path(queue.journal).iterdir()) for key in keys_in(path)]


def mapped_files(queue: Layout) -> list[Path]:
    return sorted(path for path in Path(queue.journal).iterdir() if ".m" in path.name)


def forked(action: Callable[[], object], *, code: int = 0) -> None:
    """Carry out the action in a child process, which ends by that signal or with 0."""
    if (pid := os.fork()) == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(99)
    status = os.waitpid(pid, 0)[1]
    assert (os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)) == code


def test_a_process_with_few_records_has_no_file_of_its_own(queue: Layout) -> None:
    write(pen(queue), 0, 10)
    assert [path.name.count(".") for path in Path(queue.journal).iterdir()] == [3]


def test_a_record_costs_no_system_call(queue: Layout, tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from maildefer.maildir.journal import Journal\n"
        "from maildefer.maildir.layout import Layout\n"
        "pen = Journal(Layout(sys.argv[1]), host='h', boot='b')\n"
        "for key in range(40): pen.record_end('ack', f'{key}.x')\n"
        "os.getppid()\n"
        "for key in range(40, 1040): pen.record_end('ack', f'{key}.x')\n"
        "os.getppid()\n"
    )
    trace = tmp_path / "trace"
    done = subprocess.run(["strace", "-o", trace, sys.executable, "-c", script, queue.path], check=False)
    assert done.returncode == 0
    _, between, _ = trace.read_text().split("getppid()")
    assert len(between.strip().splitlines()) <= 3, "but for the memory of Python itself"
    assert len(recorded(queue)) == 1040


def test_what_is_recorded_outlives_a_process_that_is_killed_and_the_next_goes_on_behind_it(
    queue: Layout,
) -> None:
    def die(begin: int) -> None:
        write(pen(queue), begin)
        os.kill(os.getpid(), signal.SIGKILL)

    for number in range(5):
        forked(lambda begin=number * MANY: die(begin), code=signal.SIGKILL)  # type: ignore[misc]
    assert sorted(recorded(queue)) == sorted(f"{key}.x" for key in range(5 * MANY))
    assert len(mapped_files(queue)) == 1, "however many are killed"


def test_each_process_at_one_time_has_a_file(queue: Layout) -> None:
    first, second = pen(queue), pen(queue)
    expected = write(first, 0) + write(second, 100) + write(first, 200)
    assert sorted(recorded(queue)) == sorted(expected)
    assert len(mapped_files(queue)) == 2
    first.close()
    expected += write(pen(queue), 300)
    assert sorted(recorded(queue)) == sorted(expected)
    assert len(mapped_files(queue)) == 2


def test_a_child_process_writes_nothing_into_its_parents_file(queue: Layout) -> None:
    mine = journal.journal_of(queue)
    assert mine is not None
    expected = write(mine, 0)

    def record() -> None:
        again = journal.journal_of(queue)
        assert again is not None
        write(again, 100)
        journal.close_journals()

    forked(record)
    expected += [f"{key}.x" for key in range(100, 100 + MANY)] + write(mine, 200)
    assert sorted(recorded(queue)) == sorted(expected)


def test_a_file_that_is_closed_has_no_room_left(queue: Layout) -> None:
    mine = pen(queue)
    write(mine, 0)
    (path,) = mapped_files(queue)
    assert b"\0" in path.read_bytes()
    mine.close()
    assert path.read_bytes().endswith(b" .")


def test_it_grows_where_its_room_is_used_up(queue: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_file, "_ROOM_BYTES", 4096)
    mine = pen(queue)
    expected = write(mine, 0, 5000)
    assert sorted(recorded(queue)) == sorted(expected)
    mine.close()
    assert sorted(recorded(queue)) == sorted(expected)


def test_a_record_that_another_thread_writes_while_more_is_mapped_is_kept(tmp_path: Path) -> None:
    file = MappedFile(os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT))
    window = file.window

    class Full:
        """A window that has no room for this thread, and just so much for another."""

        def tell(self) -> int:
            at = window.tell()
            window.write(b"\n1.0 ack 1.a .")
            return at

        def write(self, data: bytes) -> None:
            raise ValueError

        def __getattr__(self, name: str) -> Any:
            return getattr(window, name)

        def __len__(self) -> int:
            return len(window)

    file.window = Full()  # type: ignore[assignment]
    assert file.write(b"\n2.0 ack 2.b .")
    with pytest.raises(ValueError, match="out of range"):
        window.write(b"\n3.0 ack 3.c .")  # by who has looked it up before
    file.close()
    assert keys_in(tmp_path / "x") == ["1.a", "2.b"]


def test_many_pushes_are_recorded_at_once_however_many(queue: Layout) -> None:
    mine = pen(queue)
    keys = [f"{key}.x" for key in range(50_000)]
    for _ in range(20):
        mine.record_pushes(["0.x"])
    mine.record_pushes(keys)
    mine.record_pushes(["50000.x"])
    assert sorted(recorded(queue)) == sorted([*["0.x"] * 20, *keys, "50000.x"])


def test_a_full_disk_leaves_a_gap_and_kills_nobody(queue: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_file, "_ROOM_BYTES", 4096)
    mine = pen(queue)
    write(mine, 0)

    def refuse(descriptor: int, at: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse)
        write(mine, 100, 1000)
    write(mine, 2000)
    text = b"".join(path.read_bytes() for path in Path(queue.journal).iterdir())
    assert b" gap " in text
    assert {f"{key}.x" for key in range(2000, 2000 + MANY)} <= set(recorded(queue))


def test_where_there_is_no_room_at_all_records_are_appended(
    queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, at: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    expected = write(pen(queue), 0)
    assert recorded(queue) == expected


@pytest.mark.parametrize("kind", ["btrfs", "overlay", "nfs4", ""])
def test_no_file_is_mapped_where_a_full_disk_would_kill_who_writes_to_it(
    queue: Layout, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(control_folder, "_filesystem_of", lambda path: kind)
    mine = pen(queue)
    expected = write(mine, 0)
    assert mapped_files(queue) == []
    assert sorted(recorded(queue)) == sorted(expected)


@pytest.mark.parametrize("make", [lambda path: os.symlink("/etc/passwd", path), os.mkfifo, os.mkdir])
def test_what_another_user_has_put_in_its_place_is_left_alone(
    queue: Layout, make: Callable[[str], None]
) -> None:
    mine = pen(queue)
    expected = write(mine, 0, 1)
    (path,) = Path(queue.journal).iterdir()
    make(str(path).replace(".b.settled", ".b.m0.settled"))
    expected += write(mine, 1)
    assert keys_in(path) == expected


def test_a_file_that_others_may_shorten_is_not_mapped(queue: Layout) -> None:
    mine = pen(queue)
    expected = write(mine, 0, 1)
    (path,) = Path(queue.journal).iterdir()
    other = Path(str(path).replace(".b.settled", ".b.m0.settled"))
    other.touch()
    other.chmod(0o666)
    expected += write(mine, 1)
    assert keys_in(path) == expected
    assert not other.read_bytes()


def test_a_handler_that_closes_descriptors_costs_no_record_and_spoils_no_file(queue: Layout) -> None:
    script = (
        "import os, sys\n"
        "from maildefer.maildir import journal_file\n"
        "from maildefer.maildir.journal import Journal\n"
        "from maildefer.maildir.layout import Layout\n"
        "journal_file._ROOM_BYTES = 4096\n"
        "pen, other = (Journal(Layout(sys.argv[1]), host='h', boot='b') for _ in range(2))\n"
        "for key in range(40): pen.record_end('ack', f'{key}.x')\n"
        "os.closerange(0, 4096)\n"
        "mine = [os.open(sys.argv[2], os.O_RDWR | os.O_CREAT) for _ in range(300)]\n"
        "for key in range(40, 80): other.record_end('ack', f'{key}.x')\n"
        "for key in range(80, 1000): pen.record_end('ack', f'{key}.x')\n"
        "for key in range(1000, 1100): other.record_end('ack', f'{key}.x')\n"
        "pen.close(), other.close()\n"
    )
    theirs = f"{queue.path}/../theirs"
    subprocess.run([sys.executable, "-c", script, queue.path, theirs], check=True)
    assert sorted(recorded(queue)) == sorted(f"{key}.x" for key in range(1100))
    assert os.stat(theirs).st_size == 0


def test_a_record_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\n1.0 ack 1.a .\n2.0 ack 2\0\0.b" + bytes(5000))
    again = MappedFile(os.open(path, os.O_RDWR))
    again.write(b"\n3.0 ack 3.c .")
    again.close()
    lines = [line for line, _ in read_lines(str(path)) if line]
    assert lines[0] == b"1.0 ack 1.a ."
    assert lines[2] == b"3.0 ack 3.c ."
    with pytest.raises(UntrustedRecord):
        parse_record(lines[1])


def test_a_file_is_read_on_from_where_it_was_read(queue: Layout) -> None:
    mine = pen(queue)
    expected = write(mine, 0)
    (path,) = mapped_files(queue)
    *_, (_, at) = read_lines(str(path))
    assert keys_in(path, at) == []
    more = write(mine, 100)
    assert keys_in(path, at) == more
    assert sorted(recorded(queue)) == sorted(expected + more)


def test_what_a_host_did_not_write_before_it_stopped_hides_nothing_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\n1.0 ack 1.a ." + bytes(40_000) + b"\n2.0 ack 2.b ." + bytes(9))
    assert keys_in(path) == ["1.a", "2.b"]


def test_a_file_of_nothing_but_room_is_not_read_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UntrustedRecord):
        keys_in(path)


def test_processes_that_are_killed_and_others_that_end_keep_the_records_of_those_before(
    queue: Layout,
) -> None:
    """Each goes on right where the one before has stopped, whether that has given its room back or not."""
    keys: list[str] = []
    for turn in range(8):
        begin, is_killed = 1000 * turn, turn % 3 != 2
        keys += [f"{key}.x" for key in range(begin, begin + MANY)]

        def act(begin: int = begin, is_killed: bool = is_killed) -> None:
            writing = pen(queue)
            write(writing, begin)
            if is_killed:
                os.kill(os.getpid(), signal.SIGKILL)
            writing.close()

        forked(act, code=signal.SIGKILL if is_killed else 0)
    assert sorted(recorded(queue)) == sorted(keys)
    [mapped] = mapped_files(queue)
    assert b"\0" not in mapped.read_bytes().rstrip(b"\0")


def test_acks_of_first_attempts_tell_time_handlers_and_milliseconds(queue: Layout) -> None:
    wall, boot = [86400.0 * 10 - 10], [50.0]
    mine = Journal(
        queue, host="h", boot="b", system=replace(SYSTEM, time=lambda: wall[0], boottime=lambda: boot[0])
    )

    def ack(key: str, handler: str, seconds: float = 0.0, *, later: float = 0.0) -> None:
        wall[0], boot[0] = wall[0] + later, boot[0] + later
        mine.record_ack(key, 0, handler, boot[0] - seconds)

    write(mine, 0)
    ack("1.a", "x.A", later=0.5)
    ack("2.b", "x.A", 0.0004, later=0.0002)
    ack("3.c", "x.A", 0.0123)
    ack("4.d", "y,B", later=0.0002)
    ack("5.e", "", 7.0)
    ack("6.f", "x.A", later=0.25)
    mine.record_ack("7 g%", 2, "x.A", boot[0])
    ack("8.h", "x.A", later=20.0)
    paths = [*mapped_files(queue), *Path(queue.journal).glob("1970-01-11.*")]
    written = b"".join(path.read_bytes().rstrip(b"\0") for path in paths)
    assert written.decode().split("\n")[-8:] == [
        "863990.500 ack 1.a handler=x.A,ms=0 .",
        "863990.500 ack 2.b handler=x.A,ms=0 .",
        "863990.500 ack 3.c handler=x.A,ms=12 .",
        "863990.500 ack 4.d handler=y%2CB,ms=0 .",
        "863990.500 ack 5.e .",
        "863990.750 ack 6.f handler=x.A,ms=0 .",
        "863990.750 ack 7%20g%25 h=2,handler=x.A,ms=0 .",
        "864010.750 ack 8.h handler=x.A,ms=0 .",
    ]
    assert len(paths) == 2, "each day has its own files"


def test_acks_are_recorded_where_the_room_is_used_up_or_the_file_is_closed(
    queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_file, "_ROOM_BYTES", 4096)
    clock = replace(SYSTEM, boottime=lambda: 5.0)  # so that what is prepared stays valid
    mine = Journal(queue, host="h", boot="b", system=clock)
    expected = write(mine, 0)
    for number in range(1000):
        mine.record_ack(f"{number}.y", 0, "x.A", 5.0)
        if number == 700:
            mine.close()
    assert sorted(recorded(queue)) == sorted([*expected, *(f"{number}.y" for number in range(1000))])


@pytest.mark.parametrize(
    "name", ["1.a b", "1.a%20b", "1.a\n1.0 push b .", "1.\x7f", "1.é", "1.a\t", "1.a,u=5"]
)
def test_what_others_name_is_quoted_in_the_record_of_its_ack(queue: Layout, name: str) -> None:
    claimer = Claimer(queue, FakeSlots(), lease=f"{LABEL}-17-abcdef012345", host=LABEL)
    assert claimer.journal is not None
    write(claimer.journal, 0)
    for each in (name, "1.plain,p=1,S=3"):
        Path(queue.new, each).touch()
        claim = claimer.claim(each)
        assert claim is not None
        claim.ack(handler="x.A")
    (path,) = mapped_files(queue)
    assert keys_in(path)[-2:] == [name, "1.plain,p=1,S=3"]


def test_a_record_that_found_no_memory_is_told_by_the_next_one(
    queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = pen(queue)
    write(mine, 0)

    class Exhausted:
        def write(self, data: bytes) -> None:
            raise MemoryError

    file = mine._mapped["settled"]
    window = file.window
    file.window = Exhausted()  # type: ignore[assignment]
    mine.record_end("ack", "1.a")
    file.window = window
    mine.record_ack("2.b", 0, "x.A", 5.0)
    (path,) = mapped_files(queue)
    assert [line.split(b" ")[1] for line, _ in read_lines(str(path)) if line][-2:] == [b"gap", b"ack"]
