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
    ],
)
def test_commands_and_options_are_completed(line: str, offered: set[str]) -> None:
    assert completed(line) == offered


def test_keys_of_the_queue_are_completed_wherever_their_entries_are(queue: Layout, maildefer: Any) -> None:
    for name in (f"{queue.new}/17.new", f"{queue.later_new}/17.later,n=1,d=99", f"{queue.new}/18.other"):
        Path(name).touch()
    assert completed(f"maildefer queue show {queue.path} 17") == {"17.new", "17.later"}
    assert completed(f"maildefer queue show {queue.path}/none 17") == set()
