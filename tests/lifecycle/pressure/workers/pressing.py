"""Handlers that do to their process what one should not; the recipient says which: `exit3@test`."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from typing import Any

from maildefer.routing import Defer, Reject, route, stateless
from workers.deeds import DEEDS
from workers.journal import note

hoard: list[object] = []


@route("(what)(argument)@test")
@stateless
def HANDLE(message: Any, what: str, argument: str) -> None:
    note("start", message)
    ACTIONS[what](argument)
    note("end", message)


def _abort(argument: str) -> None:
    """As the C library does when it has no memory left for itself."""
    os.abort()


def _little_memory_left(argument: str) -> None:
    """A limit so many MB above what is in use."""
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + (int(argument) << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _eat(argument: str) -> None:
    """More than there is: MemoryError, and what it had is free again."""
    _little_memory_left(argument)
    mine = []
    while True:
        mine.append(bytearray(1 << 20))


def _gorge(argument: str) -> None:
    """All there is, and keeps it, down to the last kilobytes."""
    _little_memory_left(argument)
    for size in (1 << 20, 1 << 14, 1 << 10):
        try:
            while True:
                hoard.append(bytearray(size))
        except MemoryError:
            continue


def _no_children(argument: str) -> None:
    """A fork that the system refuses, as it does where a limit is reached."""
    raise BlockingIOError(11, "Resource temporarily unavailable")


def _close_and_open(argument: str) -> None:
    """What it opens next has the numbers of what it closed."""
    os.closerange(3, 4096)
    hoard.extend(open("mine", "a+b") for _ in range(40))


def _take_signals(argument: str) -> None:
    """Every signal ignored that can be, the wake-up descriptor taken, all of them blocked."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_IGN)
        except OSError:  # reserved by the C library
            continue
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def _leave_children(argument: str) -> None:
    """Grandchildren of the supervisor that nobody waits for, with every descriptor of their parent."""
    for _ in range(int(argument)):
        if not os.fork():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while os.path.exists("journal"):
                time.sleep(0.05)
            os._exit(0)


def _defer(argument: str) -> None:
    raise Defer("not now", after=float(argument))


def _defer_once(argument: str) -> None:
    if not os.path.exists("again"):
        open("again", "x").close()
        raise Defer("not now", after=float(argument))


def _reject(argument: str) -> None:
    """When the test says so."""
    DEEDS["wait"](argument)
    raise Reject("never")


ACTIONS: dict[str, Callable[[str], Any]] = {
    **DEEDS,
    "quick": lambda argument: None,
    "defer": _defer,
    "once": _defer_once,
    "reject": _reject,
    "abort": _abort,
    "eat": _eat,
    "gorge": _gorge,
    "nochildren": _no_children,
    "closeandopen": _close_and_open,
    "signals": _take_signals,
    "children": _leave_children,
}
