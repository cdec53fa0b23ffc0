"""The steps of Salmon's `start`, for programs that call them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from maildefer import utils

BACKGROUND = """
import os, sys
from maildefer.utils import daemonize
daemonize("run/it.pid", ".", None, 0o027)
print("in the background", os.getsid(0) == os.getpid(), os.umask(0) == 0o027, flush=True)
print("an error", file=sys.stderr, flush=True)
open("done", "w").close()
"""


def test_a_daemon_goes_on_with_its_output_in_files_and_its_pid_in_a_file(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", BACKGROUND], cwd=tmp_path, check=True, timeout=60)
    assert done.returncode == 0
    deadline = time.monotonic() + 30
    while not (tmp_path / "done").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (tmp_path / "logs/maildefer.out").read_text() == "in the background False True\n"
    assert (tmp_path / "logs/maildefer.err").read_text() == "an error\n"
    assert int((tmp_path / "run/it.pid").read_text()) != os.getpid()


def test_start_server_starts_the_receiver_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    started: list[str] = []
    settings = SimpleNamespace(receiver=SimpleNamespace(start=lambda: started.append("receiver")))
    utils.start_server("a.pid", False, None, None, None, None, None, lambda: settings, daemon_proc=False)
    assert started == ["receiver"]
    Path("a.pid").touch()
    with pytest.raises(SystemExit):
        utils.start_server("a.pid", False, None, None, None, None, None, lambda: settings, daemon_proc=False)
    assert started == ["receiver"]


def test_privileges_are_dropped_group_first(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    for name in ("setgroups", "setgid", "setuid"):
        monkeypatch.setattr(os, name, lambda value, name=name: calls.append((name, value)))
    utils.drop_priv(uid=1, gid=2)
    assert calls == [("setgroups", []), ("setgid", 2), ("setuid", 1)]
