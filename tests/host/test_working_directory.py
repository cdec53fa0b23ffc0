from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest

from maildefer.host.working_directory import WorkingDirectory


def test_a_move_is_noticed_and_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "below").mkdir()
    with WorkingDirectory() as directory:
        assert not directory.movers
        descriptor = os.open("below", os.O_RDONLY)
        for move in (lambda: os.chdir("below"), lambda: os.fchdir(descriptor)):
            move()
            assert directory.movers == {threading.get_ident()}
            assert directory.put_back()
            assert (os.getcwd(), directory.movers) == (str(tmp_path), set())
        os.close(descriptor)
        with contextlib.chdir("below"):
            assert directory.movers
        with pytest.raises(FileNotFoundError):
            os.chdir("nowhere")


def test_a_directory_that_is_gone_cannot_be_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    with WorkingDirectory() as directory:
        os.chdir("/")
        (tmp_path / "project").rmdir()
        assert not directory.put_back()
    os.chdir(tmp_path)
