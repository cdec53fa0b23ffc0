"""Deciding whether to believe a pid file: by its owner, and by whether it names a maildefer process of that user.

A pid file may lie where others may write, and what it says of a process anybody can read in /proc. Only the records in
the runtime directory, which is this user's alone, need no proof.
"""

from __future__ import annotations

import os
import pwd
from typing import Final

from maildefer.host.pidfile import PidFile

_TITLE: Final = "maildefer: "  # see host/linux/process_title
_INTERPRETERS: Final = ("python", "pypy")


def is_trusted(file: PidFile) -> bool:
    """Whether this user or root owns the pid file, so that its queues and its lease are believed."""
    return file.owner in (0, os.geteuid())


def owner_text(file: PidFile) -> str:
    """The owner of a pid file, in words."""
    if file.owner is None:
        return "nobody known"
    try:
        return f"user {pwd.getpwuid(file.owner).pw_name}"
    except KeyError:
        return f"user {file.owner}"


def why_doubted(file: PidFile) -> str:
    """The reason not to believe that the process it names is a maildefer of the file's owner; empty if it is one."""
    import psutil  # for those who have no record of the process only: it is slow to load

    try:
        process = psutil.Process(file.pid)
        users = set(process.uids())
        interpreter, arguments = os.path.basename(process.exe()), process.cmdline()
    except psutil.NoSuchProcess:
        return "it has just ended"
    except (psutil.Error, OSError):
        return "this user may not look at it"
    if users != {file.owner}:
        return f"it does not run as {owner_text(file)}, whose the file is"
    if not interpreter.startswith(_INTERPRETERS) or not _is_maildefer(arguments):
        return "it is no maildefer"
    return ""


def _is_maildefer(arguments: list[str]) -> bool:
    """Whether a command line is a maildefer's: its title, `maildefer …`, `python [-m] maildefer…`."""
    if " ".join(arguments).startswith(_TITLE):
        return True
    rest = iter(arguments[1:])
    for argument in rest:
        if argument == "-m":
            return next(rest, "").partition(".")[0] == "maildefer"
        if argument in ("-W", "-X"):
            next(rest, None)
        elif not argument.startswith("-"):
            return os.path.basename(argument) == "maildefer"
        elif argument == "-c":
            return False
    return False
