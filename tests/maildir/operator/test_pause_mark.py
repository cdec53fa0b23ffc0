"""The mark that pauses a queue on all hosts."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from maildefer.errors import StorageFault
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.operator import pause_mark
from maildefer.maildir.system import SYSTEM


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create_queue(str(tmp_path / "queue"))


def test_a_pause_tells_who_made_it_and_when(layout: Layout) -> None:
    assert not pause_mark.is_paused(layout)
    assert pause_mark.read_pause_mark(layout) is None
    assert pause_mark.pause_queue(
        layout, user="ann", host="mx1-0a1b2c", system=replace(SYSTEM, time=lambda: 1.5)
    )
    assert pause_mark.read_pause_mark(layout) == pause_mark.PauseMark(
        since=1.5, user="ann", host="mx1-0a1b2c"
    )


def test_a_second_pause_leaves_the_first_ones_word(layout: Layout) -> None:
    pause_mark.pause_queue(layout, user="ann", host="a")
    assert not pause_mark.pause_queue(layout, user="bob", host="b")
    assert (pause := pause_mark.read_pause_mark(layout)) is not None
    assert pause.user == "ann"


def test_a_resumed_queue_may_be_paused_again(layout: Layout) -> None:
    assert not pause_mark.resume_queue(layout)
    pause_mark.pause_queue(layout, user="ann", host="a")
    assert pause_mark.resume_queue(layout)
    assert not pause_mark.is_paused(layout)
    assert pause_mark.pause_queue(layout, user="ann", host="a")
    assert os.listdir(layout.tmp) == []


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff", b'{"since": "yesterday"}'])
def test_a_mark_made_by_hand_pauses_too(layout: Layout, text: bytes) -> None:
    Path(layout.paused).write_bytes(text)
    assert pause_mark.is_paused(layout)
    assert pause_mark.read_pause_mark(layout) == pause_mark.PauseMark()


def test_whether_a_queue_is_paused_is_seen_in_a_fresh_listing(layout: Layout) -> None:
    """A look-up of the name may be answered from a client's memory for half a minute, a listing after a change not."""
    calls: list[str] = []
    system = replace(
        SYSTEM,
        utime=lambda folder: calls.append(f"utime {os.readlink(f'/proc/self/fd/{folder}')}"),
        listdir=lambda folder: (
            calls.append(f"list {os.readlink(f'/proc/self/fd/{folder}')}"),
            os.listdir(folder),
        )[1],
    )
    pause_mark.is_paused(layout, system=system)
    assert calls == [f"utime {layout.control}", f"list {layout.control}"]


def test_a_mount_that_fails_is_no_answer(layout: Layout) -> None:
    def refuse(path: str) -> list[str]:
        raise OSError(5, "I/O error", path)

    with pytest.raises(StorageFault):
        pause_mark.is_paused(layout, system=replace(SYSTEM, listdir=refuse))
