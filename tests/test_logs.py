"""Handlers' logging comes out in the pool's own form of line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maildefer import event_table, log_context
from tests.sampling import one_fast

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


@pytest.mark.slow
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


def test_structlog_is_loaded_without_what_it_takes_along_for_terminals_and_event_loops() -> None:
    statement = """import sys
assert not {'rich', 'better_exceptions', 'asyncio', 'ssl', 'uuid'} & set(sys.modules)
import asyncio, rich
asyncio.run(structlog.get_logger().ainfo('from a loop'))"""
    (line,) = lines_of("os; from maildefer import logs; logs.load(); import structlog", statement)
    assert 'message="from a loop"' in line


@pytest.mark.parametrize(
    "modules",
    [
        "maildefer.intake.__main__, maildefer.intake.server, maildefer.intake.writer.process",
        "maildefer.intake.http.__main__, maildefer.intake.http.server",
        "maildefer.cli, maildefer.cli.commands.queue, maildefer.cli.commands.status, maildefer.cli.commands.push, "
        "maildefer.cli.commands.sendmail",
        "maildefer.queue, maildefer.routing, maildefer.mail, maildefer.testing",
    ],
)
@pytest.mark.slow
def test_structlog_is_not_loaded_by_front_ends_light_commands_and_programs_that_push(modules: str) -> None:
    program = f"import sys, {modules}\nassert 'structlog' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


HANDLED = """
import logging, sys, threading
import structlog
from contextlib import suppress
from logging.handlers import BufferingHandler
from maildefer import events, logs
from maildefer.handling import handler_marks as marks
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.routes import RoutingBase
from maildefer.message.request import MailRequest
from maildefer.pool.attempt_log import log_failure
events.configure("json")
router = RoutingBase()

def handler(message):
    {body}

marks.mark_stateless(handler)
handler.__module__ = "blog"
router.register_route(".*", handler)
{before}
logs.adopt(processors={processors})
for number in (1, 2):
    message = MailRequest("peer", "ann@example.org", f"post-{{number}}@test", b"Subject: x\\n\\n")
    message.key, message.queue, message.attempt = f"key{{number}}", "run/queue", number
    {deliver}
{after}
"""
DISPATCH = "outcome, name = Dispatcher(router).dispatch(message)"


def handled(
    body: str, *, deliver: str = DISPATCH, before: str = "", processors: str = "()", after: str = ""
) -> list[dict[str, Any]]:
    """What two messages' handlers have logged, line by line."""
    program = HANDLED.format(body=body, deliver=deliver, before=before, processors=processors, after=after)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


def about(line: dict[str, Any]) -> tuple[object, ...]:
    return tuple(line.get(name) for name in log_context.FIELDS)


FIRST = ("key1", "run/queue", "blog.handler", 1, "ann@example.org", "post-1@test")
SECOND = ("key2", "run/queue", "blog.handler", 2, "ann@example.org", "post-2@test")


@one_fast("deliver", [DISPATCH, "router.deliver(message)"])
@pytest.mark.parametrize(
    "body",
    [
        "logging.getLogger('blog').info('here')",
        "structlog.get_logger().info('here')",
        "thread = threading.Thread(target=lambda: logging.info('here')); thread.start(); thread.join()",
        "import asyncio; asyncio.run(asyncio.to_thread(logging.info, 'here'))",
    ],
    ids=["logging", "structlog", "a thread", "a loop's thread"],
)
@pytest.mark.slow
def test_each_line_of_a_handler_tells_its_message(body: str, deliver: str) -> None:
    first, second = handled(body, deliver=deliver, after="logging.info('idle')")[:2]
    assert (first["message"], about(first), about(second)) == ("here", FIRST, SECOND)


def test_a_line_outside_of_handlers_tells_no_message() -> None:
    *_, idle = handled("pass", after="logging.info('idle')")
    assert about(idle) == (None,) * 6


@pytest.mark.slow
def test_a_line_of_a_batch_tells_the_keys_and_what_its_messages_have_in_common() -> None:
    body = "logging.info('here')"
    batch = (
        "log_context.run_handlers("
        "lambda all: (log_context.begin_handler(all, 'blog.batch'), handler(all)), [message, other])"
    )
    other = "from maildefer import log_context; other = MailRequest('peer', 'ann@example.org', 'b@test', b'')"
    first, _ = handled(body, deliver=f"{other}; other.key, other.queue = 'key0', 'run/queue'; {batch}")
    assert (first["keys"], first["messages"], first["handler"]) == ("key1 key0", 2, "blog.batch")
    assert (first["queue"], first["sender"]) == ("run/queue", "ann@example.org")
    assert not {"key", "recipient", "attempt"} & first.keys()


def test_a_call_of_a_task_tells_its_message() -> None:
    task = "from maildefer.tasks import task\n@task\ndef publish(n): logging.info('called %s', n)\n"
    task += "from maildefer.handling.tasks import task as tasks\n"
    task += "tasks.call_in = lambda *_: tasks.Call(task=publish.name, args=[3], kwargs={})\n"
    made = "message = MailRequest('p', 'ann@example.org', publish.address, 'To: x'); "
    made += "message.key, message.queue, message.attempt = 'key1', 'run/queue', 1; "
    made += "from maildefer.handling.routes import Router; Dispatcher(Router).dispatch(message)"
    first, _ = handled("pass", before=task, deliver=made)
    assert (first["message"], first["key"], first["handler"]) == ("called 3", "key1", "__main__.publish")


@pytest.mark.slow
def test_what_a_handler_binds_is_gone_with_its_message() -> None:
    body = "structlog.contextvars.bind_contextvars(**{message.key: 1}); "
    body += "structlog.get_logger().info('x'); logging.info('y')"
    lines = handled(body)
    assert [sorted({"key1", "key2"} & line.keys()) for line in lines] == [
        ["key1"],
        ["key1"],
        ["key2"],
        ["key2"],
    ]


@pytest.mark.slow
def test_extra_facts_of_logging_are_facts() -> None:
    first, _ = handled("logging.info('x', extra={'post': 3})")
    assert first["post"] == 3


@one_fast(
    "body",
    [
        "logging.info('x', extra={})",
        "structlog.get_logger().info('x', **{})",
        "structlog.get_logger().bind(**{}).info('x')",
    ],
    ids=["logging", "structlog", "bound"],
)
def test_what_a_handler_says_overwrites_no_fact_of_the_line(body: str) -> None:
    said = dict.fromkeys(("key", "queue", "attempt", "ts", "level", "logger", "traceback"), "mine")
    if "structlog" in body:
        del said["level"]  # which structlog has itself
    first, _ = handled(body.replace("{}", repr(said)))
    assert about(first) == FIRST
    assert (first["event"], first["message"], first["level"]) == ("handler.logged", "x", "info")
    assert first["ts"].endswith("Z")
    assert {name: first[f"{name}_"] for name in said} == said
    assert "traceback" not in first


@pytest.mark.slow
def test_what_a_handler_says_of_a_batch_passes_for_no_fact_of_one_message() -> None:
    batch = (
        "log_context.run_handlers("
        "lambda all: (log_context.begin_handler(all, 'b'), handler(all)), [message, other])"
    )
    other = "from maildefer import log_context; other = MailRequest('peer', 'ann@example.org', 'b@test', b'')"
    lines = handled(
        "structlog.get_logger().info('x', key='mine', keys='k'); logging.info('x', extra={'recipient': 'me'})",
        deliver=f"{other}; other.key, other.attempt = 'key0', number; {batch}",
    )
    assert [(line.get("key_"), line.get("keys_"), line.get("recipient_")) for line in lines] == [
        ("mine", "k", None),
        (None, None, "me"),
    ] * 2
    assert lines[0]["keys"] == "key1 key0"
    assert not any({"key", "recipient"} & line.keys() for line in lines)


def test_a_record_for_the_projects_own_handlers_keeps_its_facts_too() -> None:
    lines = handled(
        "logging.info('x', extra={'key': 'mine'})",
        before="logging.basicConfig(format='%(key)s %(key_)s %(handler)s'); logging.root.setLevel('INFO')\n"
        "class Line(logging.Formatter):\n"
        "    def format(self, record): return events.line('handler.logged', {'said': super().format(record)})\n"
        "for each in logging.root.handlers: each.setFormatter(Line(each.formatter._fmt))\n"
        "logging.root.addHandler(logging.NullHandler())",
    )
    assert [line["said"] for line in lines] == ["key1 mine blog.handler", "key2 mine blog.handler"]


@pytest.mark.slow
def test_a_record_of_a_batch_has_the_keys_for_the_projects_own_handlers() -> None:
    batch = (
        "log_context.run_handlers("
        "lambda all: (log_context.begin_handler(all, 'blog.batch'), handler(all)), [message, other])"
    )
    other = "from maildefer import log_context; other = MailRequest('peer', 'ann@example.org', 'b@test', b'')"
    lines = handled(
        "logging.info('here')",
        deliver=f"{other}; other.key = 'key0'; {batch}",
        before="class Own(logging.Handler):\n"
        "    def emit(self, record): events.emit('handler.logged', **{n: getattr(record, n) for n in "
        "('key', 'keys', 'messages', 'sender')})\n"
        "logging.root.addHandler(Own()); logging.root.setLevel('INFO')",
        after="logging.info('idle')",
    )
    told = [(line["key"], line["keys"], line["messages"], line["sender"]) for line in lines]
    assert told == [
        ("key1 key0", "key1 key0", 2, "ann@example.org"),
        ("key2 key0", "key2 key0", 2, "ann@example.org"),
        ("-",) * 4,
    ]


@pytest.mark.slow
def test_processors_of_the_project_see_and_change_each_line_of_both() -> None:
    lines = handled(
        "logging.info('secret'); structlog.get_logger().info('secret', n=1); logging.info('drop')",
        before="def hide(logger, method, facts):\n"
        "    if facts['event'] == 'drop': raise structlog.DropEvent\n"
        "    return {**facts, 'event': 'hidden', 'saw': facts['key']}",
        processors="(hide,)",
    )
    assert [(line["message"], line["saw"]) for line in lines] == [("hidden", "key1")] * 2 + [
        ("hidden", "key2")
    ] * 2


def test_a_processor_that_raises_ends_no_handler() -> None:
    lines = handled("logging.info('x')", before="def bad(*_): 1 / 0", processors="(bad,)")
    assert [line["event"] for line in lines] == ["log.unusable"] * 2
    assert "ZeroDivisionError" in lines[0]["error"]


FAIL = DISPATCH + "; log_failure(outcome, message, name, last=number == 2)"


def test_a_handlers_exception_is_logged_as_a_warning_and_as_an_error_the_last_time() -> None:
    recorder = "class Sentry(logging.Handler):\n    def emit(self, record): seen.append(record)\nseen = []\n"
    attach = "logging.getLogger().addHandler(Sentry())"
    first, last, *told = handled(
        "1 / 0",
        before=f"{recorder}logging.getLogger('maildefer.handler')\n{attach}",
        deliver=FAIL,
        after="for record in seen: events.emit('pool.stopped', name=record.name, level=record.levelname,"
        " error=str(record.exc_info[1]), key=record.key, traced=record.exc_info[2].tb_next is not None)",
    )
    assert [first["event"], first["level"], first["error"]] == [
        "handler.failed",
        "warning",
        "ZeroDivisionError: division by zero",
    ]
    assert "1 / 0" in first["traceback"] or "ZeroDivisionError" in first["traceback"]
    assert (about(first), about(last), last["level"]) == (FIRST, SECOND, "error")
    assert [(one["name"], one["level"], one["error"], one["key"]) for one in told] == [
        ("maildefer.handler", "WARNING", "division by zero", "key1"),
        ("maildefer.handler", "ERROR", "division by zero", "key2"),
    ]
    assert all(one["traced"] for one in told)


@pytest.mark.slow
def test_the_exception_of_a_middleware_is_logged_with_its_name() -> None:
    body = "fault = OSError('no'); marks.mark_raised_by(fault, 'conf.hooks.report'); raise fault"
    first, *_ = handled(body, deliver=FAIL)
    assert first["error"] == "middleware conf.hooks.report: OSError: no"


SALMON = """\
[loggers]
keys=root
[handlers]
keys=file
[formatters]
keys=plain
[logger_root]
level=DEBUG
handlers=file
[handler_file]
class=FileHandler
formatter=plain
args=("{file}",)
[formatter_plain]
format=%(levelname)s %(key)s %(recipient)s %(message)s
"""


def test_salmons_logging_conf_gets_what_handlers_say_and_their_exceptions(tmp_path: Path) -> None:
    (tmp_path / "logging.conf").write_text(SALMON.format(file=tmp_path / "salmon.log"))
    body = "logging.getLogger('blog').debug('deep'); structlog.get_logger().info('built', post=3); 1 / 0"
    lines = handled(body, before=f"logs.configure({str(tmp_path / 'logging.conf')!r})", deliver=FAIL)
    assert [line["event"] for line in lines] == ["handler.failed"] * 2  # ours too, in any case
    text = (tmp_path / "salmon.log").read_text()
    for said in (
        "DEBUG key1 post-1@test deep\n",
        "INFO key2 post-2@test built post=3\n",
        "WARNING key1 post-1@test ZeroDivisionError: division by zero\nTraceback",
        "ERROR key2 post-2@test ZeroDivisionError",
    ):
        assert said in text


def test_a_dictconfig_that_disables_other_loggers_leaves_ours_on(tmp_path: Path) -> None:
    config = {
        "version": 1,
        "handlers": {"mail": {"class": "logging.FileHandler", "filename": str(tmp_path / "mail")}},
        "root": {"handlers": ["mail"], "level": "ERROR"},
    }
    handled(
        "1 / 0", before=f"logging.getLogger('maildefer.handler')\nlogs.configure({config!r})", deliver=FAIL
    )
    assert (tmp_path / "mail").read_text().count("Traceback") == 1


@pytest.mark.slow
def test_an_own_chain_of_structlog_finds_the_message_bound() -> None:
    chain = "chain = [structlog.contextvars.merge_contextvars, structlog.processors.JSONRenderer()]\n"
    chain += "structlog.configure(processors=chain, logger_factory=structlog.PrintLoggerFactory(sys.stderr))"
    first, second = handled("structlog.get_logger().info('mine')", before=chain)
    assert (first["event"], about(first), about(second)) == ("mine", FIRST, SECOND)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"version": 7}, "Unsupported version: 7"),
        ({"version": 1, "root": {"handlers": ["nobody"]}}, "nobody"),
        ("nowhere.conf", "nowhere.conf"),
        (3, "give a mapping"),
    ],
)
def test_a_logging_config_that_cannot_be_used_is_told(config: object, told: str) -> None:
    program = f"from maildefer import logs; logs.configure({config!r})"  # which changes the whole process
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    error = done.stderr.splitlines()[-1]
    assert error.startswith("maildefer.errors.ConfigurationError: logging_config can't be used")
    assert told in error


def test_the_level_leaves_out_what_matters_less() -> None:
    program = "from maildefer import events; events.configure('logfmt', level='warning');"
    program += "events.emit('worker.started'); events.emit('lease.fenced'); events.emit('beat.failed')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert [line.split()[1] for line in done.stderr.splitlines()] == [
        "event=lease.fenced",
        "event=beat.failed",
    ]


def test_the_level_leaves_out_the_lines_of_attempts_too() -> None:
    program = ATTEMPT.format(format="logfmt").replace('"logfmt"', '"logfmt", level="warning"')
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_every_event_with_a_level_of_its_own_is_in_the_table() -> None:
    assert event_table.EVENTS.keys() >= event_table.ERRORS | event_table.WARNINGS


RECEIVED = """
import logging, threading, structlog
from maildefer import events, logs
from maildefer.queue import Queue
from maildefer.routing import Router, nolocking, route, stateless
from maildefer.server import QueueReceiver
events.configure("json")
logs.adopt()
both = threading.Barrier(2)

@route("(name)@test", name=".+")
@stateless
@nolocking
def HANDLE(message, name):
    both.wait(30)
    structlog.contextvars.bind_contextvars(**{name: 1})
    logging.info(name)
    structlog.get_logger().info(name)
    both.wait(30)
    if name == "ann":
        raise ValueError(name)

for name in ("ann", "bob"):
    Queue("run/queue").push("Subject: x\\n\\n", sender="", recipient=f"{name}@test")
QueueReceiver("run/queue").start(one_shot=True)
"""


@pytest.mark.slow
def test_lines_of_two_messages_in_a_receivers_threads_can_be_told_apart(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", RECEIVED], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    taken = {line["recipient"]: line["key"] for line in lines if line["event"] == "claim.taken"}
    said = [line for line in lines if line["event"] == "handler.logged"]
    assert sorted(line["message"] for line in said) == ["ann", "ann", "bob", "bob"]
    for line in said:
        assert (line["recipient"], line["key"]) == (f"{line['message']}@test", taken[line["recipient"]])
        assert {"ann", "bob"} & line.keys() == {line["message"]}
        assert (line["queue"], line["handler"], line["attempt"]) == ("run/queue", "__main__.HANDLE", 1)
    [failed] = [line for line in lines if line["event"] == "handler.failed"]
    assert (failed["level"], failed["key"], failed["recipient"]) == ("warning", taken["ann@test"], "ann@test")


ATTEMPT = """
from maildefer import events
from maildefer.pool.attempt_log import AttemptLog
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


@pytest.mark.slow
def test_json_and_console_tell_the_same_durations() -> None:
    assert [json.loads(line).get("duration_ms") for line in attempts("json")] == [6.25, 90000, None]
    quick, slow, _ = attempts("console")
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} attempt.ended      queue=run/queue key=k ", quick)
    assert " duration_ms=6.25" in quick
    assert " duration_ms=90000" in slow


def test_a_log_file_is_read_by_its_owner_and_group_alone(tmp_path: Path) -> None:
    code = (
        "import os; from maildefer import events; os.umask(0); events.configure(log_file='a.log')\n"
        "os.rename('a.log', 'a.log.1'); events.reopen()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
    assert [path.stat().st_mode & 0o777 for path in sorted(tmp_path.iterdir())] == [0o640, 0o640]
