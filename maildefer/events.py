"""Log events: constant names, facts as keys, one line each on standard error.

The processes of a pool are many and small, so this is a renderer of its own, without structlog (18 MB a process);
at the edges (command line, handlers' own logging) structlog writes the same line format: see `maildefer.logs`.
The line of each attempt is on the hot path and comes ready made from `pool.attempts`, through `write` below.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Final, Literal, cast, get_args

from maildefer.errors import ConfigurationError

Format = Literal["console", "logfmt", "json"]
Level = Literal["debug", "info", "warning", "error"]
_LEVELS: Final = get_args(Level)
_BARE: Final = re.compile(r"[!#-\[\]-~]+").fullmatch  # printable ASCII but for space, quote and backslash

_TRACES: Final = ("traceback", "detail")  # the facts that have many lines

EVENTS: Final[dict[str, str]] = {
    "attempt.ended": "one attempt at an entry, with its outcome (the canonical line)",
    "entry.returned": "a mail reader had moved an entry to cur/; it is back in new/",
    "entry.promoted": "a deferred entry is due",
    "entry.buried": "an entry is in the dead letters",
    "entry.unreadable": "an entry can't be read for a fault that isn't its own; released uncharged",
    "claim.taken": "a single receiver begins with a message: its key, peer, sender and recipient",
    "claim.lost": "a settle found that its claim had been fenced and taken back",
    "settle.delayed": "the filesystem does not take what a handler's outcome wants; tried until it does",
    "claim.reclaimed": "a dead owner's claim was taken back and its crash charged",
    "claim.released": "a claim that no worker is on was given back uncharged",
    "token.freed": "conversations whose worker is gone may go on",
    "lease.joined": "a supervisor takes part in a queue",
    "lease.left": "a supervisor left a queue in good order",
    "lease.kept": "the pool ended before its leases could be left (a mount hangs?); other hosts will fence them",
    "lease.fenced": "a lease that was silent for the TTL was ended",
    "lease.lost": "our own lease was fenced; the workers on its claims are killed",
    "join.failed": "no part in a queue yet: it can't be opened, or no lease be written; tried again",
    "beat.failed": "a lease could not be renewed; no claims until it can",
    "takeback.failed": "a dead worker's claims could not be taken back; tried again, each time later",
    "fence.failed": "the others' leases could not be looked at, or one that is over not be ended",
    "reclaim.failed": "claims that nobody holds could not be given back",
    "promotion.failed": "deferred entries that are due could not be moved to new/",
    "listing.failed": "the deferred entries could not be listed",
    "return.failed": "what a mail reader moved to cur/, or in .later/, could not be moved back",
    "folders.failed": "missing folders of the queue could not be made again",
    "token.failed": "conversations whose worker is gone could not be freed",
    "share.failed": "this host's share of the queue is not known",
    "request.failed": "what was asked through the mount could not be read or consumed",
    "pause.failed": "whether the queue is paused on all hosts could not be seen; what was known last counts",
    "status.failed": "the status file for other hosts could not be written",
    "clock.failed": "the mount's time could not be read; the last known offset counts",
    "journal.failed": "records of a queue's journal can't be written: the audit is blind until they can",
    "sweep.failed": "what crashes left could not be cleared away",
    "chore.recovered": "a keeper's chore that failed is done again",
    "host.duplicated": "another live host has this host's name: give each a MAILDEFER_HOST_ID of its own",
    "clock.differs": "this host's clock and the mount's differ by over a minute",
    "queue.paused": "no claims from this queue for now",
    "queue.resumed": "claims again",
    "queue.waiting": "a single receiver has nothing to do until the next message comes",
    "queue.unwatched": "new entries are found by polling alone: there is no inotify watch to be had",
    "queue.watched": "local writers are heard of at once again",
    "queue.vanished": "the queue's directory went away",
    "queue.joined": "the queue's directory, which had gone away, is back",
    "queue.unsafe": "a mount on which something may be lost",
    "pool.started": "the supervisor is up",
    "pool.draining": "no new claims; messages in hand are finished",
    "pool.stopped": "the supervisor ends, with its reason",
    "pool.reloading": "workers are replaced one at a time",
    "pool.resized": "one worker more or fewer",
    "pool.paused": "no claims until resumed",
    "pool.resumed": "claims again",
    "pool.throttled": "children die at once; they are forked more slowly",
    "fork.failed": "the machine refuses a process more; tried again",
    "pidfile.failed": "the pid file could not be written or removed",
    "scan.failed": "new/ could not be listed or its names not be offered; tried again",
    "application.broken": "settings or handlers can't be loaded",
    "worker.started": "a worker is ready",
    "worker.ended": "a worker left in good order",
    "worker.died": "a worker died",
    "worker.timed_out": "a handler was over its time limit; its worker was killed",
    "worker.recycled": "a worker has handled its share, or is over its memory limit",
    "child.started": "keeper, scout or intake is up",
    "child.died": "keeper, scout or intake died",
    "child.misbehaved": "what a child said is no message of its kind; but for a scout, it is killed and replaced",
    "request.received": "another host asked for something through the mount",
    "intake.listening": "the front end takes connections",
    "intake.accepted": "a message is durable for all its recipients",
    "intake.refused": "a recipient or a message was refused",
    "intake.authenticated": "a client has proved by AUTH who it is",
    "intake.stale": "settings, a certificate or a file of passwords or tokens can't be taken over; the old ones stay",
    "intake.cramped": "the process may not open as many files as its limit of connections needs, or none at all now",
    "intake.closed": "the queue can take no more for now (452): its backlog or the free space has reached its limit",
    "intake.opened": "it can take more again",
    "policy.failed": "a policy raised, crashed or took too long; its recipient was refused for now",
    "route.slow": "a route takes too long to tell whether it matches; recipients are no longer checked against it",
    "handler.failed": "a handler raised; its traceback",
    "handler.logged": "what a handler said through logging",
    "handler.printed": "what a handler, or what it calls, wrote to standard output or error",
    "log.unusable": "the log file can't be opened anew; the log goes on as before",
}

_ERRORS: Final = frozenset(
    "application.broken child.died child.misbehaved entry.buried lease.kept lease.lost log.unusable queue.vanished"
    " worker.died".split()
)
_WARNINGS: Final = frozenset(
    "claim.lost claim.reclaimed clock.differs entry.unreadable intake.closed intake.cramped intake.stale lease.fenced"
    " pool.throttled queue.paused queue.unsafe route.slow settle.delayed worker.timed_out".split()
)

_format: Format = "logfmt"
_level: Level = "info"
_context: dict[str, object] = {}
_log_file: str | None = None
_descriptor = 2


def configure(
    format: str | None = None, log_file: str | None = None, level: str | None = None, **context: object
) -> None:
    """Choose format, destination and least level of lines, and the facts that every line of this process carries.

    Called in each process before its first event; without a format or level, `MAILDEFER_LOG_FORMAT` and
    `MAILDEFER_LOG_LEVEL` decide, then whether standard error is a terminal. With `log_file`, standard error goes there
    from now on, children's too.
    """
    global _format, _level, _log_file
    if log_file is not None:
        _log_file = log_file
        reopen()
    chosen = format or os.environ.get("MAILDEFER_LOG_FORMAT", "")
    if chosen in get_args(Format):
        _format = cast(Format, chosen)
    else:
        _format = "console" if os.isatty(2) else "logfmt"
    least = level or os.environ.get("MAILDEFER_LOG_LEVEL", "")
    _level = cast(Level, least) if least in _LEVELS else "info"
    _context.update(context)


def must_open(log_file: str) -> None:
    """For who starts: raises ConfigurationError where the log would not get there."""
    try:
        os.close(_opened(log_file))
    except OSError as fault:
        raise ConfigurationError(
            f"the log can't go to {log_file}: {fault.strerror}: see to its folder and permissions, "
            "or choose another file"
        ) from fault


def reopen() -> None:
    """Open the log file anew, after it was moved away (`USR1`); nothing to do where there is none."""
    if _log_file is None:
        return
    try:
        descriptor = _opened(_log_file)
    except OSError as fault:  # the old one goes on
        emit("log.unusable", path=_log_file, error=str(fault))
        return
    os.dup2(descriptor, _descriptor, inheritable=_descriptor == 2)
    os.close(descriptor)


def _opened(log_file: str) -> int:
    return os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)


def set_apart(descriptor: int) -> None:
    """Have the log go there, where descriptor 2 led, which is free for others from now on."""
    global _descriptor
    _descriptor = descriptor


def descriptor() -> int:
    """Where the log is written: 2, but where handlers' output is set apart from it."""
    return _descriptor


def current_format() -> Format:
    return _format


def current_level() -> Level:
    return _level


def current_log_file() -> str | None:
    return _log_file


def emit(event: str, **facts: object) -> None:
    """Write one event line. Never raises for a broken standard error: a full log disk must not stop the mail."""
    assert event in EVENTS, f"{event} is not in the table of events"
    if shows(event):
        write(line(event, facts) + "\n")


def line(event: str, facts: dict[str, object]) -> str:
    """One event of now, ready to be written but for its end."""
    return render(event, _context | facts, time.time())


def level_of(event: str) -> Level:
    """How much it matters: whether a message or a process is worse off for it, or may soon be."""
    if event in _ERRORS:
        return "error"
    return "warning" if event in _WARNINGS or event.endswith(".failed") else "info"


def shows(event: str) -> bool:
    """Whether the log is to have lines of that event."""
    return _LEVELS.index(level_of(event)) >= _LEVELS.index(_level)


def render(event: str, facts: dict[str, object], when: float) -> str:
    """One line without its end, in the configured format. Facts that are None are left out.

    All times are UTC, in milliseconds; so are durations, whose names end in `_ms`.

    On a terminal, a traceback follows in lines of its own; each begins with a bar, so that none passes for an event.
    """
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(when)) + f".{int(when % 1 * 1000):03d}Z"
    facts = {key: value for key, value in facts.items() if value is not None}
    if _format == "json":
        return json.dumps({"ts": stamp, "event": event, **facts}, default=str)
    if _format == "console":
        traces = [str(facts.pop(name)) for name in _TRACES if name in facts]
        line = f"{stamp[11:23]} {event:<18} " + " ".join(f"{k}={quoted(v)}" for k, v in facts.items())
        return "\n".join([line, *(f"    | {plain(one)}" for trace in traces for one in trace.splitlines())])
    return " ".join([f"ts={stamp}", f"event={event}", *(f"{k}={quoted(v)}" for k, v in facts.items())])


def ms(seconds: float) -> float:
    """A duration as events tell it, in the one unit of the log: its fact's name ends in `_ms`."""
    return round(seconds * 1000, 3) if abs(seconds) < 1 else round(seconds * 1000)


def plain(text: str) -> str:
    """With whatever is not printable escaped, so that nothing moves the cursor or forges a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def quoted(value: object) -> str:
    """A fact's value for a logfmt line: bare where it can be, else a JSON string, so no value can forge a line."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if _BARE(text) else json.dumps(text)


def write(text: str) -> None:
    """Write ready lines to standard error in one call, as far as it takes them."""
    data = text.encode("utf-8", "backslashreplace")
    try:
        os.write(_descriptor, data)
    except OSError as fault:  # a closed pipe or a full disk: logging must never end a worker
        if fault.errno == errno.EBADF and _descriptor != 2:
            _write_printed(data)


def _write_printed(data: bytes) -> None:
    """A handler has closed our descriptor: the supervisor tells what its worker has left at 2."""
    try:
        os.write(2, data)
    except OSError:  # and that one, too
        pass


Emit = Callable[..., None]

if sys.stderr is None:  # started without descriptors: keep 2 from becoming somebody's file
    os.open(os.devnull, os.O_WRONLY)
