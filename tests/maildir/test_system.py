from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from maildefer.maildir import system


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which requests the kernel got, of which it knows none, unless a test says otherwise."""
    found: list[int] = []

    def ioctl(descriptor: int, request: int, argument: bytes) -> bytes:
        found.append(request)
        raise OSError(errno.ENOTTY, "")

    monkeypatch.setattr(system, "_without_commit", set())
    monkeypatch.setattr(system, "ioctl", ioctl)
    return found


def test_another_filesystem_is_asked_once(tmp_path: Path, asked: list[int]) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        assert [system.commit_names(folder) for _ in range(3)] == [False, False, False]
    finally:
        os.close(folder)
    assert len(asked) == 1


def test_a_kernel_that_is_asked_on_another_filesystem_knows_no_such_request() -> None:
    folder = os.open("/dev/shm", os.O_RDONLY)
    try:
        assert not system.commit_names(folder)
    finally:
        os.close(folder)


@pytest.mark.parametrize("refused", ["start", "wait"])
def test_a_commit_that_fails_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[int], refused: str
) -> None:
    def ioctl(descriptor: int, request: int, argument: bytes) -> bytes:
        asked.append(request)
        if len(asked) == ["start", "wait"].index(refused) + 1:
            raise OSError(errno.EIO, "the disk fails")
        return argument

    monkeypatch.setattr(system, "ioctl", ioctl)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="the disk fails"):
            system.commit_names(folder)
    finally:
        os.close(folder)
