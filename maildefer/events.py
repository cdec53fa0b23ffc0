"""Log events: each has a constant name and facts as keys, and is one line on standard error.

A pool has many small processes, so this module renders lines by itself, without structlog (18 MB a process).
The command line, and handlers' own logging, write the same line format by structlog: see `maildefer.logs`.
The line of each attempt is on the hot path: `maildefer.pool.attempt_log` makes it, and `write` below writes it.
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
_BARE: Final = re.compile(r"[!#-\[\]-~]+").fullmatch  # printable ASCII except space, quote and backslash

_TRACES: Final = ("traceback", "detail")  # the facts that may have many lines

EVENTS: Final[dict[str, str]] = {
    "attempt.ended": "one attempt at an entry ended, with its outcome (the canonical line)",
    "entry.returned": "an entry that a mail reader had moved to cur/ was moved back to new/",
    "entry.promoted": "a deferred entry was due, and was moved to new/",
    "entry.buried": "an entry was moved to the dead letters",
    "entry.unreadable": "an entry could not be read because of a fault of the storage; it was released uncharged",
    "claim.taken": "a single receiver claimed a message; with its key, peer, sender and recipient",
    "claim.lost": "a settle found that its lease was fenced and its claim reclaimed",
    "settle.delayed": "the filesystem refused the settle of a handled entry; it is tried again until it succeeds",
    "claim.reclaimed": "a dead owner's claim was reclaimed, and the crash was charged",
    "claim.released": "a claim that no worker holds was released uncharged",
    "token.freed": "tokens of conversations or limits, of a dead worker, were reclaimed",
    "limit.reached": "a limit has no slot free; messages wait for it, of which nothing more is told until none does",
    "destination.closed": "no server of a destination could be reached; its messages wait, and one at a time tries it",
    "destination.opened": "a destination that was closed has answered; its messages go on",
    "limit.unkept": "a single receiver runs a handler without its limits, which only pools keep",
    "limit.overlapped": "slots of a dead host were reclaimed; until its workers are killed, so many more may run",
    "lease.joined": "a supervisor joined a queue",
    "lease.left": "a supervisor left a queue in good order",
    "lease.kept": "the pool ended before it could leave its leases (a mount may hang); other hosts will fence them",
    "lease.fenced": "a lease that was silent for the TTL was fenced",
    "lease.lost": "the pool's own lease was fenced; the workers that hold claims under it are killed",
    "join.failed": "a queue could not be joined, since it can't be opened or no lease be written; this is tried again",
    "beat.failed": "a lease could not be renewed; nothing is claimed under it until it can",
    "takeback.failed": "a dead worker's claims could not be reclaimed; this is tried again after growing pauses",
    "fence.failed": "the leases of other hosts could not be read, or a silent one could not be fenced",
    "reclaim.failed": "claims that nobody holds could not be reclaimed",
    "promotion.failed": "deferred entries that are due could not be moved to new/",
    "tick.pushed": "a call of a periodic task was pushed for an instant of its schedule, by this host",
    "tick.skipped": "an instant of a periodic task was left out, since the call of the last one has not ended",
    "tick.ahead": "a periodic task's last instant was over an hour ahead of the mount's clock, and is set to now",
    "tick.failed": "a call of a periodic task could not be pushed; this is tried again",
    "listing.failed": "the deferred entries could not be listed",
    "return.failed": "an entry that a mail reader had moved could not be moved back",
    "folders.failed": "missing folders of the queue could not be made again",
    "token.failed": "conversation tokens of a dead worker could not be reclaimed",
    "share.failed": "this host's share of the queue could not be computed",
    "request.failed": "a request of another host could not be read or removed",
    "pause.failed": "the mark that pauses the queue on all hosts could not be looked for; the last known state counts",
    "status.failed": "the status file for other hosts could not be written",
    "clock.failed": "the mount's time could not be read; the last known offset counts",
    "journal.failed": "records of a queue's journal could not be written; the audit misses them",
    "sweep.failed": "files that crashes left behind could not be removed",
    "chore.recovered": "a chore of the keeper that had failed succeeded again",
    "host.duplicated": "another live host has this host's name: give each a MAILDEFER_HOST_ID of its own",
    "clock.differs": "this host's clock and the mount's differ by over a minute",
    "queue.paused": "the pool claims nothing from this queue for now",
    "queue.resumed": "the pool claims from this queue again",
    "queue.waiting": "a single receiver has nothing to do until the next message comes",
    "queue.unwatched": "no inotify watch could be had, so that new entries are found by polling alone",
    "queue.watched": "an inotify watch was set again, so that entries of local writers are found at once",
    "queue.vanished": "the queue's directory is gone",
    "queue.joined": "the queue's directory, which was gone, is back",
    "queue.unsafe": "the queue is on a mount on which messages may be lost",
    "pool.started": "the supervisor has started",
    "pool.draining": "the pool claims nothing any more, and finishes the messages in hand",
    "pool.stopped": "the supervisor ends; with the reason",
    "pool.reloading": "the workers are replaced one at a time",
    "pool.resized": "the pool has one worker more or one fewer",
    "pool.paused": "the pool claims nothing until it is resumed",
    "pool.resumed": "the pool claims again",
    "pool.throttled": "children die soon after their start; they are forked less often",
    "fork.failed": "the system refused to fork another process; this is tried again",
    "pidfile.failed": "the pid file could not be written or removed",
    "scan.failed": "new/ could not be listed, or its names could not be offered; this is tried again",
    "setting.misspelled": "the settings have a name that is none, and is nearly one; it counts for nothing",
    "application.broken": "settings or handlers could not be loaded",
    "worker.started": "a worker is ready",
    "worker.ended": "a worker ended in good order",
    "worker.died": "a worker died",
    "worker.timed_out": "a handler exceeded its time limit; its worker was killed",
    "worker.recycled": "a worker is replaced, for its memory, a lack of memory or descriptors, or an error of ours",
    "child.started": "a keeper, a scout, an intake process or a monitor has started",
    "child.died": "a keeper, a scout, an intake process or a monitor died",
    "child.misbehaved": "a child sent an invalid message or report; it is killed and replaced",
    "request.received": "another host left a request in the queue",
    "intake.listening": "the front end accepts connections",
    "intake.accepted": "a message is durable for all its recipients",
    "intake.refused": "a recipient or a message was refused",
    "intake.authenticated": "a client authenticated by AUTH",
    "intake.stale": "new settings, a certificate or a file of passwords or tokens can't be used; the old ones stay",
    "intake.cramped": "the process may not open the files that its limit of connections needs, or can open none now",
    "intake.closed": "the queue takes no mail for now (452): its backlog or the free space has reached its limit",
    "intake.opened": "the queue takes mail again",
    "entry.expired": "a dead letter was deleted for its age, as dead_retention says",
    "alert.told": "the command of alerts was run",
    "alert.failed": "the command of alerts could not be run, took too long or failed",
    "monitor.listening": "health and metrics are answered for by HTTP",
    "monitor.failed": "the address of health_config can't be listened on; the pool goes on without it",
    "policy.failed": "a policy raised an exception, crashed or took too long; the recipient was refused for now",
    "route.slow": "a route took too long to say whether it matches; recipients are no longer checked against it",
    "notice.sent": "a report that a message is given up was pushed to its sender; with the report's key",
    "notice.withheld": "no report goes to the sender of a message that is given up; with the reason",
    "notice.failed": "a report to the sender of a message that is given up could not be pushed, and is left out",
    "answer.withheld": "an answer to an automatic message was not sent; with the sign by which it was known for one",
    "entry.delivered": "a next server took a message of the outgoing queue; with its words",
    "handler.failed": "a handler raised an exception; with its traceback",
    "handler.logged": "a record that a handler logged by logging or structlog",
    "handler.printed": "text that a handler, or code that it calls, wrote to standard output or error",
    "log.unusable": "the log file could not be opened again; the old file stays in use",
}

_ERRORS: Final = frozenset(
    "application.broken child.died child.misbehaved entry.buried lease.kept lease.lost log.unusable queue.vanished"
    " worker.died".split()
)
_WARNINGS: Final = frozenset(
    "claim.lost claim.reclaimed clock.differs destination.closed entry.unreadable intake.closed intake.cramped"
    " intake.stale lease.fenced monitor.failed pool.throttled queue.paused queue.unsafe route.slow setting.misspelled"
    " settle.delayed worker.timed_out".split()
)

_format: Format = "logfmt"
_level: Level = "info"
_context: dict[str, object] = {}
_log_file: str | None = None
_descriptor = 2


def configure(
    format: str | None = None, log_file: str | None = None, level: str | None = None, **context: object
) -> None:
    """Set the format, the destination and the lowest level of lines, and the facts that each line of this process has.

    Called in each process before its first event. Without a format or level, `MAILDEFER_LOG_FORMAT` and
    `MAILDEFER_LOG_LEVEL` decide, then whether standard error is a terminal. With `log_file`, standard error of this
    process and of its children is redirected to that file from now on.
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
    """Raise ConfigurationError, before a process starts, if the log file can't be opened."""
    try:
        os.close(_opened(log_file))
    except OSError as fault:
        raise ConfigurationError(
            f"the log can't go to {log_file}: {fault.strerror}: see to its folder and permissions, "
            "or choose another file"
        ) from fault


def reopen() -> None:
    """Open the log file again, after it was moved away (`USR1`); without a log file, do nothing."""
    if _log_file is None:
        return
    try:
        descriptor = _opened(_log_file)
    except OSError as fault:  # the old file stays in use
        emit("log.unusable", path=_log_file, error=str(fault))
        return
    os.dup2(descriptor, _descriptor, inheritable=_descriptor == 2)
    os.close(descriptor)


def _opened(log_file: str) -> int:
    return os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)


def write_log_to(descriptor: int) -> None:
    """Write the log to this descriptor, a copy of descriptor 2, so that 2 can be used for other output."""
    global _descriptor
    _descriptor = descriptor


def descriptor() -> int:
    """Return the descriptor of the log: 2, unless handlers' output is kept apart from it."""
    return _descriptor


def current_format() -> Format:
    return _format


def current_level() -> Level:
    return _level


def current_log_file() -> str | None:
    return _log_file


def emit(event: str, **facts: object) -> None:
    """Write one event line. Raises nothing if standard error is broken: a full log disk must not stop the mail."""
    assert event in EVENTS, f"{event} is not in the table of events"
    if shows(event):
        write(line(event, facts) + "\n")


def line(event: str, facts: dict[str, object]) -> str:
    """Render an event with the present time; returns the line without its line end."""
    return render(event, _context | facts, time.time())


def level_of(event: str) -> Level:
    """Return the level of an event: error or warning where a message or a process is, or may soon be, in trouble."""
    if event in _ERRORS:
        return "error"
    return "warning" if event in _WARNINGS or event.endswith(".failed") else "info"


def shows(event: str) -> bool:
    """Whether events of this name are written at the configured level."""
    return _LEVELS.index(level_of(event)) >= _LEVELS.index(_level)


def render(event: str, facts: dict[str, object], when: float) -> str:
    """Render one line without its line end, in the configured format. Facts that are None are left out.

    Times are UTC, to the millisecond; durations are in milliseconds, and their names end in `_ms`.

    In the console format a traceback follows in lines of its own; each begins with a bar, so that it can't be taken
    for an event.
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
    """Convert a duration to milliseconds, the unit of all durations in the log; the fact's name ends in `_ms`."""
    return round(seconds * 1000, 3) if abs(seconds) < 1 else round(seconds * 1000)


def plain(text: str) -> str:
    """Escape all characters that are not printable, so that a text can't move the cursor or forge a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def quoted(value: object) -> str:
    """Render a fact's value for a logfmt line: unquoted if possible, else a JSON string, which can't forge a line."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if _BARE(text) else json.dumps(text)


def write(text: str) -> None:
    """Write rendered lines to the log by one call; what the descriptor does not take is lost."""
    data = text.encode("utf-8", "backslashreplace")
    try:
        os.write(_descriptor, data)
    except OSError as fault:  # a closed pipe or a full disk: logging must never end a worker
        if fault.errno == errno.EBADF and _descriptor != 2:
            _write_printed(data)


def _write_printed(data: bytes) -> None:
    """Write to descriptor 2 after a handler has closed the log's: the supervisor logs what its worker writes there."""
    try:
        os.write(2, data)
    except OSError:  # the handler has closed descriptor 2 as well
        pass


Emit = Callable[..., None]

if sys.stderr is None:  # started without descriptors: keep 2 from becoming somebody's file
    os.open(os.devnull, os.O_WRONLY)
