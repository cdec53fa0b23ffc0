"""Whether a pid file may be believed: whose it is, and whether the process that it names is a maildefer of that user's.

A pid file may lie where others may write, and what it says of a process anybody can read in /proc. Only the records in
the runtime directory, which is this user's alone, need no proof.
"""

from __future__ import annotations

import os
import pwd
from typing import Final

from maildefer.host.pidfile import PidFile

_TITLE: Final = "maildefer: "  # see `host.titles`
_INTERPRETERS: Final = ("python", "pypy")


def is_trusted(file: PidFile) -> bool:
    """Whether this user, or root, has written it: then its queues, and its lease, are what they say."""
    return file.owner in (0, os.geteuid())


def whose(file: PidFile) -> str:
    """Of whom the file is, for people."""
    if file.owner is None:
        return "nobody known"
    try:
        return f"user {pwd.getpwuid(file.owner).pw_name}"
    except KeyError:
        return f"user {file.owner}"


def doubt(file: PidFile) -> str:
    """Why the process of this host that it names is not shown to be a maildefer of the file's owner; empty if it is."""
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
        return f"it does not run as {whose(file)}, whose the file is"
    if not interpreter.startswith(_INTERPRETERS) or not _is_maildefer(arguments):
        return "it is no maildefer"
    return ""


def _is_maildefer(arguments: list[str]) -> bool:
    """By its title, or as it was started: `maildefer …`, `python maildefer …`, `python -m maildefer.…`."""
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
