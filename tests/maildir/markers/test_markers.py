"""Pushing under a marker: one entry for a name, whoever dies, and whatever becomes of a reply."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from maildefer.errors import (
    MarkersRefused,
    MountFault,
    NoSpace,
    PermissionRefused,
    QueueMissing,
    UniqueKeyRefused,
)
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.markers.markers import Marked, Markers
from maildefer.maildir.markers.names import hash_of
from maildefer.maildir.push import Planned
from tests.maildir.markers.conftest import die_at, refuse_call, survives
from tests.support.queues import DATA, LABEL, World, everywhere, somebody_else


def push(markers: Markers, name: str = "order-17", data: bytes = DATA) -> Marked:
    return markers.push(name, lambda stem: [data])


def place_of(layout: Layout, name: str = "order-17") -> str:
    return f"{layout.control}/unique/{hash_of(name)}"


def held(layout: Layout, name: str = "order-17") -> list[str]:
    place = place_of(layout, name)
    return sorted(os.listdir(place)) if os.path.isdir(place) else []


def age(layout: Layout, seconds: float, name: str = "order-17") -> None:
    """Make the marker older."""
    place = place_of(layout, name)
    for file in os.listdir(place):
        since = os.stat(f"{place}/{file}").st_mtime - seconds
        os.utime(f"{place}/{file}", (since, since))


def test_a_second_push_of_a_name_stores_nothing_and_says_which_key_it_found(
    markers: Markers, layout: Layout
) -> None:
    first = push(markers)
    second = push(markers, data=b"another")
    assert (first.is_new, second.is_new) == (True, False)
    assert second.key == first.key
    assert everywhere(layout) == {f"new/{first.key}": DATA}


def test_pushes_of_other_names_are_stored(markers: Markers, layout: Layout) -> None:
    keys = {push(markers, name).key for name in ("a", "b", "A", "a ")}
    assert len(keys) == 4
    assert {f"new/{key}" for key in keys} == set(everywhere(layout))


def test_the_key_of_an_entry_names_its_marker(markers: Markers, layout: Layout) -> None:
    key = push(markers).key
    assert f",q={hash_of('order-17')},S={len(DATA)}" in key
    assert held(layout) == [key]


@pytest.mark.invariant(1)
def test_the_marker_is_durable_before_its_entry_can_be_handled(
    markers: Markers, layout: Layout, world: World, order_kept: bool
) -> None:
    push(markers, "the folder exists")
    world.forget()
    key = push(markers).key
    steps = [str(call) for call in world.calls if call.what in ("write", "fsync", "rename")]
    draft = next(call.arguments[0] for call in world.calls if call.what == "mkdir").rpartition("/")[2]
    of_names = [] if order_kept else [f"fsync {draft}", "fsync unique"]
    assert steps == [
        f"write {key}.draft",
        f"fsync {key}.draft",
        *of_names[:1],
        f"rename {draft} -> {hash_of('order-17')}",
        *of_names[1:],
        f"rename {key}.draft -> {key}",
        "fsync new",
    ]


@pytest.mark.invariant(1)
def test_an_entry_that_is_found_is_durable_before_its_key_is_returned(markers: Markers, world: World) -> None:
    push(markers)
    world.forget()
    push(markers)
    assert [str(call) for call in world.calls if call.what == "fsync"][-2:] == ["fsync unique", "fsync new"]


@pytest.mark.slow
def test_a_pusher_that_is_killed_at_any_call_blocks_nobody(layout: Layout) -> None:
    calls = 0
    while True:
        calls += 1
        name = f"order-{calls}"
        world = World(tokens=1000 * calls)
        die_at(world, calls)
        dies = Markers(layout, host=LABEL, system=world.system)
        survived = survives(lambda dies=dies, name=name: push(dies, name))  # type: ignore[misc]
        marked = push(Markers(layout, host=LABEL), name)
        entries = [path for path in everywhere(layout) if f",q={hash_of(name)}," in path]
        assert entries == [f"new/{marked.key}"], f"killed before call {calls}"
        assert held(layout, name) == [marked.key]
        if survived:
            break
    assert calls > 12


@pytest.mark.parametrize("fault", [errno.ENOENT, errno.EIO, errno.ESTALE])
def test_a_lost_reply_to_the_rename_of_the_marker_is_settled_by_a_look(
    markers: Markers, layout: Layout, world: World, fault: int
) -> None:
    world.lose_reply("rename", fault, where="/unique/")
    marked = push(markers)
    assert marked.is_new
    assert everywhere(layout) == {f"new/{marked.key}": DATA}


def test_a_lost_reply_to_the_rename_of_the_entry_is_settled_by_a_look(
    markers: Markers, layout: Layout, world: World
) -> None:
    world.lose_reply("rename", errno.ENOENT, where="/new/")
    marked = push(markers)
    assert marked.is_new
    assert everywhere(layout) == {f"new/{marked.key}": DATA}


def test_a_client_that_has_looked_a_marker_up_in_vain_looks_anew_before_it_moves_the_entry(
    markers: Markers, layout: Layout, world: World
) -> None:
    """Else it takes its own entry for one that somebody else has moved."""
    other = push(markers, "the folder exists").key
    os.unlink(f"{layout.new}/{other}")
    world.forget()
    world.lose_reply("rename", errno.ENOENT, where="/unique/")
    world.refuse("rename", errno.ENOENT, where="/new/")
    marked = push(markers)
    looks = [call for call in world.asked("utime", "rename") if call.arguments[-1] != layout.tmp]
    folder = f"{layout.control}/unique"
    assert [call.arguments[0] for call in looks if call.what == "utime"].count(folder) == 2
    assert everywhere(layout) == {f"new/{marked.key}": DATA}


def test_of_two_that_write_at_the_same_time_the_first_to_rename_wins(
    markers: Markers, layout: Layout, world: World
) -> None:
    other = Markers(layout, host="other-0a1b2c")
    found: list[Marked] = []
    world.before("rename", lambda: found.append(push(other, data=b"other")), where="/unique/")
    marked = push(markers)
    assert marked == Marked(key=found[0].key, is_new=False)
    assert everywhere(layout) == {f"new/{marked.key}": b"other"}
    assert os.listdir(layout.tmp) == []


def test_a_push_that_finds_another_leaves_nothing_though_a_reply_is_lost(
    markers: Markers, layout: Layout, world: World
) -> None:
    other = Markers(layout, host="other-0a1b2c")
    world.before("rename", lambda: push(other), where="/unique/")
    world.lose_reply("rename", errno.ENOENT, where=".ended")
    assert not push(markers).is_new
    assert os.listdir(layout.tmp) == []


def test_a_late_rename_of_a_marker_that_lost_revives_nothing(
    markers: Markers, layout: Layout, world: World
) -> None:
    other = Markers(layout, host="other-0a1b2c")
    world.hold("rename", errno.EIO, where="/unique/")
    with pytest.raises(MountFault):
        push(markers)
    marked = push(other, data=b"other")
    os.unlink(f"{layout.new}/{marked.key}")
    os.unlink(f"{place_of(layout)}/{marked.key}")
    assert world.land() == [errno.ENOENT]
    assert held(layout) == []
    assert everywhere(layout) == {}


def test_a_late_rename_that_comes_between_is_withdrawn_too(
    markers: Markers, layout: Layout, world: World
) -> None:
    world.hold("rename", errno.EIO, where="/unique/")
    world.before("unlink", world.land, where=".draft")
    with pytest.raises(MountFault):
        push(markers)
    assert held(layout) == []
    assert everywhere(layout) == {}


def test_a_push_whose_entry_somebody_else_has_moved_and_which_has_ended_since_is_done(
    markers: Markers, layout: Layout, world: World
) -> None:
    def end_meanwhile() -> None:
        found = push(Markers(layout, host="other-0a1b2c"))
        os.unlink(f"{layout.new}/{found.key}")
        os.unlink(f"{place_of(layout)}/{found.key}")
        os.rmdir(place_of(layout))

    world.before("rename", end_meanwhile, where="/new/")
    assert push(markers).is_new
    assert everywhere(layout) == {}


def test_a_marker_that_is_freed_while_it_is_looked_at_is_free(
    markers: Markers, layout: Layout, world: World
) -> None:
    key = push(markers).key
    place = place_of(layout)
    os.rename(f"{layout.new}/{key}", f"{place}/{key}.ended")

    def free() -> None:
        for name in os.listdir(place):
            os.unlink(f"{place}/{name}")
        os.rmdir(place)

    world.after("listdir", free, where=place)
    assert push(markers).is_new


def test_a_finder_moves_the_entry_of_a_pusher_that_died_and_a_late_duplicate_finds_nothing(
    markers: Markers, layout: Layout, world: World
) -> None:
    world.hold("rename", errno.EIO, where="/new/")
    world.refuse("rename", errno.EIO, where=".ended", times=10)  # it can't withdraw
    with pytest.raises(MountFault):
        push(markers)
    found = push(Markers(layout, host="other-0a1b2c"), data=b"other")
    assert not found.is_new
    assert everywhere(layout) == {f"new/{found.key}": DATA}
    os.rename(f"{layout.new}/{found.key}", f"{layout.cur}/{found.key},a=1:1,x-1-abcd.1.1")
    assert world.land() == [errno.ENOENT]
    assert len(everywhere(layout)) == 1


@pytest.mark.invariant(1)
def test_no_key_is_returned_and_nothing_is_left_if_any_step_fails(markers: Markers, layout: Layout) -> None:
    push(markers, "the folder exists")
    before, failed = everywhere(layout), set()
    for number in range(1, 100):
        world = World(tokens=1000 * number)
        refuse_call(world, number, errno.ENOSPC)
        fresh = Markers(layout, host=LABEL, system=world.system)
        name = f"order-{number}"
        try:
            marked = push(fresh, name)
        except NoSpace:
            call = world.calls[number - 1]
            failed.add(call.what)
            if call.arguments[-1] == layout.new:  # the last sync: whoever tries again finds the entry
                found = push(markers, name)
                assert not found.is_new
                os.unlink(f"{layout.new}/{found.key}")
                continue
            assert everywhere(layout) == before
            assert held(layout, name) == []
        else:
            before[f"new/{marked.key}"] = DATA
            if len(world.calls) < number:
                break
    assert failed > {"mkdir", "open", "write", "fsync", "rename"}
    assert os.listdir(layout.tmp) == []


def test_a_marker_that_kept_no_entry_is_freed_after_the_ttl(markers: Markers, layout: Layout) -> None:
    lost = push(markers)
    os.unlink(f"{layout.new}/{lost.key}")  # by hand: nobody has freed the marker
    assert push(markers) == Marked(key=lost.key, is_new=False)
    age(layout, 46)
    assert push(markers).is_new
    assert len(everywhere(layout)) == 1


@pytest.mark.parametrize("folder", ["new", "cur", ".later/new", ".later/cur"])
def test_an_old_marker_is_kept_while_its_entry_is_anywhere(
    markers: Markers, layout: Layout, world: World, folder: str
) -> None:
    key = push(markers).key
    os.rename(f"{layout.new}/{key}", f"{layout.path}/{folder}/{key},n=1")
    age(layout, 3600)
    assert push(markers) == Marked(key=key, is_new=False)
    world.forget()
    assert push(markers) == Marked(key=key, is_new=False)
    assert [
        call for call in world.calls if "cur" in call.arguments[0]
    ] == []  # not looked for again before the TTL


def test_an_entry_that_goes_round_behind_the_listings_is_found_by_the_time_of_its_marker(
    markers: Markers, layout: Layout, world: World
) -> None:
    key = push(markers).key
    age(layout, 3600)
    names = [f"{layout.new}/{key}", *(f"{layout.new}/{key},n={n}" for n in (1, 2, 3))]

    def hop(folder: str) -> None:
        """Claim the entry after `cur/` was listed, and return it after `new/` was."""
        path = names.pop(0)
        if folder == layout.cur:
            if ",n=" in path:  # whoever claims a returned entry touches its marker
                os.utime(f"{place_of(layout)}/{key}")
            os.rename(path, f"{layout.cur}/hidden")
        else:
            os.rename(f"{layout.cur}/hidden", names[0])

    os.rename(names[0], f"{layout.new}/{key},n=1")
    names.pop(0)
    world.after("scandir", lambda: hop(layout.cur), where=layout.cur, times=2)
    listed = World().system.scandir
    assert listed is not None
    world.after(
        "scandir", lambda: os.path.exists(f"{layout.cur}/hidden") and hop(layout.new), where=layout.new
    )
    world.after(
        "scandir", lambda: os.path.exists(f"{layout.cur}/hidden") and hop(layout.new), where=layout.new
    )
    assert push(markers) == Marked(key=key, is_new=False)


def test_an_entry_for_later_waits_there_and_whoever_finds_its_marker_puts_it_there(
    markers: Markers, layout: Layout, world: World
) -> None:
    planned = Planned(compose=lambda stem: [DATA], due=1_800_000_000)
    world.hold("rename", errno.EIO, where="/.later/new/")
    world.refuse("rename", errno.EIO, where=".ended", times=10)
    with pytest.raises(MountFault):
        markers.push("order-17", planned)
    found = push(markers)
    assert everywhere(layout) == {f".later/new/{found.key},d=1800000000": DATA}
    assert f",q={hash_of('order-17')},S=" in found.key
    age(layout, 3600)
    world.forget()
    assert push(markers) == found
    assert world.asked("scandir") == []  # it is where it was put: nothing has to be listed


@pytest.mark.parametrize("name", ["", "x" * (1 << 20), "é" * 513, "\ud800"])
def test_a_name_that_is_no_name_is_refused(markers: Markers, layout: Layout, name: str) -> None:
    with pytest.raises(UniqueKeyRefused, match="the unique key"):
        push(markers, name)
    assert everywhere(layout) == {}


@pytest.mark.parametrize("name", [None, 17, b"order", ["order"]])
def test_a_name_that_is_no_text_is_refused(markers: Markers, name: object) -> None:
    with pytest.raises(TypeError, match="unique="):
        push(markers, name)  # type: ignore[arg-type]


def test_a_queue_that_is_gone_is_missing(markers: Markers, layout: Layout) -> None:
    os.rename(layout.path, f"{layout.path}-away")
    with pytest.raises(QueueMissing):
        push(markers)


def test_a_user_who_may_only_put_entries_in_is_told_so(public_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("for root, who can be somebody else")
    layout = create_queue(str(public_path / "queue"))
    push(Markers(layout, host=LABEL), "the folder exists")
    os.chmod(f"{layout.control}/unique", 0o2700)
    for folder in (layout.path, layout.tmp, layout.new, layout.control):
        os.chmod(folder, 0o777)
    with somebody_else(), pytest.raises(MarkersRefused, match="may only put entries"):
        push(Markers(layout, host=LABEL))
    assert os.listdir(layout.tmp) == []


@pytest.mark.parametrize("has_markers", [False, True])
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_user_who_may_put_nothing_in_is_told_what_any_push_tells(
    public_path: Path, has_markers: bool, mode: int
) -> None:
    if os.geteuid() != 0:
        pytest.skip("for root, who can be somebody else")
    layout = create_queue(str(public_path / "queue"))
    if has_markers:
        push(Markers(layout, host=LABEL), "the folder exists")
        os.chmod(f"{layout.control}/unique", 0o2700)
    for folder in (layout.tmp, layout.new, layout.control, layout.path):
        os.chmod(folder, mode)
    with somebody_else(), pytest.raises(PermissionRefused, match="write permission") as refused:
        push(Markers(layout, host=LABEL))
    assert refused.type is PermissionRefused
    assert str(refused.value).startswith(f"{layout.tmp}: ")
    assert os.listdir(layout.tmp) == []


def test_a_new_marker_that_is_stale_after_a_lost_reply_is_looked_at_before_its_entry_is_moved(
    markers: Markers, layout: Layout, world: World
) -> None:
    """An NFS client knows its folder by its old name, too, until it was listed; up to then each call there fails."""
    push(markers, "order-16")
    world.lose_reply("rename", errno.EIO, where="/unique/")
    world.refuse("listdir", errno.ESTALE, where=hash_of("order-17"), times=20)
    marked = push(markers)
    assert marked.key in os.listdir(layout.new)
    asked = [call.what for call in world.calls if hash_of("order-17") in str(call.arguments)]
    assert asked.count("listdir") == 21
    assert asked.index("listdir") < asked.index("rename", asked.index("rename") + 1)
