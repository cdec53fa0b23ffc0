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
from functools import lru_cache
from typing import Final, Literal, cast, get_args

from maildefer.errors import ConfigurationError
from maildefer.event_table import ERRORS, EVENTS, WARNINGS

Format = Literal["console", "logfmt", "json"]
Level = Literal["debug", "info", "warning", "error"]
_LEVELS: Final = get_args(Level)
_ALL: Final = ("debug", "info")  # no event has the level debug
_escaped = json.JSONEncoder().encode
_BARE: Final = re.compile(r"[!#-\[\]-~]+").fullmatch  # printable ASCII except space, quote and backslash

_TRACES: Final = ("traceback", "detail")  # the facts that may have many lines

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
    if event in ERRORS:
        return "error"
    return "warning" if event in WARNINGS or event.endswith(".failed") else "info"


def shows(event: str) -> bool:
    """Whether events of this name are written at the configured level."""
    return _level in _ALL or _LEVELS.index(level_of(event)) >= _LEVELS.index(_level)


def render(event: str, facts: dict[str, object], when: float) -> str:
    """Render one line without its line end, in the configured format. Facts that are None are left out.

    Times are UTC, to the millisecond; durations are in milliseconds, and their names end in `_ms`.

    In the console format a traceback follows in lines of its own; each begins with a bar, so that it can't be taken
    for an event.
    """
    stamp = f"{_date(int(when // 1))}.{int(when % 1 * 1000):03d}Z"
    if _format == "logfmt":
        return " ".join(
            [f"ts={stamp} event={event}", *[f"{k}={quoted(v)}" for k, v in facts.items() if v is not None]]
        )
    facts = {key: value for key, value in facts.items() if value is not None}
    if _format == "json":
        return json.dumps({"ts": stamp, "event": event, **facts}, default=str)
    traces = [str(facts.pop(name)) for name in _TRACES if name in facts]
    line = f"{stamp[11:23]} {event:<18} " + " ".join(f"{k}={quoted(v)}" for k, v in facts.items())
    return "\n".join([line, *(f"    | {plain(one)}" for trace in traces for one in trace.splitlines())])


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


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
    if isinstance(value, str):
        return value if _BARE(value) else _escaped(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if _BARE(text) else _escaped(text)


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
