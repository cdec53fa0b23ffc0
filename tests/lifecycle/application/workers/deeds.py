"""What handlers of several applications can be told to do, mostly to their process."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any


def _wait(argument: str) -> None:
    """Until the test says so."""
    while not os.path.exists("go"):
        time.sleep(0.005)


def _fail(argument: str) -> None:
    raise RuntimeError("it broke")


def _system_exit(argument: str) -> None:
    sys.exit(int(argument))


def _interrupt(argument: str) -> None:
    raise KeyboardInterrupt


def _segfault(argument: str) -> None:
    ctypes.string_at(0)


def _forget_child(argument: str) -> None:
    """A child that comes back from the handler, as after a careless fork."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)


def _close_all(argument: str) -> None:
    os.closerange(0, 4096)


def _leak(argument: str) -> None:
    """Every descriptor that this process may have."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    try:
        while True:
            os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return


DEEDS: dict[str, Callable[[str], Any]] = {
    "sleep": lambda argument: time.sleep(float(argument)),
    "wait": _wait,
    "hang": lambda argument: time.sleep(3600),
    "fail": _fail,
    "exit": lambda argument: os._exit(int(argument)),
    "sysexit": _system_exit,
    "interrupt": _interrupt,
    "segfault": _segfault,
    "fork": _forget_child,
    "closeall": _close_all,
    "leak": _leak,
}
