"""Making and opening queues."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from maildefer.errors import (
    FormatUnknown,
    MountFault,
    MountMissing,
    NotAQueue,
    PermissionRefused,
    QueueMissing,
    ReadOnly,
)
from maildefer.maildir import control_folder
from maildefer.maildir.layout import Format, Layout, create_queue, mend, open_queue, read_format
from maildefer.maildir.operator import record_keeping
from maildefer.maildir.push import Pusher
from maildefer.maildir.system import SYSTEM, System
from tests.support.queues import DATA, LABEL, World, everywhere, put, somebody_else


def maildir(path: Path) -> str:
    for name in ("tmp", "new", "cur"):
        (path / name).mkdir(parents=True)
    return str(path)


def test_a_new_queue_is_a_maildir_with_two_folders_and_a_control_folder(tmp_path: Path) -> None:
    layout = create_queue(f"{tmp_path}/run/queue")
    assert sorted(os.listdir(layout.path)) == [".dead", ".later", ".maildefer", "cur", "new", "tmp"]
    assert sorted(os.listdir(f"{layout.path}/.later")) == ["cur", "maildirfolder", "new", "tmp"]
    assert sorted(os.listdir(layout.control)) == [
        "dead", "fenced", "format", "idempotency", "journal", "leases", "requests", "states", "status", "tokens",
    ]  # fmt: skip
    assert os.listdir(layout.requests) == ["done"]
    assert os.listdir(layout.tmp) == []


@pytest.mark.parametrize("kind", ["nfs4", "ceph", "9p", "btrfs", "zfs", "overlay", ""])
def test_a_queue_keeps_no_journal_by_itself_where_a_record_costs_a_system_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(control_folder, "_filesystem_of", lambda path: kind)
    layout = create_queue(f"{tmp_path}/queue")
    assert os.path.isdir(layout.control)
    assert not os.path.exists(layout.journal)


def test_a_queue_that_keeps_no_journal_gets_none_by_being_opened_or_mended(tmp_path: Path) -> None:
    layout = create_queue(f"{tmp_path}/queue")
    assert record_keeping.end_journal(layout) is None
    create_queue(layout.path)
    open_queue(layout.path)
    os.rmdir(layout.leases)
    assert mend(layout)
    assert not os.path.exists(layout.journal)


def test_the_journal_of_a_new_queue_is_for_whoever_may_push(tmp_path: Path) -> None:
    """Also in a Maildir of another program, to whose new/ a group may write."""
    fresh, there = create_queue(f"{tmp_path}/fresh"), Layout(maildir(tmp_path / "there"))
    os.chmod(there.new, 0o2775)
    create_queue(there.path)
    for layout in (fresh, there):
        assert os.stat(layout.journal).st_mode == os.stat(layout.new).st_mode
        assert os.stat(layout.journal).st_gid == os.stat(layout.new).st_gid


def test_every_path_of_a_layout_is_absolute_and_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    layout = create_queue("run/../queue")
    monkeypatch.chdir("/")
    for name in Layout.__slots__:
        path = getattr(layout, name)
        assert path.startswith(f"{tmp_path}/queue")
        wanted_only = (
            "done_new",
            "done_cur",
            "journal",
            "paused",
            "sent",
            "periodic",
            "limits",
            "rates",
            "synced",
        )
        assert os.path.exists(path) or name in wanted_only, "only where they are wanted"


def test_making_a_queue_that_is_there_changes_nothing(layout: Layout) -> None:
    put(layout.new, "X")
    create_queue(layout.path, format=Format(beat_seconds=1, ttl_seconds=9))
    assert everywhere(layout) == {"new/X": DATA}
    assert read_format(layout) == Format()


def test_a_folder_that_is_there_may_stand_where_nothing_may_be_made(tmp_path: Path) -> None:
    """As one that a server's administrator has made for a queue: NFS refuses before it looks for the name."""

    def mkdir(path: str, mode: int, **folder: int | None) -> None:
        if os.path.dirname(path) == str(tmp_path):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        os.mkdir(path, mode, **folder)

    (tmp_path / "queue").mkdir()
    assert os.listdir(create_queue(f"{tmp_path}/queue", system=replace(SYSTEM, mkdir=mkdir)).new) == []
    with pytest.raises(PermissionRefused, match="other: Permission denied"):
        create_queue(f"{tmp_path}/other", system=replace(SYSTEM, mkdir=mkdir))


def test_the_format_is_what_the_first_one_said(tmp_path: Path) -> None:
    layout = create_queue(f"{tmp_path}/q", format=Format(beat_seconds=0.6, ttl_seconds=6))
    assert read_format(layout) == Format(version=1, beat_seconds=0.6, ttl_seconds=6.0)


@pytest.mark.invariant(1)
def test_a_queues_folders_are_durable_before_it_is_used(tmp_path: Path, world: World) -> None:
    layout = create_queue(f"{tmp_path}/run/queue", system=world.system)
    synced = [call.arguments[0] for call in world.asked("fsync")]
    for directory in (
        str(tmp_path),
        f"{tmp_path}/run",
        layout.path,
        f"{layout.path}/.later",
        f"{layout.path}/.dead",
    ):
        assert directory in synced
    last = max(index for index, call in enumerate(world.calls) if call.what in ("mkdir", "rename"))
    assert ("fsync", (layout.path,)) in [(call.what, call.arguments) for call in world.calls[last:]]


def test_a_queue_that_is_there_is_opened_without_a_sync(layout: Layout, world: World) -> None:
    create_queue(layout.path, system=world.system)
    assert world.asked("fsync", "rename", "unlink") == []


def test_a_maildir_of_another_program_is_taken_as_it_is(tmp_path: Path) -> None:
    path = maildir(tmp_path / "mail")
    put(f"{path}/cur", "1.2.host:2,S")
    put(path, "dovecot-uidlist")
    layout = open_queue(path)
    assert everywhere(layout) == {"cur/1.2.host:2,S": DATA}
    assert read_format(layout) == Format()


def test_many_make_the_same_queue_at_once_and_agree(tmp_path: Path) -> None:
    formats, start = [], threading.Barrier(8)

    def make(number: int) -> None:
        start.wait()
        layout = create_queue(f"{tmp_path}/run/q", format=Format(beat_seconds=number, ttl_seconds=100))
        formats.append(read_format(layout))

    threads = [threading.Thread(target=make, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(formats) == 8
    assert len(set(formats)) == 1
    assert os.listdir(f"{tmp_path}/run/q/tmp") == []


@pytest.mark.parametrize("fault", [errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY])
def test_a_lost_reply_to_the_last_rename_does_not_matter(tmp_path: Path, world: World, fault: int) -> None:
    world.lose_reply("rename", fault)
    layout = create_queue(f"{tmp_path}/q", system=world.system)
    assert read_format(layout) == Format()
    assert os.listdir(layout.tmp) == []


def test_a_refused_last_rename_leaves_no_draft(tmp_path: Path, world: World) -> None:
    world.refuse("rename", errno.EROFS)
    with pytest.raises(ReadOnly):
        create_queue(f"{tmp_path}/q", system=world.system)
    assert os.listdir(f"{tmp_path}/q/tmp") == []
    assert read_format(create_queue(f"{tmp_path}/q")) == Format()


@pytest.mark.parametrize("what", ["mkdir", "write", "fsync", "open"])
def test_a_queue_whose_making_was_cut_short_is_made_whole_by_the_next(
    tmp_path: Path, world: World, what: str
) -> None:
    world.refuse(what, errno.EACCES)
    with pytest.raises(PermissionRefused):
        create_queue(f"{tmp_path}/q", system=world.system)
    Pusher(create_queue(f"{tmp_path}/q"), host=LABEL).push(lambda stem: [DATA])


def test_a_missing_queue_is_not_made_by_opening_it(tmp_path: Path) -> None:
    with pytest.raises(QueueMissing, match="spelling"):
        open_queue(f"{tmp_path}/quue")
    assert os.listdir(tmp_path) == []


def test_a_queue_below_a_link_to_nowhere_cannot_be_made(tmp_path: Path) -> None:
    os.symlink("gone", tmp_path / "link")
    with pytest.raises(QueueMissing):
        create_queue(f"{tmp_path}/link/q")


def file_at_path(path: Path) -> None:
    path.write_bytes(b"")


def other_things(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_bytes(b"")


def other_things_and_tmp(path: Path) -> None:
    other_things(path)
    (path / "tmp").mkdir()


def file_for_new(path: Path) -> None:
    path.mkdir()
    (path / "tmp").mkdir()
    (path / "cur").mkdir()
    (path / "new").write_bytes(b"")


def link_to_nowhere(path: Path) -> None:
    path.mkdir()
    (path / "tmp").mkdir()
    (path / "new").mkdir()
    os.symlink("gone", path / "cur")


def under_a_file(path: Path) -> None:
    path.symlink_to("file/q")
    (path.parent / "file").write_bytes(b"")


@pytest.mark.parametrize(
    "make", [file_at_path, other_things, other_things_and_tmp, file_for_new, link_to_nowhere, under_a_file]
)
def test_what_is_no_maildir_is_refused_and_left_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "q")
    before = sorted(str(path) for path in tmp_path.rglob("*") if ".later" not in str(path))
    for use in (open_queue, create_queue):
        with pytest.raises(NotAQueue, match="q is not a Maildir"):
            use(f"{tmp_path}/q")
    after = sorted(str(path) for path in tmp_path.rglob("*"))
    if make not in (file_for_new, link_to_nowhere):
        assert after == before


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"version": 2, "beat_seconds": 5, "ttl_seconds": 45}', "version 2"),
        ('{"version": "1", "beat_seconds": 5, "ttl_seconds": 45}', "version 1"),
        ("", "damaged"),
        ("{}", "damaged"),
        ("[1]", "damaged"),
        ("\udcff\udcfe", "damaged"),
        ('{"version": 1, "beat_seconds": "x", "ttl_seconds": 45}', "damaged"),
        ('{"version": 1, "beat_seconds": 5, "ttl_seconds": 4' + "5" * 400 + "}", "damaged"),
        ("[" * 60000, "damaged"),
        ('{"version": 1, "beat_seconds": 5, "ttl_seconds": 14}', "TTL of 14.0 s"),
        ('{"version": 1, "beat_seconds": 0, "ttl_seconds": 45}', "beats of 0.0 s"),
        ('{"version": 2, "beats": 5}', "the format version 2"),
        ('{"version": 1, "beat_seconds": -1, "ttl_seconds": 45}', "beats of -1.0 s"),
        ('{"version": 1, "beat_seconds": 1, "ttl_seconds": Infinity}', "holds Infinity"),
        ('{"version": 1, "beat_seconds": NaN, "ttl_seconds": 45}', "holds NaN"),
    ],
)
def test_an_unknown_or_damaged_format_is_refused_with_what_to_do(
    layout: Layout, text: str, told: str
) -> None:
    with open(layout.format, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    for use in (open_queue, create_queue):
        with pytest.raises(FormatUnknown, match=told) as error:
            use(layout.path)
        assert f"{layout.path}/.maildefer/format" in str(error.value)


@pytest.mark.parametrize("make", [None, os.mkdir, os.mkfifo])
def test_a_format_that_is_no_file_is_refused(layout: Layout, make: Callable[[str], None] | None) -> None:
    os.unlink(layout.format)
    if make is not None:
        make(layout.format)
    with pytest.raises(FormatUnknown):
        open_queue(layout.path)


def test_a_control_folder_without_its_empty_folders_is_mended(layout: Layout) -> None:
    for path in (layout.requests_done, layout.requests, layout.leases, layout.fenced, layout.reasons):
        os.rmdir(path)
    open_queue(layout.path)
    for path in (layout.requests_done, layout.leases, layout.fenced, layout.reasons):
        assert os.path.isdir(path)


def test_missing_folders_are_made_again_by_opening(layout: Layout) -> None:
    os.rename(f"{layout.path}/.later", f"{layout.path}-later")
    open_queue(layout.path)
    assert os.path.isdir(layout.later_new)


@pytest.mark.parametrize("what", ["listdir", "open", "read"])
def test_a_fault_at_opening_is_named(layout: Layout, world: World, what: str) -> None:
    world.refuse(what, errno.EIO)
    with pytest.raises(MountFault):
        open_queue(layout.path, system=world.system)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_a_queue_that_one_may_not_write_to_says_whose_permission_it_is(public_path: Path) -> None:
    os.chmod(public_path, 0o755)
    with somebody_else(), pytest.raises(PermissionRefused, match="write permission"):
        create_queue(f"{public_path}/q")


def test_the_format_is_stored_as_json(layout: Layout) -> None:
    with open(layout.format, encoding="utf-8") as file:
        assert json.load(file) == {"version": 1, "beat_seconds": 5.0, "ttl_seconds": 45.0}


def test_a_ttl_of_three_beats_is_the_least(tmp_path: Path) -> None:
    layout = create_queue(f"{tmp_path}/q", format=Format(beat_seconds=2, ttl_seconds=6))
    assert read_format(layout).ttl_seconds == 6


def test_what_a_maildir_lacks_is_told(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with pytest.raises(NotAQueue, match="it has no tmp, cur"):
        open_queue(str(tmp_path))


@pytest.mark.parametrize("held", [(), ("lost+found",), ("lost+found", "tmp")])
def test_an_empty_folder_is_no_queue_yet_and_may_become_one(tmp_path: Path, held: tuple[str, ...]) -> None:
    for name in held:
        (tmp_path / name).mkdir()
    with pytest.raises(QueueMissing, match="the folder is empty: name it in `queues`"):
        open_queue(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(held)
    assert os.path.isdir(create_queue(str(tmp_path)).cur)
    open_queue(str(tmp_path))


def test_a_queue_that_is_being_made_is_never_taken_for_another_programs(tmp_path: Path) -> None:
    seen: list[str] = []

    def look() -> None:
        present = set(os.listdir(tmp_path / "q")) if (tmp_path / "q").exists() else set()
        seen.append("ours" if ".maildefer" in present else "none" if present <= {"tmp"} else "another's")

    def watched(step: Callable[..., None]) -> Callable[..., None]:
        def stepped(*arguments: object, **folders: object) -> None:
            step(*arguments, **folders)
            look()

        return stepped

    create_queue(f"{tmp_path}/q", system=System(mkdir=watched(os.mkdir), rename=watched(os.rename)))
    assert set(seen) == {"none", "ours"}


def test_a_link_to_nowhere_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / "q").symlink_to(tmp_path / "away")
    for use in (open_queue, create_queue):
        with pytest.raises(
            QueueMissing, match="it is a link to what is not there: make that folder, or mount it"
        ):
            use(f"{tmp_path}/q")


def test_whatever_a_clean_up_of_empty_folders_takes_is_made_again(layout: Layout) -> None:
    def folders() -> set[str]:
        return {path for path, _, _ in os.walk(layout.path)}

    before = folders()
    for path in sorted(before, reverse=True):
        if not os.listdir(path):
            os.rmdir(path)
    assert len(folders()) < len(before)
    assert mend(layout)
    assert folders() == before
    assert not mend(layout)
    for path in sorted(before, reverse=True):
        if not os.listdir(path):
            os.rmdir(path)
    assert open_queue(layout.path) == layout
    assert os.path.isdir(layout.new)
    assert os.path.isdir(layout.requests)


def test_folders_are_not_made_again_where_the_queue_is_away(layout: Layout) -> None:
    os.rename(layout.control, f"{layout.path}-control")
    os.rmdir(layout.new)
    with pytest.raises(QueueMissing):
        mend(layout)
    assert not os.path.exists(layout.new)


def test_a_whole_queue_is_looked_through_without_a_change(layout: Layout, world: World) -> None:
    assert not mend(layout, system=world.system)
    assert {call.what for call in world.calls} <= {"open", "listdir", "close"}


@pytest.fixture
def fstab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Write the file that `/etc/fstab` is, for this test."""
    file = tmp_path / "fstab"
    monkeypatch.setattr(control_folder, "FSTAB", str(file))

    def write(text: str) -> None:
        file.write_text(text)

    return write


@pytest.mark.parametrize("below", ["queue", "deep/below/queue"])
@pytest.mark.parametrize("name", ["mail", "my mail"])
def test_no_queue_is_made_where_a_mount_belongs_that_is_not_there(
    tmp_path: Path, fstab: Callable[[str], None], name: str, below: str
) -> None:
    point = tmp_path / name
    point.mkdir()
    (tmp_path / "run").symlink_to(point)
    escaped = str(point).replace(" ", "\\040")
    fstab(f"# comment\n\nserver:/mail {escaped} nfs4 hard 0 0\nUUID=1 none swap sw 0 0\n")
    for path in (point / below, tmp_path / "run" / below):
        with pytest.raises(MountMissing, match="nothing is mounted there") as refused:
            create_queue(str(path))
        assert refused.value.point == str(point)
    assert list(point.iterdir()) == []


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that `/etc/systemd/system` is, for this test."""
    folder = tmp_path / "units"
    folder.mkdir()
    monkeypatch.setattr(control_folder, "UNITS", (f"{tmp_path}/none", str(folder)))
    return folder


def test_no_queue_is_made_where_a_unit_of_systemd_mounts_and_has_not(
    tmp_path: Path, units: Path, fstab: Callable[[str], None]
) -> None:
    point = tmp_path / "my mail" / ".ü-x" / ".y:z_1"
    escaped = str(tmp_path)[1:].replace("-", "\\x2d").replace("/", "-")
    unit = units / f"{escaped}-my\\x20mail-.\\xc3\\xbc\\x2dx-.y:z_1.mount"  # as systemd-escape(1) has it
    unit.symlink_to("/dev/null")
    create_queue(f"{point}/masked")
    unit.unlink()
    unit.write_text("[Mount]\n")
    with pytest.raises(MountMissing, match="nothing is mounted there") as refused:
        create_queue(f"{point}/queue")
    assert str(unit) in str(refused.value)
    create_queue(f"{point}/masked")


def test_a_queue_is_made_where_nothing_or_what_is_mounted_belongs(
    tmp_path: Path, fstab: Callable[[str], None]
) -> None:
    fstab(
        f"/dev/sda1 / ext4 defaults 0 1\nproc /proc proc defaults\nserver:/x {tmp_path}/mail nfs\n{tmp_path}\n"
    )
    create_queue(str(tmp_path / "mail2" / "queue"))
    create_queue(str(tmp_path / "mailbox"))


def test_a_queue_that_is_there_is_used_whatever_fstab_says(
    tmp_path: Path, fstab: Callable[[str], None]
) -> None:
    """Somebody keeps it in the root filesystem on purpose, or fstab is of another machine."""
    layout = create_queue(str(tmp_path / "mail" / "queue"))
    fstab(f"server:/x {tmp_path}/mail nfs\n")
    os.rmdir(layout.cur)
    assert create_queue(layout.path) == layout
    assert os.path.isdir(layout.cur)
