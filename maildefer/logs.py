"""Handlers' own logging, by structlog: one pipeline for lines written through `logging` and through structlog.

Programs with a logging configuration of their own use `merge_attempt` and `tell_attempt`; the rest is for workers.

Lines of both go to the handlers of `logging`: the project's own (`logging_config`, or those of a boot module), or one
that writes event lines as the pool does. For workers and receivers only: no other process of a pool loads a project.
"""

from __future__ import annotations

import importlib
import io
import json
import logging
import os
import sys
from collections.abc import Callable, MutableMapping, Sequence
from types import ModuleType
from typing import Any, Final

from maildefer import events, log_context
from maildefer.errors import ConfigurationError

__all__ = ["merge_attempt", "tell_attempt"]

EVENT: Final = "handler.logged"
FAILED: Final = "handler.failed"
FAILURES: Final = "maildefer.handler"  # the logger of handlers' exceptions
_OURS: Final = (FAILURES, "maildefer.handlers", "maildefer.receiver", "routing")
# The last for `structlog.threadlocal`, which is deprecated.
_WITHOUT: Final = ("rich", "better_exceptions", "greenlet")
_LATER: Final = ("asyncio", "uuid")

Facts = MutableMapping[str, Any]
Processor = Callable[[Any, str, Facts], Any]


def load() -> None:
    """Import structlog without its imports for pretty tracebacks and event loops: 2 MB instead of 22.

    A supervisor does it once for all workers, before it forks. `structlog.dev` does not find `rich` from then on
    (`importlib.reload(structlog.dev)` does); asyncio and uuid are imported at their first use.
    """
    if "structlog" in sys.modules:
        return
    stand_ins: dict[str, ModuleType | None] = dict.fromkeys(_WITHOUT)  # None: its import raises ImportError
    stand_ins |= {name: _imported_later(name) for name in _LATER}
    added = [name for name in stand_ins if name not in sys.modules]
    sys.modules.update({name: stand_ins[name] for name in added})  # type: ignore[misc]
    try:
        importlib.import_module("structlog")
    finally:
        for name in added:
            del sys.modules[name]


def warm_up() -> None:
    """Make, before a supervisor forks, the objects that `adopt` would make in the memory of each worker."""
    load()
    for name in _OURS:
        logging.getLogger(name)
    EventHandler(())
    _adopt_structlog()
    sys.modules["structlog"].reset_defaults()


def _imported_later(name: str) -> ModuleType:
    module = ModuleType(name)
    vars(module)["__getattr__"] = lambda attribute: getattr(importlib.import_module(name), attribute)
    return module


def configure(config: object) -> None:
    """Set up `logging` as a project's `logging_config` says: a `dictConfig`, or the path of one, or of a `fileConfig`.

    Before the handlers' modules are imported. Raises ConfigurationError.
    """
    from logging.config import dictConfig, fileConfig  # only for projects that have one

    try:
        if isinstance(config, str | os.PathLike) and not os.fspath(config).endswith(".json"):
            with open(config, encoding="utf-8") as file:
                fileConfig(file, disable_existing_loggers=False)
            return
        if isinstance(config, str | os.PathLike):
            with open(config, encoding="utf-8") as file:
                config = json.load(file)
        dictConfig(config)  # type: ignore[arg-type]  # its error says what it can't use
    except Exception as fault:
        cause = f": {fault.__cause__}" if fault.__cause__ else ""
        raise ConfigurationError(
            f"logging_config can't be used: {type(fault).__name__}: {fault}{cause}: give a mapping for "
            "logging.config.dictConfig, or the path of a file such as conf/logging.conf"
        ) from fault


def adopt(level: str = "INFO", processors: Sequence[Processor] = ()) -> None:
    """Let this process's `logging` and structlog write event lines, with the facts of the attempt.

    Called after the application is loaded. Handlers and processors that the application has set stay; their records
    have the facts too (`%(key)s`), and an exception of a handler is an event line in any case. `processors` are the
    project's own, for each line before it is rendered.
    """
    load()
    ours = EventHandler(processors)
    root = logging.getLogger()
    if root.handlers:
        logging.getLogger(FAILURES).addHandler(ours)
    else:
        root.addHandler(ours)
        root.setLevel(level)
    for name in _OURS:  # a configuration disables loggers that it does not name
        logging.getLogger(name).disabled = False
    for logger in (root, *root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):
            if handler is ours:
                continue
            handler.addFilter(tell_attempt)
            if (
                events.descriptor() != 2
                and isinstance(handler, logging.StreamHandler)
                and handler.stream in _standard_streams()
            ):
                handler.setStream(_Log())  # lines in the application's format, and no raw output of a handler
    _adopt_structlog()


class _Log(io.TextIOBase):
    """The log, for handlers that write to a stream."""

    def write(self, text: str) -> int:
        events.write(text)
        return len(text)


def _standard_streams() -> tuple[object, ...]:
    return sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__


def merge_attempt(logger: object, method: str, facts: Facts) -> Facts:
    """Add the facts of the attempt to a line, `key`, `queue`, `handler`, …: a processor for a project's own chain.

    A handler's own fact under one of these names becomes `key_` and so on.
    """
    found = log_context.facts()
    for name in (*found, *log_context.FIELDS) if found else ():  # in a batch also those that differ
        value, said = found.get(name), facts.get(name)
        if said is not None and said not in (value, found.get("keys")):
            facts[f"{name}_"] = facts.pop(name)
        if value is not None:
            facts[name] = value
    return facts


def tell_attempt(record: logging.LogRecord) -> bool:
    """Add the facts of the attempt to a record, for formatters: `%(key)s`, …, with a dash where there is none.

    In a batch, `%(key)s` and `%(keys)s` are the keys of its messages.
    """
    found = log_context.facts()
    if "keys" in found:
        found["key"] = found["keys"]
    for name in (*log_context.FIELDS, *log_context.OF_BATCHES):
        value, said = found.get(name), getattr(record, name, None)
        told = "-" if value is None else value
        if said in (None, told) or not found:
            setattr(record, name, told if said is None else said)
            continue
        setattr(record, f"{name}_", said)
        setattr(record, name, told)
    return True


class EventHandler(logging.Handler):
    """A handler of `logging` that writes each record as one line; a traceback is one of its facts.

    Its formatter is made at the first record, since most workers are idle, and each would need memory for its own.
    """

    def __init__(self, processors: Sequence[Processor]) -> None:
        super().__init__()
        self._processors = processors

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self.formatter is None:
                self.setFormatter(_formatter(self._processors))
            events.write(self.format(record) + "\n")
        except Exception as fault:  # noqa: BLE001  # a line that can't be written must not make a handler fail
            # A project's processor raises it, to drop a line.
            if not isinstance(fault, sys.modules["structlog"].DropEvent):
                events.emit("log.unusable", logger=record.name, error=f"{type(fault).__name__}: {fault}")


def _formatter(processors: Sequence[Processor]) -> logging.Formatter:
    from structlog.contextvars import merge_contextvars
    from structlog.processors import format_exc_info
    from structlog.stdlib import ProcessorFormatter

    return ProcessorFormatter(
        foreign_pre_chain=[_unpacked, merge_contextvars, merge_attempt],
        processors=[ProcessorFormatter.remove_processors_meta, *processors, format_exc_info, _rendered],
    )


_PLAIN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "_structlog"}
_TAKEN: Final = frozenset({"ts", "event", "level", "logger", "message", "traceback"})  # by the line itself


def _unpacked(logger: object, method: str, facts: Facts) -> Facts:
    """The facts of a structlog line from its record, or the `extra` of a line of `logging`.

    A fact with the name of one of the line's own facts gets another name: `level_`.
    """
    record = facts["_record"]
    if (told := getattr(record, "_structlog", None)) is not None:
        said = {name: value for name, value in told.items() if name not in ("event", "level")}
        facts["event"] = told.get("event", "")
        return {"level": method, **facts, **_apart(said), "logger": record.name}
    extra = {name: value for name, value in vars(record).items() if name not in _PLAIN and value != "-"}
    return {"level": method, "logger": record.name, **facts, **_apart(extra)}


def _apart(said: Facts) -> Facts:
    return {f"{name}_" if name in _TAKEN else name: value for name, value in said.items()}


def _rendered(logger: object, method: str, facts: Facts) -> str:
    """The line with its facts in order; a traceback comes last, since it has lines of its own on a terminal."""
    trace = facts.pop("exception", None)
    if facts.get("logger") == FAILURES:
        told = {
            "error" if name == "event" else name: value for name, value in facts.items() if name != "logger"
        }
        return events.line(FAILED, {**told, "traceback": trace})
    told = {"message" if name == "event" else name: value for name, value in facts.items()}
    return events.line(EVENT, {**told, "traceback": trace})


def _adopt_structlog() -> None:
    import structlog

    log_context.begin_process()
    if structlog.is_configured():
        log_context.isolate()
        log_context.bound = lambda facts: structlog.contextvars.bind_contextvars(**facts)
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.add_log_level,
            _recorded,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _recorded(logger: object, method: str, facts: Facts) -> tuple[tuple[str], dict[str, Any]]:
    """The arguments for a record of `logging`; its text holds all facts, for formatters that do not use them."""
    given = {name: facts.pop(name) for name in ("exc_info", "stack_info", "stacklevel") if name in facts}
    pairs = (
        f"{name}={events.quoted(value)}" for name, value in facts.items() if name not in ("event", "level")
    )
    text = " ".join((str(facts.get("event", "")), *pairs))
    return (text,), {**given, "extra": {"_structlog": dict(facts)}}
