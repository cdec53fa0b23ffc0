"""Pushing: durable before acknowledged, settled without a double, clean on every fault."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maildefer.errors import (
    MaildeferError,
    MountFault,
    NameTooLong,
    NoSpace,
    PermissionRefused,
    QueueMissing,
    QuotaExceeded,
    ReadOnly,
    StaleHandle,
    StorageFault,
)
from maildefer.maildir import names
from maildefer.maildir.journal import close_journals
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.push import Planned, Pusher
from maildefer.maildir.system import SYSTEM
from tests.support.queues import DATA, FAULTS, LABEL, START, World, everywhere

NAMED: dict[int, type[StorageFault]] = {
    errno.ENOSPC: NoSpace,
    errno.EDQUOT: QuotaExceeded,
    errno.EROFS: ReadOnly,
    errno.EACCES: PermissionRefused,
    errno.EIO: MountFault,
    errno.ESTALE: StaleHandle,
    errno.ENAMETOOLONG: NameTooLong,
}


def push(pusher: Pusher, *chunks: bytes) -> str:
    return pusher.push(lambda stem: chunks or [DATA])


@pytest.mark.invariant(1)
def test_data_then_name_then_directory_are_durable_before_a_push_returns(
    pusher: Pusher, world: World, layout: Layout
) -> None:
    key = push(pusher)
    draft = f"{layout.tmp}/{key}"
    asked = [(call.what, *call.arguments) for call in world.calls]
    assert asked == [
        ("open", draft),
        ("write", draft),
        ("fsync", draft),
        ("rename", draft, f"{layout.new}/{key}"),
        ("close", draft),
        ("open", layout.new),
        ("fsync", layout.new),
        ("close", layout.new),
    ]


@pytest.mark.invariant(1)
@pytest.mark.parametrize("what", ["write", "fsync", "rename", "open"])
def test_no_key_is_returned_if_any_step_fails(
    pusher: Pusher, world: World, layout: Layout, what: str
) -> None:
    world.refuse(what, errno.ENOSPC)
    with pytest.raises(NoSpace):
        push(pusher)
    assert everywhere(layout) == {}


@pytest.mark.invariant(1)
def test_a_push_whose_directory_sync_fails_is_withdrawn(pusher: Pusher, world: World, layout: Layout) -> None:
    world.refuse("open", errno.ESTALE, where="/new")
    with pytest.raises(StaleHandle):
        push(pusher)
    assert everywhere(layout) == {}


@pytest.mark.invariant(1)
def test_several_pushes_share_one_directory_sync(pusher: Pusher, world: World, layout: Layout) -> None:
    keys = pusher.push_all([lambda stem: [b"1"], lambda stem: [b"2"], lambda stem: [b"3"]])
    assert [call.arguments[0] for call in world.asked("fsync")] == [
        *(f"{layout.tmp}/{key}" for key in keys),
        layout.new,
    ]
    assert everywhere(layout) == {
        f"new/{key}": data for key, data in zip(keys, (b"1", b"2", b"3"), strict=True)
    }


def test_all_of_several_are_written_then_synced_then_moved(pusher: Pusher, world: World) -> None:
    keys = pusher.push_all([lambda stem: [b"1"], lambda stem: [b"2"]])
    one, two = (os.path.basename(str(key)) for key in keys)
    steps = [str(call) for call in world.calls if call.what in ("write", "fsync", "rename")]
    assert steps == [
        *(f"write {one}", f"write {two}"),
        *(f"fsync {one}", f"fsync {two}"),
        *(f"rename {one} -> {one}", f"rename {two} -> {two}"),
        "fsync new",
    ]


@pytest.mark.invariant(1)
def test_they_are_synced_at_the_same_time_where_the_system_can(layout: Layout, world: World) -> None:
    synced: list[list[int]] = []

    def sync_all(descriptors: Sequence[int]) -> list[OSError | None]:
        assert [call.what for call in world.calls].count("rename") == 0
        synced.append(list(descriptors))
        return [None] * len(descriptors)

    pusher = Pusher(layout, host="h", system=world.system, sync_all=sync_all)
    keys = pusher.push_all([lambda stem: [b"1"], lambda stem: [b"2"]])
    assert [len(descriptors) for descriptors in synced] == [2]
    assert sorted(os.listdir(layout.new)) == sorted(map(str, keys))


def test_of_those_synced_at_the_same_time_only_the_one_at_fault_is_lost(layout: Layout, world: World) -> None:
    def sync_all(descriptors: Sequence[int]) -> list[OSError | None]:
        return [None, OSError(errno.ENOSPC, "full"), None]

    pusher = Pusher(layout, host="h", system=world.system, sync_all=sync_all)
    before = len(os.listdir("/proc/self/fd"))
    one, two, three = pusher.push_all([lambda stem: [b"1"], lambda stem: [b"2"], lambda stem: [b"3"]])
    assert isinstance(two, NoSpace)
    assert everywhere(layout) == {f"new/{one}": b"1", f"new/{three}": b"3"}
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_more_than_some_are_open_at_a_time(pusher: Pusher, layout: Layout) -> None:
    before = len(os.listdir("/proc/self/fd"))
    counts: list[int] = []

    def compose(stem: str) -> list[bytes]:
        counts.append(len(os.listdir("/proc/self/fd")) - before)
        return [DATA]

    assert len(set(pusher.push_all([compose] * 100))) == 100
    assert 16 < max(counts) < 64
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(everywhere(layout)) == 100


def test_one_of_several_that_is_swept_before_its_rename_is_pushed_anew(
    pusher: Pusher, world: World, layout: Layout
) -> None:
    swept = []

    def sweep() -> None:
        swept.extend(sorted(os.listdir(layout.tmp)))
        os.unlink(f"{layout.tmp}/{swept[-1]}")

    world.before("rename", sweep)
    first, second = pusher.push_all([lambda stem: [b"1"], lambda stem: [b"2"]])
    assert everywhere(layout) == {f"new/{first}": b"1", f"new/{second}": b"2"}
    assert second not in swept


def test_of_several_whose_sync_fails_only_that_one_fails(
    pusher: Pusher, world: World, layout: Layout
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    world.refuse("fsync", errno.ENOSPC, where="/tmp/")
    first, second = pusher.push_all([lambda stem: [b"1"], lambda stem: [b"2"]])
    assert isinstance(first, NoSpace)
    assert everywhere(layout) == {f"new/{second}": b"2"}
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("what", ["write", "fsync"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_interrupt_of_several_leaves_no_draft(
    pusher: Pusher, world: World, layout: Layout, what: str, number: int
) -> None:
    seen = []

    def interrupt() -> None:
        seen.append(1)
        if len(seen) == number:
            raise KeyboardInterrupt

    before = len(os.listdir("/proc/self/fd"))
    world.before(what, interrupt, times=number)
    with pytest.raises(KeyboardInterrupt):
        pusher.push_all([lambda stem: [b"1"], lambda stem: [b"2"], lambda stem: [b"3"]])
    assert os.listdir(layout.tmp) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_of_several_that_fails_does_not_fail_the_others(
    pusher: Pusher, world: World, layout: Layout
) -> None:
    world.refuse("write", errno.EDQUOT)
    first, second = pusher.push_all([lambda stem: [b"1"], lambda stem: [b"2"]])
    assert isinstance(first, QuotaExceeded)
    assert everywhere(layout) == {f"new/{second}": b"2"}


@pytest.mark.invariant(1)
def test_none_of_several_is_accepted_if_their_sync_fails(
    pusher: Pusher, world: World, layout: Layout
) -> None:
    world.refuse("fsync", errno.EIO, where="/new")
    results = pusher.push_all([lambda stem: [b"1"], lambda stem: [b"2"]])
    assert [type(result) for result in results] == [MountFault, MountFault]
    assert everywhere(layout) == {}


def test_nothing_is_synced_if_nothing_was_placed(pusher: Pusher, world: World, layout: Layout) -> None:
    world.refuse("open", errno.ENOSPC)
    assert [type(result) for result in pusher.push_all([lambda stem: [b"1"]])] == [NoSpace]
    assert world.asked("fsync") == []


def test_what_compose_raises_is_told_for_its_entry(pusher: Pusher) -> None:
    def refuse(stem: str) -> list[bytes]:
        raise MaildeferError("no")

    first, second = pusher.push_all([refuse, lambda stem: [b"2"]])
    assert isinstance(first, MaildeferError)
    assert isinstance(second, str)


def test_the_chunks_are_composed_for_the_keys_stem_and_its_size_is_in_the_key(
    pusher: Pusher, layout: Layout
) -> None:
    stems = []

    def compose(stem: str) -> list[bytes]:
        stems.append(stem)
        return [stem.encode(), b"\n", DATA]

    key = pusher.push(compose)
    content = f"{stems[0]}\n".encode() + DATA
    assert key == f"{stems[0]},S={len(content)}"
    assert everywhere(layout) == {f"new/{key}": content}


@pytest.mark.invariant(9)
@given(chunks=st.lists(st.binary(max_size=3000), max_size=4))
@pytest.mark.slow
def test_the_bytes_are_stored_untouched(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]
) -> None:
    layout = create_queue(str(tmp_path_factory.mktemp("q")))
    key = Pusher(layout, host=LABEL).push(lambda stem: chunks)
    assert everywhere(layout) == {f"new/{key}": b"".join(chunks)}
    close_journals()  # of a hundred queues


@pytest.mark.invariant(9)
def test_a_write_that_takes_less_than_it_was_given_is_gone_on_with(layout: Layout) -> None:
    system = replace(SYSTEM, write=lambda descriptor, data: os.write(descriptor, bytes(data)[:3]))
    key = Pusher(layout, host=LABEL, system=system).push(lambda stem: [DATA])
    assert everywhere(layout) == {f"new/{key}": DATA}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("what", "where"),
    [("open", "/tmp/"), ("write", ""), ("fsync", "/tmp/"), ("rename", ""), ("fsync", "/new")],
)
def test_a_refused_push_names_the_fault_with_a_remedy_and_leaves_nothing(
    pusher: Pusher, world: World, layout: Layout, what: str, where: str, fault: int
) -> None:
    world.refuse(what, fault, where=where)
    with pytest.raises(NAMED[fault]) as error:
        push(pusher)
    assert error.value.remedy in str(error.value)
    assert error.value.errno == fault
    assert layout.path in str(error.value)
    assert everywhere(layout) == {}
    assert push(pusher) in os.listdir(layout.new)


def test_a_push_into_a_queue_that_is_gone_says_so(pusher: Pusher, layout: Layout) -> None:
    os.rename(layout.path, f"{layout.path}-away")
    with pytest.raises(QueueMissing):
        push(pusher)


@pytest.mark.parametrize("folder", ["new", "tmp"])
@pytest.mark.parametrize("together", [1, 3])
def test_a_push_makes_again_what_a_clean_up_of_empty_folders_took(
    pusher: Pusher, layout: Layout, folder: str, together: int
) -> None:
    os.rmdir(f"{layout.path}/{folder}")
    pushed = pusher.push_all([lambda stem: [DATA]] * together)
    assert everywhere(layout) == {f"new/{key}": DATA for key in pushed}


@pytest.mark.parametrize("folder", ["new", "tmp"])
def test_a_large_message_too(pusher: Pusher, layout: Layout, folder: str) -> None:
    os.rmdir(f"{layout.path}/{folder}")
    draft = pusher.draft()
    draft.append(DATA)
    key = pusher.push(lambda stem: draft)
    assert everywhere(layout) == {f"new/{key}": DATA}


@pytest.mark.parametrize("folder", ["new", "tmp"])
def test_a_push_into_what_is_no_queue_of_ours_says_so_and_makes_nothing(
    pusher: Pusher, layout: Layout, folder: str
) -> None:
    shutil.rmtree(layout.control)
    os.rmdir(f"{layout.path}/{folder}")
    with pytest.raises(QueueMissing):
        push(pusher)
    assert everywhere(layout) == {}
    assert not os.path.exists(f"{layout.path}/{folder}")


def test_a_queue_that_goes_away_between_rename_and_look_is_missing(
    pusher: Pusher, world: World, layout: Layout
) -> None:
    world.before("rename", lambda: os.rename(layout.path, f"{layout.path}-away"))
    with pytest.raises(QueueMissing):
        push(pusher)


@pytest.mark.parametrize("fault", [errno.ENOENT, errno.EIO, errno.ESTALE, errno.EINTR, errno.ETIMEDOUT])
def test_a_lost_reply_is_settled_without_pushing_twice(
    pusher: Pusher, world: World, layout: Layout, fault: int
) -> None:
    world.lose_reply("rename", fault)
    key = push(pusher)
    assert everywhere(layout) == {f"new/{key}": DATA}


@pytest.mark.invariant(1)
def test_a_push_whose_reply_was_lost_is_durable_all_the_same(
    pusher: Pusher, world: World, layout: Layout
) -> None:
    world.lose_reply("rename", errno.ENOENT)
    push(pusher)
    assert str(world.asked("fsync")[-1]) == "fsync new"


def test_a_push_is_done_wherever_the_entry_is_by_now(pusher: Pusher, world: World, layout: Layout) -> None:
    def claim() -> None:
        [name] = os.listdir(layout.new)
        os.rename(f"{layout.new}/{name}", f"{layout.cur}/{name}")

    world.lose_reply("rename", errno.ENOENT)
    world.after("rename", claim)
    key = push(pusher)
    assert everywhere(layout) == {f"cur/{key}": DATA}


def test_an_entry_swept_from_tmp_before_its_rename_is_pushed_anew_under_a_fresh_key(
    pusher: Pusher, world: World, layout: Layout
) -> None:
    swept = []

    def sweep() -> None:
        swept.extend(os.listdir(layout.tmp))
        os.unlink(f"{layout.tmp}/{swept[0]}")

    world.before("rename", sweep)
    key = push(pusher)
    assert everywhere(layout) == {f"new/{key}": DATA}
    assert swept != [key]


def test_a_stale_descriptor_after_a_doubtful_reply_means_pushed_anew(
    pusher: Pusher, world: World, layout: Layout
) -> None:
    world.before("rename", lambda: os.unlink(f"{layout.tmp}/{os.listdir(layout.tmp)[0]}"))
    world.refuse("fstat", errno.ESTALE)
    assert set(everywhere(layout)) == set()
    key = push(pusher)
    assert everywhere(layout) == {f"new/{key}": DATA}


def test_a_sweeper_that_never_rests_ends_in_an_error(pusher: Pusher, world: World, layout: Layout) -> None:
    def sweep() -> None:
        os.unlink(f"{layout.tmp}/{os.listdir(layout.tmp)[0]}")

    world.before("rename", sweep, times=20)
    with pytest.raises(StaleHandle, match="taken away"):
        push(pusher)


def test_a_doubtful_reply_whose_request_was_not_carried_out_is_refused(
    pusher: Pusher, world: World, layout: Layout
) -> None:
    world.hold("rename", errno.EIO)
    with pytest.raises(MountFault):
        push(pusher)
    assert world.land() == [errno.ENOENT], "the late copy finds its draft gone"
    assert everywhere(layout) == {}


def test_a_look_that_fails_after_a_doubtful_reply_is_a_fault(
    pusher: Pusher, world: World, layout: Layout
) -> None:
    world.refuse("rename", errno.EIO)
    world.refuse("listdir", errno.EIO)
    with pytest.raises(MountFault):
        push(pusher)
    assert everywhere(layout) == {}


def test_the_look_is_made_fresh_by_a_change_of_its_own(pusher: Pusher, world: World, layout: Layout) -> None:
    world.lose_reply("rename", errno.ENOENT)
    push(pusher)
    looks = [call for call in world.calls if call.what in ("utime", "listdir")]
    assert [(call.what, *call.arguments) for call in looks] == [
        ("utime", layout.tmp),
        ("listdir", layout.tmp),
    ]
    assert world.asked("lstat") == []


def test_a_create_whose_reply_was_lost_is_repeated_under_a_fresh_key(
    pusher: Pusher, world: World, layout: Layout
) -> None:
    world.lose_reply("open", errno.EEXIST)
    key = push(pusher)
    assert everywhere(layout)[f"new/{key}"] == DATA
    assert len(os.listdir(layout.new)) == 1


def test_no_descriptor_is_left_open_by_any_fault(pusher: Pusher, world: World, layout: Layout) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for what in ("write", "fsync", "rename"):
        for fault in FAULTS:
            world.refuse(what, fault)
            with pytest.raises(StorageFault):
                push(pusher)
    world.lose_reply("rename", errno.ENOENT)
    push(pusher)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_interrupt_leaves_no_draft(pusher: Pusher, world: World, layout: Layout) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    world.before("fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        push(pusher)
    assert everywhere(layout) == {}


def test_threads_push_at_once_and_every_key_is_there(tmp_path: Path) -> None:
    layout = create_queue(str(tmp_path / "q"))
    pusher = Pusher(layout, host=LABEL)
    keys: list[str] = []
    threads = [
        threading.Thread(target=lambda: keys.extend(pusher.push(lambda stem: [DATA]) for _ in range(25)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(keys)) == 200
    assert sorted(os.listdir(layout.new)) == sorted(keys)


def later(pusher: Pusher, due: int = int(START) + 60) -> str:
    return pusher.push(Planned(compose=lambda stem: [DATA], due=due))


@pytest.mark.invariant(1)
def test_a_push_for_later_is_durable_in_later_before_it_returns(
    pusher: Pusher, world: World, layout: Layout
) -> None:
    key = later(pusher)
    draft = f"{layout.tmp}/{key}"
    assert [(call.what, *call.arguments) for call in world.calls] == [
        ("open", draft),
        ("write", draft),
        ("fsync", draft),
        ("rename", draft, f"{layout.later_new}/{key},d=1700000060"),
        ("close", draft),
        ("open", layout.later_new),
        ("fsync", layout.later_new),
        ("close", layout.later_new),
    ]


def test_the_age_of_a_push_for_later_counts_from_its_due_time(pusher: Pusher) -> None:
    key = later(pusher)
    assert names.pushed_at(key) == START + 60
    assert names.pushed_by_us_at(key) == START


def test_one_batch_holds_entries_for_now_and_for_later(pusher: Pusher, world: World, layout: Layout) -> None:
    first, second = pusher.push_all([lambda stem: [b"1"], Planned(compose=lambda stem: [b"2"], due=2**31)])
    assert everywhere(layout) == {f"new/{first}": b"1", f".later/new/{second},d=2147483648": b"2"}
    assert [call.arguments[0] for call in world.asked("fsync")][2:] == [layout.new, layout.later_new]


@pytest.mark.invariant(1)
@pytest.mark.parametrize("what", ["write", "fsync", "rename", "open"])
def test_no_key_is_returned_for_later_if_any_step_fails(
    pusher: Pusher, world: World, layout: Layout, what: str
) -> None:
    world.refuse(what, errno.ENOSPC)
    with pytest.raises(NoSpace):
        later(pusher)
    assert everywhere(layout) == {}


@pytest.mark.invariant(1)
def test_a_push_for_later_whose_directory_sync_fails_is_withdrawn(
    pusher: Pusher, world: World, layout: Layout
) -> None:
    world.refuse("open", errno.ESTALE, where=".later/new")
    with pytest.raises(StaleHandle, match=r"\.later/new"):
        later(pusher)
    assert everywhere(layout) == {}


@pytest.mark.invariant(1)
def test_a_push_for_later_whose_reply_was_lost_is_not_pushed_twice(
    pusher: Pusher, world: World, layout: Layout
) -> None:
    world.lose_reply("rename", errno.ENOENT)
    key = later(pusher)
    assert list(everywhere(layout)) == [f".later/new/{key},d=1700000060"]


def test_a_missing_later_folder_is_made_again(pusher: Pusher, layout: Layout) -> None:
    shutil.rmtree(f"{layout.path}/.later")
    key = later(pusher)
    assert list(everywhere(layout)) == [f".later/new/{key},d=1700000060"]


def test_a_push_for_later_can_be_withdrawn(pusher: Pusher, layout: Layout) -> None:
    pusher.withdraw(later(pusher))
    assert everywhere(layout) == {}


def test_a_draft_can_be_pushed_for_later(pusher: Pusher, layout: Layout) -> None:
    draft = pusher.draft(due=2**31)
    draft.append(DATA)
    (key,) = pusher.push_all([lambda stem: draft])
    assert everywhere(layout) == {f".later/new/{key},d=2147483648": DATA}
