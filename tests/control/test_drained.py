"""When a pool has nothing left to do, by what its queues' folders show."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from maildefer.control import drained
from maildefer.control.drained import DeferredRest
from maildefer.host import runtime_dir, status_socket
from maildefer.maildir.layout import Layout, create_queue

LATER = 2**32


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """The one queue of a pool that says so."""
    made = create_queue(str(tmp_path / "queue"))
    said(monkeypatch, {"path": made.path, "guest": False, "state": "served"})
    return made


def said(monkeypatch: pytest.MonkeyPatch, *queues: dict[str, Any], pid: int = 7) -> None:
    monkeypatch.setattr(runtime_dir, "socket_path", lambda pidfile: pidfile)
    monkeypatch.setattr(status_socket, "ask_status", lambda path: {"pid": pid, "queues": list(queues)})


def rests() -> list[DeferredRest] | None:
    """What is left where all can be seen."""
    look = drained._look(7, "p.pid")
    return None if look is None or look.unseen else look.rests


def test_empty_folders_are_nothing_left(layout: Layout) -> None:
    assert rests() == []


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("new", "1.x"),
        ("new", "1.x,p=low,S=1"),
        ("cur", "1.x,a=1:1,other-0a1b2c-1-abcdef.1.1"),
        ("cur", "1.x:2,S"),
        ("later_new", "1.x,a=1,n=1,d=5"),
        ("later_new", "1.x"),
        ("later_cur", "1.x:2,S"),
    ],
)
def test_what_waits_is_claimed_or_due_is_left_on_any_host(layout: Layout, folder: str, name: str) -> None:
    Path(getattr(layout, folder), name).touch()
    assert rests() is None


def test_what_is_not_due_is_counted(layout: Layout) -> None:
    for number in range(3):
        Path(layout.later_new, f"{number}.x,n=1,d={LATER + number}").touch()
    assert rests() == [DeferredRest(queue=layout.path, count=3, next_due=LATER)]


def test_a_due_time_is_the_mounts(layout: Layout) -> None:
    Path(layout.later_new, f"1.x,n=1,d={int(time.time()) + 3600}").touch()
    assert rests() != []
    assert rests() is not None


def test_another_pools_answer_and_a_queue_that_is_not_joined_say_nothing(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    said(monkeypatch, {"path": layout.path, "guest": False, "state": "served"}, pid=8)
    assert rests() is None
    said(monkeypatch, {"path": layout.path, "guest": False, "state": "absent"})
    assert rests() is None
    said(monkeypatch, {"path": layout.path})
    assert rests() is None


def test_a_queue_that_is_served_for_its_tokens_does_not_count(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(layout.new, "1.x").touch()
    said(monkeypatch, {"path": layout.path, "guest": True, "state": "served"})
    assert rests() == []


@pytest.mark.parametrize("is_busy", [False, True])
@pytest.mark.slow
def test_a_queue_that_cannot_be_seen_ends_the_pool_once_nothing_else_is_left(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_busy: bool
) -> None:
    """By a process that stands for the pool."""
    monkeypatch.setattr(drained, "_UNSEEN_SECONDS", 1.0)
    pool = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    queues = [{"path": layout.path, "guest": False, "state": "served"}]
    queues += [{"path": f"{tmp_path}/{name}", "guest": False, "state": name} for name in ("absent", "served")]
    said(monkeypatch, *queues, pid=pool.pid)
    complaints: list[tuple[str, str]] = []
    if is_busy:
        Path(layout.new, "1.x").touch()
        threading.Timer(1.5, os.unlink, [f"{layout.new}/1.x"]).start()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *drained._FORWARDED)}
    try:
        code = drained.wait_until_drained(
            pool.pid, "p.pid", lambda rest: None, lambda *facts: complaints.append(facts)
        )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        pool.returncode = -signal.SIGTERM  # waited for already
    assert code == 128 + signal.SIGTERM  # its own code, as it handles no signal
    assert complaints == [
        (f"{tmp_path}/absent", "the pool can't join it: the log says why"),
        (f"{tmp_path}/served", "it can't be listed: No such file or directory"),
    ]
    assert os.listdir(layout.new) == []
