"""A dead letter that a mail reader moves into the queue's folder is requeued once, with its counters anew."""

from __future__ import annotations

import os
import pty
import select
import shutil
import termios
import time
from collections.abc import Callable

import pytest

from maildefer.maildir import reasons
from maildefer.maildir.names import EntryName
from tests.lifecycle.conftest import Start
from tests.lifecycle.project import PATIENCE_SECONDS, Project, eventually

pytestmark = pytest.mark.lifecycle


def mutt(project: Project, keys: str) -> None:
    """Open the folder of dead letters in mutt, and have these keys pressed."""
    if shutil.which("mutt") is None:
        pytest.skip("missing mutt: apt-get install --no-install-recommends mutt")
    home = project.path / "home"
    home.mkdir()
    settings = home / "muttrc"
    settings.write_text(
        f"set folder={home}\nset mbox_type=Maildir\nset confirmappend=no\n"
        "set delete=yes\nset quit=yes\nset move=no\nset header_cache=\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        termios.tcsetwinsize(0, (24, 80))
        command = [
            "mutt",
            "-n",
            "-F",
            str(settings),
            "-f",
            f"{project.queue.path}/.dead",
            "-e",
            f'push "{keys}"',
        ]
        os.execvpe("mutt", command, os.environ | {"TERM": "xterm", "HOME": str(home)})
    shown, deadline = b"", time.monotonic() + PATIENCE_SECONDS
    try:
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            assert time.monotonic() < deadline, shown
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    shown += os.read(terminal, 65536)
                except OSError:  # it has ended
                    os.waitpid(pid, 0)
                    break
    finally:
        os.close(terminal)


def save_unread(project: Project) -> None:
    mutt(project, f"<save-message>{project.queue.path}<enter><quit>")


def save_read(project: Project) -> None:
    mutt(
        project,
        f"<display-message><exit><save-message>{project.queue.path}<enter><quit>",
    )


def rename(project: Project) -> None:
    [name] = os.listdir(project.queue.dead_new)
    os.rename(f"{project.queue.dead_new}/{name}", f"{project.queue.new}/{name}")


def rename_with_flags(project: Project) -> None:
    [name] = os.listdir(project.queue.dead_new)
    os.rename(f"{project.queue.dead_new}/{name}", f"{project.queue.cur}/{name}:2,RS")


@pytest.mark.parametrize("unique", [None, "17"])
@pytest.mark.parametrize("way", [save_unread, save_read, rename, rename_with_flags])
def test_it_is_tried_once_more_from_the_beginning(
    project: Project, start: Start, way: Callable[[Project], None], unique: str | None
) -> None:
    project.edit("workers/front.py", "@stateless\ndef HANDLE", "@stateless\n@retry(attempts=1)\ndef HANDLE")
    project.edit("workers/front.py", "from maildefer.routing import", "from maildefer.routing import retry,")
    pool = start(workers=2)
    key = project.push("fail")[0] if unique is None else project.push_unique("fail", unique).key
    eventually(lambda: project.names("dead_new"), "it is buried")
    assert len(project.notes("start")) == 1
    pool.stop()  # else mutt sees the next burial before it quits, and deletes nothing
    way(project)
    start(workers=2)
    [dead] = eventually(
        lambda: [one for one in project.names("dead_new") if one.returns > 1 or one.key != key],
        "it was tried again, and is buried again",
    )
    assert len(project.notes("start")) == 2
    assert [note.attempt for note in project.notes("start")] == [1, 1]
    assert (dead.attempts, dead.failures) == (1, 1)
    assert len(project.names("dead_new")) == 1
    assert os.listdir(project.queue.dead_cur) == []
    assert reasons.read_reason(project.queue, EntryName(key=key, returns=1))["failures"] == 1
    if unique is not None:
        eventually(lambda: project.push_unique("quick", unique).is_new, "the key is free")
