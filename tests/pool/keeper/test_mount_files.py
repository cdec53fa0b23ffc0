"""What a keeper reads on the mount of other hosts."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from maildefer.maildir.layout import create_queue
from maildefer.maildir.system import SYSTEM
from maildefer.pool.context import QueueOfPool
from maildefer.pool.keeper.mount_files import MountFiles
from maildefer.pool.scoreboard import QueueWord, Scoreboard


@pytest.mark.parametrize("workers", [1, 2_000])
def test_a_paused_host_has_no_share_however_many_workers_it_has(tmp_path: Path, workers: int) -> None:
    layout = create_queue(str(tmp_path / "queue"))
    board = Scoreboard(1, 4)
    shared: Any = SimpleNamespace(board=board)
    heartbeat: Any = SimpleNamespace(queue=QueueOfPool(name="run/queue", layout=layout), lease="a-1-abcdef")
    told = {"workers": [{"pid": number, "entry": "x" * 200} for number in range(workers)], "paused": True}
    Path(layout.status, "b-2-abcdef.json").write_text(json.dumps(told))
    mount_files_class = MountFiles(shared, 0, heartbeat, SYSTEM)
    mount_files_class.share(["b-2-abcdef", "c-3-abcdef"])
    assert board.words[board.queue(0) + QueueWord.HOSTS] == 2, "the third has told nothing, and counts"


def test_of_many_hosts_only_some_statuses_are_read_at_a_time_each_in_its_turn(tmp_path: Path) -> None:
    layout, read = create_queue(str(tmp_path / "queue")), []
    board = Scoreboard(1, 4)
    shared: Any = SimpleNamespace(board=board)
    heartbeat: Any = SimpleNamespace(queue=QueueOfPool(name="run/queue", layout=layout), lease="a-1-abcdef")
    others = [f"b-{number}-abcdef" for number in range(10)]
    for lease in others:
        Path(layout.status, f"{lease}.json").write_text(json.dumps({"paused": True}))
    files = MountFiles(shared, 0, heartbeat, SYSTEM)

    def is_idle(lease: str) -> bool:
        read.append(lease)
        return MountFiles._is_idle(files, lease)

    files._is_idle = is_idle  # type: ignore[method-assign]
    told = []
    for _ in range(3):
        files.share(others)
        told.append(board.words[board.queue(0) + QueueWord.HOSTS])
    assert told == [7, 3, 1], "who has not been looked at counts"
    assert read == [*others, *others[:2]]
    files.share([*others[1:], "c-1-abcdef"])
    assert read[12:] == ["c-1-abcdef", *others[2:5]], "what is new comes first"
    assert board.words[board.queue(0) + QueueWord.HOSTS] == 2
