"""When an entry is due: by the mount's time, whatever the clocks of hosts say."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from maildefer.errors import NoSpace, QueueMissing
from maildefer.maildir import due
from maildefer.maildir.due import LATEST, MountClock, due_time, mount_offset
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName
from maildefer.maildir.operator import schedule
from maildefer.maildir.push import Planned, Pusher
from maildefer.maildir.rights import modes
from tests.support.queues import DATA, LABEL, START, World, everywhere, put

NOW = START + 0.25


@pytest.fixture
def mount(layout: Layout, world: World) -> Callable[[float], None]:
    """Sets the clock of the mount, for all files that are written from then on."""

    def set_to(when: float) -> None:
        began = world.uptime

        def stamp() -> None:
            now = when + world.uptime - began
            for name in os.listdir(layout.tmp):
                os.utime(f"{layout.tmp}/{name}", (now, now))

        world.after("write", stamp, times=1000)

    return set_to


def test_the_mounts_time_comes_from_a_file_just_written_and_is_kept_against_the_boot_clock(
    layout: Layout, world: World, mount: Callable[[float], None]
) -> None:
    when = START + 7200.0
    mount(when)
    assert mount_offset(layout, system=world.system) == (when - world.uptime, when - world.uptime)
    assert os.listdir(layout.tmp) == []


def test_what_the_measure_itself_takes_is_known(
    layout: Layout, world: World, mount: Callable[[float], None]
) -> None:
    mount(START)
    world.take("fsync", 3.0)
    least, most = mount_offset(layout, system=world.system)
    assert most - least == 3.0
    assert most == START - (world.uptime - 3.0)


@pytest.mark.parametrize("what", ["write", "fsync", "fstat"])
def test_a_clock_file_that_cannot_be_written_leaves_nothing(layout: Layout, world: World, what: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    world.refuse(what, errno.ENOSPC)
    with pytest.raises(OSError, match="No space"):
        mount_offset(layout, system=world.system)
    assert os.listdir(layout.tmp) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_mounts_clock_is_measured_once_a_minute_and_as_soon_as_our_own_was_set(
    layout: Layout, world: World, mount: Callable[[float], None]
) -> None:
    mount(START + 3600)
    clock = MountClock(layout, world.system)
    assert clock.now() == START + 3600
    world.pass_time(59)
    assert clock.now() == START + 3659
    assert len(world.asked("write")) == 1
    world.pass_time(2)
    clock.now()
    assert len(world.asked("write")) == 2
    world.seconds += 5
    clock.now()
    assert len(world.asked("write")) == 3


def test_a_mounts_clock_that_took_long_to_measure_is_never_behind_and_measured_again(
    layout: Layout, world: World, mount: Callable[[float], None]
) -> None:
    mount(START)
    world.take("fsync", 3.0)
    clock = MountClock(layout, world.system)
    assert clock.now() == START + 3
    assert clock.now() == START + 3
    assert len(world.asked("write")) == 2


def test_a_due_time_is_rounded_up_to_whole_seconds() -> None:
    assert due_time(NOW, after=60) == START + 61
    assert due_time(NOW, after=0.1) == START + 1
    assert due_time(NOW, at=datetime.fromtimestamp(START + 5, UTC)) == START + 5


def test_an_at_counts_in_any_zone() -> None:
    noon = datetime(2026, 11, 28, 12, 0, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert due_time(NOW, at=noon) == datetime(2026, 11, 28, 6, 30, tzinfo=UTC).timestamp()


def test_what_is_due_now_has_no_due_time() -> None:
    assert due_time(NOW) is None
    assert due_time(NOW, after=0) is None
    assert due_time(NOW, at=datetime.fromtimestamp(NOW - 59, UTC)) is None


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"after": True}, TypeError, "after=True: give seconds"),
        ({"after": "60"}, TypeError, "after='60': give seconds"),
        ({"after": timedelta(hours=1)}, TypeError, "give seconds"),
        ({"after": -1}, ValueError, "after=-1: give seconds, zero or more"),
        ({"after": float("nan")}, ValueError, "after=nan: give seconds, zero or more"),
        ({"after": float("inf")}, ValueError, "after=inf: give seconds, zero or more"),
        ({"after": LATEST - NOW}, ValueError, "beyond the year 2100"),
        ({"after": 10**400}, ValueError, "beyond the year 2100"),
        ({"at": 1_900_000_000}, TypeError, "at=1900000000: give a datetime with its zone"),
        ({"at": datetime(2026, 11, 28)}, ValueError, "give it with its zone"),
        ({"at": datetime(2101, 1, 1, tzinfo=UTC)}, ValueError, "beyond the year 2100"),
        ({"at": datetime.max.replace(tzinfo=UTC)}, ValueError, "beyond the year 2100"),
        ({"at": datetime.min.replace(tzinfo=UTC)}, ValueError, "is past, by the clock of the queue's mount"),
        ({"at": datetime.fromtimestamp(NOW - 61, UTC)}, ValueError, "is past"),
        ({"after": 1, "at": datetime(2030, 1, 1, tzinfo=UTC)}, ValueError, "give one of them"),
    ],
)
def test_what_is_no_time_to_come_is_refused_by_its_name(
    given: dict[str, object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        due_time(NOW, **given)


def test_the_last_second_of_2100_can_be_asked_for() -> None:
    assert due_time(NOW, at=datetime(2100, 12, 31, 23, 59, 59, tzinfo=UTC)) == LATEST - 1


def test_a_push_for_later_goes_by_the_mounts_clock_and_not_by_the_pushers(
    pusher: Pusher, world: World, layout: Layout, mount: Callable[[float], None]
) -> None:
    mount(START - 3600)
    when = pusher.due(after=60)
    assert when == START - 3600 + 60
    key = pusher.push(Planned(compose=lambda stem: [DATA], due=when))
    assert os.listdir(layout.later_new) == [f"{key},d={when}"]


def test_a_clock_that_cannot_be_measured_is_a_fault_of_the_push(pusher: Pusher, world: World) -> None:
    world.refuse("open", errno.ENOSPC, where=".clock")
    with pytest.raises(NoSpace):
        pusher.due(after=60)


def test_an_entry_that_is_seen_too_early_goes_to_later_under_its_next_name(
    layout: Layout, world: World
) -> None:
    name = put(layout.new, "1.x,a=2,n=4,d=1700000060")
    due.postpone(name, EntryName.parse(name), layout, host=LABEL, system=world.system)
    assert everywhere(layout) == {".later/new/1.x,a=2,n=5,d=1700000060": DATA}


def test_whoever_postpones_second_finds_nothing(layout: Layout, world: World) -> None:
    due.postpone("1.x,d=5", EntryName.parse("1.x,d=5"), layout, host=LABEL, system=world.system)
    assert everywhere(layout) == {}


def test_in_a_shared_queue_a_postponed_name_is_set_apart(layout: Layout, world: World) -> None:
    """Its writer has chosen its name, and may know that of another deferred entry."""
    other = put(layout.later_new, "1.x,n=1,d=1700000060", b"other")
    name = put(layout.new, "1.x,d=1700000060")
    os.chmod(layout.path, modes.QUEUE_MODE)
    due.postpone(name, EntryName.parse(name), layout, host=LABEL, system=world.system)
    assert Path(layout.later_new, other).read_bytes() == b"other"
    assert len(os.listdir(layout.later_new)) == 2


def test_what_is_put_into_later_is_reported_once_it_is_durable_and_nothing_else(
    pusher: Pusher, layout: Layout, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[tuple[str, bool]] = []
    monkeypatch.setattr(due, "_report", lambda path: reported.append((path, bool(world.asked("fsync")))))
    pusher.push(lambda stem: [DATA])
    assert reported == []
    key = pusher.push(Planned(compose=lambda stem: [DATA], due=int(START) + 60))
    schedule.reschedule(layout, key, int(START) + 5, host=LABEL, system=world.system)
    schedule.reschedule(layout, key, None, host=LABEL, system=world.system)
    later = layout.later_new
    assert reported == [(f"{later}/{key},d=1700000060", True), (f"{later}/{key},n=1,d=1700000005", True)]


def test_a_missing_folder_is_made_again_for_the_measure(pusher: Pusher, layout: Layout) -> None:
    os.rmdir(layout.tmp)
    assert pusher.due(after=60) is not None
    shutil.rmtree(layout.path)
    with pytest.raises(QueueMissing):
        Pusher(layout, host=LABEL).due(after=60)
