"""Handlers' logging comes out in the pool's own form of line."""

from __future__ import annotations

import json
import re
import subprocess
import sys

PROGRAM = """
import {module}
from maildefer import events, logs
events.configure("{format}")
logs.adopt()
{statement}
"""


def lines_of(module: str, statement: str, format: str = "logfmt") -> list[str]:
    program = PROGRAM.format(module=module, statement=statement, format=format)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stderr.splitlines()


def test_what_a_handler_logs_is_an_event_line() -> None:
    (line,) = lines_of("logging", 'logging.getLogger("blog").info("published %s", "a post")')
    assert 'event=handler.logged level=info logger=blog message="published a post"' in line


def test_a_traceback_can_be_read_on_a_terminal_and_forges_no_line_there() -> None:
    detail = "Traceback:\n  boom \x1b[2J\n12:00:00.000 entry.acked"
    statement = f"events.emit('application.broken', error='x', detail={detail!r})"
    first, *more = lines_of("json", statement, "console")
    assert "application.broken error=x" in first
    assert more == ["    | Traceback:", "    |   boom \\x1b[2J", "    | 12:00:00.000 entry.acked"]


def test_a_logged_exception_brings_its_traceback_in_the_same_line() -> None:
    (line,) = lines_of("logging", "try: 1 / 0\nexcept ZeroDivisionError: logging.exception('no')")
    assert "ZeroDivisionError" in line
    assert "traceback=" in line


def test_structlog_writes_the_same_form_of_line() -> None:
    (line,) = lines_of("structlog", 'structlog.get_logger().bind(post="x").warning("rebuilt", took=3)')
    assert "event=handler.logged level=warning message=rebuilt" in line
    assert "post=x took=3" in line


def test_json_is_spoken_by_both_where_the_pool_speaks_it() -> None:
    (line,) = lines_of("structlog", 'structlog.get_logger().info("hello", n=1)', format="json")
    assert '"event": "handler.logged", "level": "info", "message": "hello", "n": 1' in line


def test_an_application_that_configured_logging_itself_keeps_it() -> None:
    (line,) = lines_of("logging; logging.basicConfig(format='mine %(message)s')", 'logging.error("x")')
    assert line == "mine x"


def test_nothing_is_imported_for_an_application_that_does_not_log() -> None:
    statement = "import sys\nassert 'structlog' not in sys.modules and 'logging' not in sys.modules"
    assert lines_of("os", statement) == []


ATTEMPT = """
from maildefer import events
from maildefer.pool.attempts import AttemptLog
events.configure("{format}")
log = AttemptLog()
log.add("run/queue", "k", "blog.POSTING", "acked", 1, 0.00625, 1.0)
log.add("run/queue", "k", "blog.POSTING", "deferred", 2, 90.0, 1.0, reason="not now")
log.flush()
events.emit("pool.draining", limit_ms=events.ms(3600.0))
"""


def attempts(format: str) -> list[str]:
    program = [sys.executable, "-c", ATTEMPT.format(format=format)]
    return subprocess.run(program, capture_output=True, text=True, check=True).stderr.splitlines()


def test_an_attempts_line_is_timed_in_milliseconds_as_all_lines_are() -> None:
    quick, slow, other = attempts("logfmt")
    for line in (quick, slow, other):
        assert re.match(r"ts=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z event=", line)
    assert " duration_ms=6.250 " in quick
    assert " duration_ms=90000 " in slow
    assert other.endswith(" limit_ms=3600000")


def test_json_and_console_tell_the_same_durations() -> None:
    assert [json.loads(line).get("duration_ms") for line in attempts("json")] == [6.25, 90000, None]
    quick, slow, _ = attempts("console")
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} attempt.ended      queue=run/queue key=k ", quick)
    assert " duration_ms=6.25" in quick
    assert " duration_ms=90000" in slow
