"""Waits until the queues of a pool have nothing left to do, and ends it: `maildefer supervise --drain`.

It looks at the queues' folders, where other hosts' claims are as well; the supervisor itself touches no mount.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from maildefer.host import runtime_dir, status_socket
from maildefer.maildir import scan
from maildefer.maildir.due import clock_of
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import due_of

_LOOK_SECONDS: Final = 0.3
_UNSEEN_SECONDS: Final = 60.0  # with nothing else left; a fenced queue is joined anew sooner
# A terminal sends INT to the pool as well.
_FORWARDED: Final = (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferredRest:
    """The entries of a queue that were not due when nothing else was left."""

    queue: str
    count: int
    next_due: int


@dataclass(frozen=True, slots=True)
class _Look:
    """Queues with nothing left but deferred entries, and by path, why others can't be seen."""

    rests: list[DeferredRest] = field(default_factory=list)
    unseen: dict[str, str] = field(default_factory=dict)


def wait_until_drained(
    pid: int, pidfile: str, report: Callable[[DeferredRest], object], complain: Callable[[str, str], object]
) -> int:
    """Wait for the pool, a child of this process, to have nothing left, end it, and return its exit code.

    Nothing is left when two looks in a row show no entry that waits, is claimed or is due: an entry that was handed on
    behind the first look's back is seen by the second. What signals ask of this process is asked of the pool.
    Where for a minute only queues are left that the pool can't join, or that can't be listed, `complain` is called
    with the path of each and why, the pool is ended, and the code is EX_TEMPFAIL.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for signum in _FORWARDED:
        signal.signal(signum, lambda number, frame: os.kill(pid, number))
    empty, is_asked, is_given_up, unseen_since = 0, False, False, 0.0
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        look = None if is_asked else _look(pid, pidfile)
        empty = 0 if look is None or look.unseen else empty + 1
        if look is None or not look.unseen:
            unseen_since = time.monotonic()
        if look is not None and empty == 2:
            for rest in look.rests:
                report(rest)
            os.kill(pid, signal.SIGUSR2)  # which says why, as the TERM of an operator does not
            is_asked = True
        elif look is not None and time.monotonic() - unseen_since >= _UNSEEN_SECONDS:
            for path, why in look.unseen.items():
                complain(path, why)
            os.kill(pid, signal.SIGTERM)
            is_asked = is_given_up = True
        time.sleep(_LOOK_SECONDS)
    code = os.waitstatus_to_exitcode(ended[1])
    if code == 0 and is_given_up:
        return os.EX_TEMPFAIL
    return code if code >= 0 else 128 - code


def _look(pid: int, pidfile: str) -> _Look | None:
    """Look at all queues of the pool; None while anything is left in one of them, or the pool does not tell."""
    try:
        status: dict[str, Any] = status_socket.ask_status(runtime_dir.socket_path(pidfile))
        queues = [(str(queue["path"]), queue["state"]) for queue in status["queues"] if not queue["guest"]]
        if status["pid"] != pid:
            return None
    except (OSError, ValueError, LookupError, TypeError):  # the pool is not there yet
        return None
    look = _Look()
    for path, state in queues:
        try:
            rest = _rest(Layout(path)) if state == "served" else None
        except OSError as fault:
            look.unseen[path] = f"it can't be listed: {fault.strerror}"
            continue
        if state != "served":
            look.unseen[path] = "the pool can't join it: the log says why"
        elif rest is None:
            return None
        elif rest.count:
            look.rests.append(rest)
    return look


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
