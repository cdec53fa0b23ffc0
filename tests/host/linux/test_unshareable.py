"""What forks of a process can't use beside each other is found by name; what they can share is not."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from maildefer.host.linux.unshareable import find_unshareable, open_descriptors

CODE = """
import sys
sys.path.insert(0, {root!r})
from maildefer.host.linux.unshareable import find_unshareable, open_descriptors
known = open_descriptors()
{code}
print("; ".join(find_unshareable(known)))
"""


def found(code: str) -> str:
    """By a process of its own, since a test's has threads and children of others."""
    root = str(Path(__file__).parent.parent.parent.parent)
    command = [sys.executable, "-c", CODE.format(root=root, code=code)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("code", "named"),
    [
        (
            "import threading as t; t.Thread(target=t.Event().wait, name='x', daemon=True).start()",
            "the thread x",
        ),
        ("import select; e = select.epoll()", "an event loop or selector (epoll)"),
        ("import os; ends = os.pipe()", "a pipe; a pipe"),
        ("import socket; s = socket.socket(); s.bind(('127.0.0.1', 0))", "a socket at 127.0.0.1:"),
        ("file = open('/etc/passwd')", "the file /etc/passwd"),
        ("import subprocess; one = subprocess.Popen(['sleep', '9'])", "the child process "),
    ],
)
@pytest.mark.slow
def test_it_is_named(code: str, named: str) -> None:
    assert named in found(code)


def test_a_connection_is_named_by_its_other_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket; s = socket.create_connection(('127.0.0.1', {port}))"
        assert found(code) == f"a connection to 127.0.0.1:{port}"


def test_folders_devices_and_files_that_are_only_appended_to_can_be_shared(tmp_path: Path) -> None:
    code = f"import os; d = os.open('/', os.O_RDONLY); n = open('/dev/null', 'w'); log = open('{tmp_path}/log', 'a')"
    assert found(code) == ""


def test_what_was_open_before_is_not_told() -> None:
    with select.epoll(), socket.socket():
        known = open_descriptors()
        mine = [one for one in find_unshareable(known) if "thread" not in one and "child" not in one]
    assert mine == []
