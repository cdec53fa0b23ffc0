"""Queues to which programs write that run as somebody else."""

from __future__ import annotations

import codecs
import json
import os
import pwd
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maildefer.maildir.layout import Layout, create_queue


def shared(home: Path) -> Layout:
    """A queue to which nobody may write."""
    layout = create_queue(str(home / "queue"))
    give_to_nobody(Path(layout.path))
    return layout


def give_to_nobody(folder: Path) -> None:
    """A folder and all in it."""
    nobody = pwd.getpwnam("nobody")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)


def as_user(uid: int, gid: int, act: Callable[[], object]) -> None:
    """In a process of that user's, which has no other group; it must succeed."""
    codecs.lookup("ascii")  # loaded at its first use, when Python's own library may be out of reach
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            act()
            status = 0
        except BaseException:  # noqa: BLE001  # the child must end here
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0, "it could not do that"


def told_by(uid: int, gid: int, tell: Callable[[], object]) -> Any:
    """What a process of that user's says, by way of JSON."""
    reading, writing = os.pipe()
    with open(reading, "rb") as answers:
        try:
            as_user(uid, gid, lambda: os.write(writing, json.dumps(tell()).encode()))
        finally:
            os.close(writing)
        return json.loads(answers.read())
