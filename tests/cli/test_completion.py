"""The shell completes commands, options and keys; here a real bash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maildefer.maildir.layout import Layout

PROGRAM = Path(sys.executable).with_name("maildefer")
ASK = """
eval "$({program} --show-completion)"
COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_maildefer_completion {program}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def completed(line: str) -> set[str]:
    script = ASK.format(program=PROGRAM, line=line)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("maildefer qu", {"queue"}),
        ("maildefer queue h", {"hold"}),
        ("maildefer queue hold --s", {"--sender"}),
        ("maildefer queue list run/queue --in he", {"held"}),
        ("maildefer push run/queue --priority l", {"low"}),
    ],
)
@pytest.mark.slow
def test_commands_and_options_are_completed(line: str, offered: set[str]) -> None:
    assert completed(line) == offered


@pytest.mark.slow
def test_keys_of_the_queue_are_completed_wherever_their_entries_are(queue: Layout, maildefer: Any) -> None:
    for name in (f"{queue.new}/17.new", f"{queue.later_new}/17.later,n=1,d=99", f"{queue.new}/18.other"):
        Path(name).touch()
    assert completed(f"maildefer queue show {queue.path} 17") == {"17.new", "17.later"}
    assert completed(f"maildefer queue show {queue.path}/none 17") == set()
    assert completed(f"maildefer explain --queue {queue.path} 17") == {"17.new", "17.later"}


def test_a_home_that_can_not_be_written_to_is_told_in_one_line() -> None:
    # Below a bash, which is looked for among the processes above: whoever runs the tests may have another shell.
    command = ["bash", "-c", f"{PROGRAM} --install-completion bash; exit $?"]
    done = subprocess.run(
        command, env={"HOME": "/dev/null/x", "PATH": "/usr/bin"}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "/dev/null/x" in done.stderr


@pytest.mark.slow
def test_who_closes_the_pipe_gets_no_verdict(queue: Layout) -> None:
    """`… | head -1` is told by 141, as of any program that a closed pipe ends, and by no fault of its own."""
    for number in range(3000):
        Path(f"{queue.new}/{number}.entry-with-a-name-that-fills-the-pipe").touch()
    command = f"{PROGRAM} queue list {queue.path} | head -1 >/dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("141\n", "")
