from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from maildefer.host import runtime_dir
from maildefer.host.identity import HOST_ID_VARIABLE
from maildefer.maildir import journal
from maildefer.maildir.layout import Layout, create_queue
from tests.support.pid_files import Spawn, spawning


@pytest.fixture
def own_runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(runtime_dir.DIRECTORY_VARIABLE, str(tmp_path / "runtime"))
    monkeypatch.delenv(HOST_ID_VARIABLE, raising=False)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    with spawning() as start:
        yield start


@pytest.fixture
def queue(tmp_path: Path) -> Layout:
    """One that keeps a journal."""
    layout = create_queue(str(tmp_path / "queue"))
    journal.begin_journal(layout)
    return layout
