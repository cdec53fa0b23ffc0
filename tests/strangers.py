"""Queues to which programs write that run as somebody else."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

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
