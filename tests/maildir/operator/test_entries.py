"""What operators do with single entries."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from maildefer.errors import EntryAmbiguous, EntryClaimed, EntryMalformed, EntryNotFound, QueueMissing
from maildefer.maildir import reasons
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.names import EntryName, pop_name
from maildefer.maildir.operator import entries
from maildefer.maildir.push import Pusher
from maildefer.maildir.system import SYSTEM

DATA = b"Subject: hello\n\nhello\n"
OWNER = "host-0a1b2c-17-abcdef012345.18.1"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create_queue(str(tmp_path / "queue"))


def pushed(layout: Layout) -> str:
    return Pusher(layout, host="host-0a1b2c").push(lambda stem: [DATA])


def moved(layout: Layout, directory: str, name: str) -> str:
    """A pushed entry, moved to where and what the test wants it to be; gives its key."""
    key = pushed(layout)
    os.rename(f"{layout.new}/{key}", f"{directory}/{name.format(key=key)}")
    return key


def buried(layout: Layout) -> tuple[str, EntryName]:
    key = moved(layout, layout.dead_new, "{key},a=20,c=4,n=6")
    dead = EntryName(key=key, attempts=20, crashes=4, returns=6)
    reasons.write_reason(layout, dead, "no route", {}, host="host-0a1b2c")
    return key, dead


def test_an_entry_is_found_by_its_key_in_each_folder(layout: Layout) -> None:
    expected = {
        pushed(layout): "waiting",
        moved(layout, layout.cur, "{key}:2,S"): "waiting",
        moved(layout, layout.cur, "{key},a=1:1," + OWNER): "claimed",
        moved(layout, layout.later_new, "{key},a=2,n=1,d=2000000000"): "deferred",
        moved(layout, layout.later_cur, "{key},a=2,n=1,d=2000000000:2,"): "deferred",
        moved(layout, layout.dead_new, "{key},a=20,n=7"): "dead",
        moved(layout, layout.dead_cur, "{key},a=20,n=7:2,S"): "dead",
    }
    assert {key: entries.find(layout, key).folder for key in expected} == expected


def test_an_entry_is_found_by_its_whole_name(layout: Layout) -> None:
    key = moved(layout, layout.dead_new, "{key},a=20,n=7")
    assert entries.find(layout, f"{key},a=20,n=7").key == key


def test_a_listing_tells_waiting_entries_from_claimed_ones(layout: Layout) -> None:
    moved(layout, layout.cur, "{key},a=1:1," + OWNER)
    entry = EntryName(key="123.M1P1Q1R1.host")
    Path(layout.cur, pop_name(entry, SYSTEM)).write_bytes(DATA)
    seen = moved(layout, layout.cur, "{key}:2,S")
    new = pushed(layout)
    assert {found.key for found in entries.list_entries(layout, "waiting")} == {seen, new}
    assert len(list(entries.list_entries(layout, "claimed"))) == 2


def test_what_is_in_no_folder_is_not_found(layout: Layout) -> None:
    with pytest.raises(EntryNotFound) as caught:
        entries.find(layout, "123.M1P1Q1R1.host")
    assert isinstance(caught.value, KeyError)


def test_a_key_cannot_lead_out_of_the_queue(layout: Layout) -> None:
    for key in ("../../queue/new", ".", "..", "", "../.maildefer/format"):
        with pytest.raises(EntryNotFound):
            entries.find(layout, key)


def test_the_bytes_are_shown_untouched(layout: Layout) -> None:
    assert entries.read_found(entries.find(layout, pushed(layout))) == DATA


def test_a_directory_cannot_be_shown(layout: Layout) -> None:
    os.mkdir(f"{layout.new}/directory")
    with pytest.raises(EntryMalformed):
        entries.read_found(entries.find(layout, "directory"))


@pytest.mark.invariant(4)
def test_a_requeued_dead_letter_waits_with_fresh_counters_under_a_name_that_never_was(layout: Layout) -> None:
    key, _ = buried(layout)
    name = entries.requeue(layout, entries.find(layout, key))
    assert os.listdir(layout.new) == [name] == [f"{key},n=7"]
    assert os.listdir(layout.dead_new) == []


@pytest.mark.invariant(9)
def test_a_requeued_dead_letter_keeps_its_bytes(layout: Layout) -> None:
    key, _ = buried(layout)
    name = entries.requeue(layout, entries.find(layout, key))
    assert Path(layout.new, name).read_bytes() == DATA


def test_a_released_entry_waits_with_its_attempts_counted_on(layout: Layout) -> None:
    key = moved(layout, layout.later_new, "{key},a=2,n=3,d=2000000000")
    name = entries.release_deferred(layout, entries.find(layout, key))
    assert name == f"{key},a=2,n=4"
    assert os.listdir(layout.new) == [name]


def test_what_somebody_else_moved_meanwhile_is_not_found(layout: Layout) -> None:
    key, _ = buried(layout)
    found = entries.find(layout, key)
    os.unlink(found.path)
    for operation in (entries.requeue, entries.release_deferred, entries.delete):
        with pytest.raises(EntryNotFound):
            operation(layout, found)
    with pytest.raises(EntryNotFound):
        entries.read_found(found)


def test_a_requeue_whose_reply_was_lost_has_happened(layout: Layout) -> None:
    key, _ = buried(layout)

    def rename_and_lose_the_reply(source: str, destination: str, **folders: int) -> None:
        os.rename(source, destination, **folders)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)

    system = replace(SYSTEM, rename=rename_and_lose_the_reply)
    assert entries.requeue(layout, entries.find(layout, key), system=system) == f"{key},n=7"


def test_a_deleted_dead_letter_takes_its_reason_along(layout: Layout) -> None:
    key, _ = buried(layout)
    entries.delete(layout, entries.find(layout, key))
    assert os.listdir(layout.dead_new) == os.listdir(layout.reasons) == []


def test_a_directory_is_left_to_its_owner_and_the_others_are_deleted(layout: Layout) -> None:
    for folder in "bdf":
        os.mkdir(f"{layout.dead_new}/{folder}")
    for file in "aceg":
        Path(layout.dead_new, file).touch()
    with pytest.raises(EntryMalformed, match=r"is a directory .*rm -r"):
        entries.clear(layout, "dead")
    assert sorted(os.listdir(layout.dead_new)) == ["b", "d", "f"]


def test_a_claimed_entry_is_not_deleted(layout: Layout) -> None:
    key = moved(layout, layout.cur, "{key},a=1:1," + OWNER)
    with pytest.raises(EntryClaimed, match="is claimed, a worker handles it"):
        entries.delete(layout, entries.find(layout, key))
    assert len(os.listdir(layout.cur)) == 1


def test_clearing_a_folder_leaves_the_others(layout: Layout) -> None:
    buried(layout)
    pushed(layout)
    moved(layout, layout.cur, "{key}:2,S")
    claimed = moved(layout, layout.cur, "{key},a=1:1," + OWNER)
    assert entries.clear(layout, "waiting") == 2
    assert entries.find(layout, claimed).folder == "claimed"
    assert len(os.listdir(layout.dead_new)) == 1


def test_a_queue_that_went_away_is_empty(layout: Layout, tmp_path: Path) -> None:
    os.rename(layout.path, tmp_path / "elsewhere")
    with pytest.raises((EntryNotFound, QueueMissing)):
        entries.find(layout, "123.M1P1Q1R1.host")


def test_the_beginning_of_a_key_names_it_and_a_part_of_its_counters_does_not(layout: Layout) -> None:
    key = moved(layout, layout.dead_new, "{key},a=20,c=4,n=6")
    folders: tuple[entries.Folder, ...] = ("waiting", "dead")
    for head in (key[:-1], key, f"{key},a=20,c=4,n=6", f"{key},a=1"):
        assert [found.key for found in entries.find_named(layout, [head], folders)[head]] == [key]
    for head in (f"{key},a=", f"{key},a=20,", f"{key}x"):
        assert entries.find_named(layout, [head], folders)[head] == []


def test_of_the_keys_that_a_beginning_may_mean_no_more_are_kept_than_are_told(layout: Layout) -> None:
    for number in range(200):
        Path(layout.new, f"1.M0P1Q{number}R9c1f0a77.other,S=1").touch()
    with pytest.raises(EntryAmbiguous) as caught:
        entries.find_named(layout, ["1.M0P1Q"], ("waiting", "dead"))
    assert len(caught.value.candidates) <= 100
