from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from maildefer.errors import NoSpace, PermissionRefused
from maildefer.handling.state.directory import DirectoryStorage
from maildefer.handling.state.storage import MemoryStorage, ShelveStorage, StateStorage
from maildefer.maildir.system import System

Make = Callable[[Path], StateStorage]
STORES: dict[str, Make] = {
    "memory": lambda path: MemoryStorage(),
    "shelve": lambda path: ShelveStorage(str(path / "shelf")),
    "directory": lambda path: DirectoryStorage(str(path / "states")),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StateStorage:
    return STORES[request.param](tmp_path)


def test_the_base_store_does_nothing_itself() -> None:
    store = StateStorage()
    with pytest.raises(NotImplementedError):
        store.get("m", "a@b")
    with pytest.raises(NotImplementedError):
        store.set("m", "a@b", "X")
    with pytest.raises(NotImplementedError):
        store.clear()


def test_a_pair_that_was_never_set_is_in_start(store: StateStorage) -> None:
    assert store.get("m", "a@b") == "START"


def test_a_state_belongs_to_its_key_and_sender(store: StateStorage) -> None:
    store.set("m", "a@b", "ONE")
    store.set("m", "z@b", "TWO")
    store.set("n", "a@b", "THREE")
    assert (store.get("m", "a@b"), store.get("m", "z@b"), store.get("n", "a@b")) == ("ONE", "TWO", "THREE")
    assert store.get("n", "z@b") == "START"


def test_the_last_state_counts_and_start_forgets_it(store: StateStorage) -> None:
    store.set("m", "a@b", "ONE")
    store.set("m", "a@b", "TWO")
    assert store.get("m", "a@b") == "TWO"
    store.set("m", "a@b", "START")
    assert store.get("m", "a@b") == "START"


def test_clear_forgets_all(store: StateStorage) -> None:
    store.set("m", "a@b", "ONE")
    store.clear()
    assert store.get("m", "a@b") == "START"


@pytest.mark.parametrize(
    "sender", ["", None, "ü@exämple", "../../etc/passwd", "a/b\0c@d", "x" * 5000, "\udce4@x"]
)
def test_any_sender_can_be_kept(store: StateStorage, sender: str | None) -> None:
    store.set("m", sender, "ONE")
    assert store.get("m", sender) == "ONE"


def test_memory_keeps_nothing_for_start() -> None:
    store = MemoryStorage()
    store.set("m", "a@b", "ONE")
    assert store.states == {repr(["m", "a@b"]): "ONE"}
    store.set("m", "a@b", "START")
    assert store.states == {}


def test_a_shelf_outlives_its_storage(tmp_path: Path) -> None:
    ShelveStorage(str(tmp_path / "shelf")).set("m", "a@b", "ONE")
    assert ShelveStorage(str(tmp_path / "shelf")).get("m", "a@b") == "ONE"


def files(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()]


def test_hosts_see_each_others_states_at_once(tmp_path: Path) -> None:
    here, there = DirectoryStorage(str(tmp_path)), DirectoryStorage(str(tmp_path))
    assert there.get("m", "a@b") == "START"
    here.set("m", "a@b", "ONE")
    assert there.get("m", "a@b") == "ONE"
    there.set("m", "a@b", "TWO")
    assert here.get("m", "a@b") == "TWO"


def test_a_conversation_is_one_small_file_whose_name_never_comes_back(tmp_path: Path) -> None:
    store = DirectoryStorage(str(tmp_path))
    seen = set()
    for state in ("ONE", "TWO", "ONE"):
        store.set("m", "a@b", state)
        (file,) = files(tmp_path)
        seen.add(file.name)
    assert len(seen) == 3
    store.set("m", "a@b", "START")
    assert files(tmp_path) == []


def test_a_retry_starts_from_the_state_before_its_first_try(tmp_path: Path) -> None:
    store = DirectoryStorage(str(tmp_path))
    store.set("m", "a@b", "ONE")
    store.set_for_entry("m", "a@b", "TWO", "KEY1")
    store.end_attempt("KEY1")
    assert store.get_for_entry("m", "a@b", "KEY1") == "ONE"
    store.set_for_entry("m", "a@b", "THREE", "KEY1")
    store.end_attempt("KEY1")
    assert store.get_for_entry("m", "a@b", "KEY1") == "ONE"
    assert store.get_for_entry("m", "a@b", "KEY2") == "THREE"


def test_a_retry_after_its_worker_died_starts_from_the_state_before(tmp_path: Path) -> None:
    DirectoryStorage(str(tmp_path)).set_for_entry("m", "a@b", "TWO", "KEY1")
    assert DirectoryStorage(str(tmp_path)).get_for_entry("m", "a@b", "KEY1") == "START"
    assert DirectoryStorage(str(tmp_path)).get("m", "a@b") == "TWO"


def test_a_return_to_start_is_kept_for_the_retry(tmp_path: Path) -> None:
    store = DirectoryStorage(str(tmp_path))
    store.set("m", "a@b", "ONE")
    store.set_for_entry("m", "a@b", "START", "KEY1")
    store.end_attempt("KEY1")
    assert store.get_for_entry("m", "a@b", "KEY1") == "ONE"
    assert store.get_for_entry("m", "a@b", "KEY2") == "START"


def test_an_attempt_sees_what_it_has_set_itself(tmp_path: Path) -> None:
    store = DirectoryStorage(str(tmp_path))
    store.set_for_entry("m", "a@b", "TWO", "KEY1")
    assert store.get_for_entry("m", "a@b", "KEY1") == "TWO"


def test_an_entry_that_is_handed_on_starts_from_the_state_it_was_given(tmp_path: Path) -> None:
    store = DirectoryStorage(str(tmp_path))
    store.set("m", "a@b", "ONE")
    store.begin_for_entry("m", "a@b", "TWO", "KEY1")
    assert store.get_for_entry("m", "a@b", "KEY1") == "TWO"
    store.set_for_entry("m", "a@b", "THREE", "KEY1")
    store.end_attempt("KEY1")
    assert store.get_for_entry("m", "a@b", "KEY1") == "TWO"


@pytest.mark.slow
def test_what_callers_never_end_does_not_pile_up(tmp_path: Path) -> None:
    store = DirectoryStorage(str(tmp_path))
    for number in range(400):
        store.set_for_entry("m", "a@b", "ONE", f"KEY{number}")
    assert len(store._moved) == 256


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 60_000, b'{"key": "m"}', b"\xff\xfe"])
def test_a_damaged_file_counts_as_not_there(tmp_path: Path, content: bytes) -> None:
    store = DirectoryStorage(str(tmp_path))
    store.set("m", "a@b", "ONE")
    files(tmp_path)[0].write_bytes(content)
    assert store.get("m", "a@b") == "START"
    store.set("m", "a@b", "TWO")
    assert store.get("m", "a@b") == "TWO"
    assert len(files(tmp_path)) == 1


def test_after_a_crash_between_rename_and_removal_the_newer_file_counts(tmp_path: Path) -> None:
    store = DirectoryStorage(str(tmp_path), system=System(unlink=lambda path: None))
    store.set("m", "a@b", "ONE")
    store.set("m", "a@b", "TWO")
    assert len(files(tmp_path)) == 2
    assert DirectoryStorage(str(tmp_path)).get("m", "a@b") == "TWO"


def test_a_crash_before_the_rename_leaves_the_old_state(tmp_path: Path) -> None:
    def die(source: str, destination: str) -> None:
        raise KeyboardInterrupt

    DirectoryStorage(str(tmp_path)).set("m", "a@b", "ONE")
    with pytest.raises(KeyboardInterrupt):
        DirectoryStorage(str(tmp_path), system=System(rename=die)).set("m", "a@b", "TWO")
    assert DirectoryStorage(str(tmp_path)).get("m", "a@b") == "ONE"


def test_a_file_replaced_between_listing_and_opening_is_found_by_a_new_listing(tmp_path: Path) -> None:
    other = DirectoryStorage(str(tmp_path))
    other.set("m", "a@b", "ONE")
    moves = iter([lambda: other.set("m", "a@b", "TWO")])

    def listdir(path: str) -> list[str]:
        names = os.listdir(path)
        next(moves, lambda: None)()
        return names

    assert DirectoryStorage(str(tmp_path), system=System(listdir=listdir)).get("m", "a@b") == "TWO"


def test_each_listing_follows_a_change_of_ones_own(tmp_path: Path) -> None:
    calls: list[str] = []
    system = System(
        utime=lambda path: calls.append("utime"),
        listdir=lambda path: calls.append("listdir") or os.listdir(path),  # type: ignore[func-returns-value]
    )
    store = DirectoryStorage(str(tmp_path), system=system)
    store.set("m", "a@b", "ONE")
    store.get("m", "a@b")
    assert calls == ["utime", "listdir"] * 2


def test_a_listing_beside_a_write_may_show_neither_name(tmp_path: Path) -> None:
    DirectoryStorage(str(tmp_path)).set("m", "a@b", "ONE")
    hidden = iter([True])
    system = System(listdir=lambda path: [] if next(hidden, False) else os.listdir(path))
    assert DirectoryStorage(str(tmp_path), system=system).get("m", "a@b") == "ONE"


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, NoSpace), (errno.EACCES, PermissionRefused)])
def test_what_the_filesystem_refuses_is_named_and_leaves_the_old_state(
    tmp_path: Path, number: int, error: type[Exception]
) -> None:
    DirectoryStorage(str(tmp_path)).set("m", "a@b", "ONE")

    def refuse(path: str, *_: object) -> int:
        raise OSError(number, os.strerror(number), path)

    with pytest.raises(error):
        DirectoryStorage(str(tmp_path), system=System(fsync=refuse)).set("m", "a@b", "TWO")  # type: ignore[arg-type]
    assert DirectoryStorage(str(tmp_path)).get("m", "a@b") == "ONE"
    assert len(files(tmp_path)) == 1


@pytest.mark.slow
def test_readers_beside_a_writer_never_see_a_torn_or_missing_state(tmp_path: Path) -> None:
    writer = DirectoryStorage(str(tmp_path))
    writer.set("m", "a@b", "S0")
    seen: set[str] = set()
    done = threading.Event()

    def read() -> None:
        reader = DirectoryStorage(str(tmp_path))
        while not done.is_set():
            seen.add(reader.get("m", "a@b"))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(150):
        writer.set("m", "a@b", f"S{number}")
    done.set()
    for thread in threads:
        thread.join()
    assert "START" not in seen
    assert writer.get("m", "a@b") == "S149"
