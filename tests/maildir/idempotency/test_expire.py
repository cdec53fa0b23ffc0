"""What is kept of requests goes after a day of the mount's, a bounded number at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maildefer.maildir.idempotency import expire
from maildefer.maildir.idempotency.expire import KEPT_SECONDS, Expirer
from maildefer.maildir.layout import Layout
from tests.support.queues import START, World

FILE = "0" * 32


def marker(layout: Layout, number: int, age_seconds: float = 0.0, bucket: str = "3f") -> Path:
    path = Path(f"{layout.control}/idempotency/{bucket}/{bucket}{number:030x}")
    path.mkdir(parents=True)
    (path / FILE).write_text("draft key\n")
    os.utime(path, (START - age_seconds,) * 2)
    return path


def left(layout: Layout) -> int:
    return len([*Path(f"{layout.control}/idempotency").glob("*/*/")])


def test_a_marker_goes_once_it_is_a_day_old_by_the_mounts_time(layout: Layout, world: World) -> None:
    young, old = marker(layout, 1, KEPT_SECONDS - 1), marker(layout, 2, KEPT_SECONDS + 1)
    world.seconds += 10 * KEPT_SECONDS  # this host's clock
    assert Expirer(layout, system=world.system).expire(START) == 1
    assert (young.exists(), old.exists()) == (True, False)


def test_all_are_looked_at_in_passes_of_a_bounded_size(
    layout: Layout, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Expirer, "most", 10)
    monkeypatch.setattr(expire, "_MOST_FOLDERS", 3)
    for number in range(25):
        marker(layout, number, KEPT_SECONDS + 1, bucket="a0")
        marker(layout, number, bucket="a1")
    for bucket in range(12):
        marker(layout, bucket, KEPT_SECONDS + 1, bucket=f"b{bucket:x}")
    expirer = Expirer(layout, system=world.system)
    for _ in range(20):
        world.forget()
        expirer.expire(START)
        assert len(world.asked("lstat")) <= 10
        assert len(world.asked("listdir")) <= 1 + 3 + 10
    assert left(layout) == 25


def test_what_takes_a_markers_place_meanwhile_stays(layout: Layout, world: World) -> None:
    old = marker(layout, 1, KEPT_SECONDS + 1)

    def replace_it() -> None:
        (old / FILE).unlink()
        old.rmdir()
        marker(layout, 1)

    world.after("lstat", replace_it)
    assert Expirer(layout, system=world.system).expire(START) == 0
    assert (old / FILE).exists()


def test_what_is_put_where_it_was_emptied_stays(layout: Layout, world: World) -> None:
    old = marker(layout, 1, KEPT_SECONDS + 1)
    world.before("rmdir", lambda: (old / ("1" * 32)).write_text("draft key\n"))
    assert Expirer(layout, system=world.system).expire(START) == 0
    assert (old / ("1" * 32)).exists()


def test_what_others_put_there_holds_up_nothing_and_leads_nowhere(layout: Layout, world: World) -> None:
    precious = Path(f"{layout.path}/precious")
    marker(Layout(str(precious)), 1, KEPT_SECONDS + 1)
    for number, name in enumerate(("00", "7f", "zz")):
        os.symlink(f"{precious}/.maildefer/idempotency/3f", f"{layout.control}/idempotency/{name}")
        Path(f"{layout.control}/idempotency/file{number}").touch()
    os.mkdir(f"{layout.control}/idempotency/3f")
    os.symlink(
        f"{precious}/.maildefer/idempotency/3f/3f{1:030x}", f"{layout.control}/idempotency/3f/{'3f' * 16}"
    )
    old = marker(layout, 1, KEPT_SECONDS + 1)
    odd = marker(layout, 2, KEPT_SECONDS + 1)
    (odd / "named otherwise").touch()
    os.utime(odd, (0, 0))
    assert Expirer(layout, system=world.system).expire(START) == 1
    assert not old.exists()
    assert left(Layout(str(precious))) == 1
    assert os.listdir(odd) == ["named otherwise"]


def test_each_keeper_begins_elsewhere(layout: Layout) -> None:
    assert len({Expirer(layout)._begin for _ in range(50)}) > 10
