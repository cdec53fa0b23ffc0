"""Reading entries, whatever lies there."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from maildefer.errors import EntryMalformed, EntryTooLarge, StorageFault
from maildefer.maildir.reading import read_entry
from tests.support.queues import FAULTS, World

LIMIT = 64 << 20
FIRST = 32 << 10


@pytest.mark.invariant(9)
@pytest.mark.parametrize("size", [0, 1, 2048, FIRST - 1, FIRST, FIRST + 1, (1 << 20) + FIRST, 3_000_001])
def test_an_entry_of_any_size_is_read_untouched(tmp_path: Path, size: int) -> None:
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    (tmp_path / "x").write_bytes(data)
    assert read_entry(f"{tmp_path}/x", LIMIT) == data


def test_a_usual_message_costs_open_read_and_close(tmp_path: Path, world: World) -> None:
    (tmp_path / "x").write_bytes(b"x" * 2048)
    read_entry(f"{tmp_path}/x", LIMIT, system=world.system)
    assert [call.what for call in world.calls] == ["open", "read", "close"]


@pytest.mark.parametrize(
    ("size", "limit"), [(10, 9), (FIRST, FIRST - 1), (FIRST + 1, FIRST), (2_000_000, 1_999_999)]
)
def test_an_entry_over_the_limit_is_refused_with_both_sizes(tmp_path: Path, size: int, limit: int) -> None:
    (tmp_path / "x").write_bytes(b"x" * size)
    with pytest.raises(EntryTooLarge) as fault:
        read_entry(f"{tmp_path}/x", limit)
    assert (fault.value.size_bytes, fault.value.limit_bytes) == (size, limit)
    assert len(read_entry(f"{tmp_path}/x", size)) == size


def test_a_large_entry_over_the_limit_is_not_read_beyond_its_first_piece(
    tmp_path: Path, world: World
) -> None:
    with open(tmp_path / "x", "wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(EntryTooLarge):
        read_entry(f"{tmp_path}/x", LIMIT, system=world.system)
    assert [call.what for call in world.calls] == ["open", "read", "fstat", "close"]


def test_an_entry_that_grows_past_the_limit_while_it_is_read_is_refused(tmp_path: Path, world: World) -> None:
    (tmp_path / "x").write_bytes(b"x" * FIRST)

    def grow() -> None:
        with open(tmp_path / "x", "ab") as file:
            file.write(b"x" * 100_000)

    world.after("fstat", grow)
    with pytest.raises(EntryTooLarge):
        read_entry(f"{tmp_path}/x", FIRST + 5, system=world.system)


def fifo_with_a_writer(path: str) -> None:
    os.mkfifo(path)
    os.open(path, os.O_RDWR | os.O_NONBLOCK)  # left open: the test's process ends some day


def unix_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)


KINDS: dict[str, tuple[Callable[[str], object], str]] = {
    "directory": (os.mkdir, "a directory"),
    "link": (lambda path: os.symlink("/etc/passwd", path), "a symbolic link"),
    "dangling link": (lambda path: os.symlink("nowhere", path), "a symbolic link"),
    "FIFO": (os.mkfifo, "a FIFO"),
    "FIFO with a writer": (fifo_with_a_writer, "a FIFO"),
    "socket": (unix_socket, "a socket"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_plain_file_is_named_and_holds_nobody(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, told = KINDS[kind]
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    make("x")
    done = []

    def read() -> None:
        with pytest.raises(EntryMalformed, match=told):
            read_entry(f"{tmp_path}/x", LIMIT)
        done.append(True)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(60)
    assert done


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a device")
def test_a_device_is_no_message(tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", 0o20666, os.makedev(1, 3))
    try:
        with pytest.raises(EntryMalformed):
            read_entry(f"{tmp_path}/null", LIMIT)
    except PermissionError:
        pytest.skip("no devices may be made here")


def test_a_missing_entry_is_left_to_the_caller(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_entry(f"{tmp_path}/x", LIMIT)


@pytest.mark.parametrize("fault", [*FAULTS, errno.EMFILE, errno.ENOMEM])
@pytest.mark.parametrize("what", ["open", "read"])
def test_a_fault_that_is_not_the_entrys_own_is_named(
    tmp_path: Path, world: World, what: str, fault: int
) -> None:
    (tmp_path / "x").write_bytes(b"x")
    world.refuse(what, fault)
    with pytest.raises(StorageFault) as error:
        read_entry(f"{tmp_path}/x", LIMIT, system=world.system)
    assert error.value.remedy in str(error.value)


def test_no_descriptor_is_left_open(tmp_path: Path, world: World) -> None:
    (tmp_path / "x").write_bytes(b"x" * 100)
    before = len(os.listdir("/proc/self/fd"))
    read_entry(f"{tmp_path}/x", LIMIT, system=world.system)
    with pytest.raises(EntryTooLarge):
        read_entry(f"{tmp_path}/x", 1, system=world.system)
    world.refuse("read", errno.EIO)
    with pytest.raises(StorageFault):
        read_entry(f"{tmp_path}/x", LIMIT, system=world.system)
    assert len(os.listdir("/proc/self/fd")) == before
