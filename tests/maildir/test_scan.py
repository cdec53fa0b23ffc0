"""Listing folders."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from maildefer.maildir import scan
from maildefer.maildir.claims import Claimer
from maildefer.maildir.layout import Layout
from tests.support.queues import World, everywhere, put


def test_dotted_names_are_passed_over(layout: Layout) -> None:
    for name in ("1.x", ".nfs0001", "2.x"):
        put(layout.new, name)
    assert sorted(scan.entries(layout.new)) == ["1.x", "2.x"]


def test_a_missing_folder_is_an_empty_one(layout: Layout) -> None:
    assert list(scan.entries(layout.done_new)) == []
    assert list(scan.chunks(layout.done_new)) == []


def test_a_fault_is_raised(layout: Layout, world: World) -> None:
    world.refuse("scandir", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        list(scan.entries(layout.new, system=world.system))


def test_chunks_are_of_the_size_asked_for_and_each_is_sorted(layout: Layout) -> None:
    names = {put(layout.new, f"{number:03}.x") for number in range(25)}
    chunks = list(scan.chunks(layout.new, 10))
    assert [len(chunk) for chunk in chunks] == [10, 10, 5]
    assert all(chunk == sorted(chunk) for chunk in chunks)
    assert {name for chunk in chunks for name in chunk} == names


def test_a_folder_is_read_lazily(layout: Layout) -> None:
    for number in range(2000):
        put(layout.new, f"{number}.x", b"")
    first = next(chunks := scan.chunks(layout.new, 10))
    assert len(first) == 10
    chunks.close()  # type: ignore[attr-defined]


def test_entries_are_counted_over_folders(layout: Layout) -> None:
    put(layout.new, "1.x")
    put(layout.cur, "2.x")
    put(layout.cur, "3.x")
    assert scan.count(layout.new, layout.cur, layout.done_new) == 3


def test_any_name_that_a_directory_can_hold_is_listed(layout: Layout) -> None:
    names = {put(layout.new, name) for name in ("x" * 255, "é" * 127, "\udcff", "a\nb", "\x01", " ", "-rf")}
    assert set(scan.entries(layout.new)) == names


@pytest.mark.invariant(10)
def test_missing_doubled_and_stale_names_cost_time_and_never_a_message(
    layout: Layout, claimer: Claimer, world: World, tmp_path: Path
) -> None:
    for number in range(20):
        put(layout.new, f"{number:02}.x", str(number).encode())
    world.hidden = {f"{number:02}.x" for number in range(0, 20, 3)}
    world.ghosts[layout.new] = ["05.x", "05.x", "99.gone"]
    handled = []
    for _ in range(3):
        for name in scan.entries(layout.new, system=world.system):
            if (claim := claimer.claim(name)) is not None:
                handled.append(claim.read())
                claim.ack()
        world.hidden.clear()
    assert sorted(handled) == sorted(str(number).encode() for number in range(20))
    assert everywhere(layout) == {}
    assert os.listdir(layout.new) == []
