"""Waits until the queues of a pool have nothing left to do, and ends it: `maildefer supervise --drain`.

It looks at the queues' folders, where other hosts' claims are as well; the supervisor itself touches no mount.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from maildefer.host import runtime_dir, status_socket
from maildefer.maildir import scan
from maildefer.maildir.due import clock_of
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import due_of

_LOOK_SECONDS: Final = 0.3
_FORWARDED: Final = (
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGHUP,
)  # a terminal sends INT to the pool as well


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferredRest:
    """The entries of a queue that were not due when nothing else was left."""

    queue: str
    count: int
    next_due: int


def wait_until_drained(pid: int, pidfile: str, report: Callable[[DeferredRest], object]) -> int:
    """Wait for the pool, a child of this process, to have nothing left, end it, and return its exit code.

    Nothing is left when two looks in a row show no entry that waits, is claimed or is due: an entry that was handed on
    behind the first look's back is seen by the second. What signals ask of this process is asked of the pool.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for signum in _FORWARDED:
        signal.signal(signum, lambda number, frame: os.kill(pid, number))
    empty, asked = 0, False
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        rests = None if asked else _rests(pid, pidfile)
        empty = 0 if rests is None else empty + 1
        if rests is not None and empty == 2:
            for rest in rests:
                report(rest)
            os.kill(pid, signal.SIGUSR2)  # which says why, as the TERM of an operator does not
            asked = True
        time.sleep(_LOOK_SECONDS)
    code = os.waitstatus_to_exitcode(ended[1])
    return code if code >= 0 else 128 - code


def _rests(pid: int, pidfile: str) -> list[DeferredRest] | None:
    """What is deferred in each queue of the pool; None while anything is left, or where that can't be seen."""
    try:
        status: dict[str, Any] = status_socket.ask_status(runtime_dir.socket_path(pidfile))
        queues = [queue for queue in status["queues"] if not queue["guest"]]
        if status["pid"] != pid or any(queue["state"] != "served" for queue in queues):
            return None
        found = [_rest(Layout(queue["path"])) for queue in queues]
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
    ):  # the pool is not there yet; the mount's fault may pass
        return None
    return None if None in found else [rest for rest in found if rest is not None and rest.count]


def _rest(layout: Layout) -> DeferredRest | None:
    """What is deferred in the queue; None if anything waits, is claimed or is due.

    In the order in which entries move, once round, so that none moves past the look.
    """
    if any(_is_any(folder) for folder in (layout.new, layout.cur)):
        return None
    dues = [
        due_of(name) or 0 for folder in (layout.later_new, layout.later_cur) for name in scan.entries(folder)
    ]
    now = clock_of(layout).now()
    if any(due <= now for due in dues) or any(_is_any(folder) for folder in (layout.new, layout.cur)):
        return None
    return DeferredRest(queue=layout.path, count=len(dues), next_due=min(dues, default=0))


def _is_any(folder: str) -> bool:
    return next(scan.entries(folder), None) is not None
