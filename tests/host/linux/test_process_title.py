from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os, sys
from maildefer.host.linux.process_title import set_title
set_title(sys.argv[1] * int(sys.argv[2]))
print(os.environ["MARK"], flush=True)
sys.stdin.read()
"""


def shown(title: str, *arguments: str) -> tuple[bytes, str, bytes]:
    environ = os.environ | {"MARK": "kept"}
    command = [sys.executable, "-c", CODE, title, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"kept\n"
        proc = Path(f"/proc/{process.pid}")
        line = (proc / "cmdline").read_bytes().rstrip(b"\0")
        comm = (proc / "comm").read_text().rstrip("\n")
        environment = (proc / "environ").read_bytes()
        process.communicate()
    return line, comm, environment


@pytest.mark.lifecycle
def test_the_title_takes_the_place_of_the_command_line() -> None:
    line, comm, _ = shown("worker 3 run/queue", "1")
    assert line == b"maildefer: worker 3 run/queue"
    assert comm == "maildefer: work"


@pytest.mark.lifecycle
def test_a_title_longer_than_the_command_line_is_cut_and_the_environment_kept() -> None:
    line, _, environment = shown("x" * 200, "40")
    assert line.startswith(b"maildefer: xxx")
    assert len(line) < 8000
    assert b"MARK" not in line
    assert b"MARK=kept" in environment.split(b"\0")


def test_a_process_without_proc_goes_without_a_title(monkeypatch: pytest.MonkeyPatch) -> None:
    from maildefer.host.linux import process_title

    def refuse(path: str, data: bytes, offset: int) -> None:
        raise PermissionError

    monkeypatch.setattr(process_title, "_write", refuse)
    process_title.set_title("anything")
