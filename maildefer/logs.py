"""Handlers' own logging, by structlog: one pipeline for lines written through `logging` and through structlog.

Programs with a logging configuration of their own use `merge_attempt` and `tell_attempt`; the rest is for workers.

Lines of both go to the handlers of `logging`: the project's own (`logging_config`, or what a boot module sets up), or
one that writes event lines of the pool's form. Workers and receivers only; nothing else of a pool loads a project.
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
_WITHOUT: Final = (
    "rich",
    "better_exceptions",
    "greenlet",
)  # the last for `structlog.threadlocal`, which is deprecated
_LATER: Final = ("asyncio", "uuid")

Facts = MutableMapping[str, Any]
Processor = Callable[[Any, str, Facts], Any]


def load() -> None:
    """Import structlog, without what it takes along for pretty tracebacks and for event loops: 2 MB and not 22.

    A supervisor does it once for all its workers, before it forks. `rich` is absent to `structlog.dev` from then on
    (`importlib.reload(structlog.dev)` finds it); asyncio and uuid are imported when something of them is first used.
    """
    if "structlog" in sys.modules:
        return
    stand_ins: dict[str, ModuleType | None] = dict.fromkeys(_WITHOUT)  # None: an ImportError for who tries
    stand_ins |= {name: _imported_later(name) for name in _LATER}
    added = [name for name in stand_ins if name not in sys.modules]
    sys.modules.update({name: stand_ins[name] for name in added})  # type: ignore[misc]
    try:
        importlib.import_module("structlog")
    finally:
        for name in added:
            del sys.modules[name]


def warm_up() -> None:
    """Make once, before a supervisor forks, what `adopt` would make in the memory of each worker."""
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
    from logging.config import dictConfig, fileConfig  # only for who has one

    try:
        if isinstance(config, str | os.PathLike) and not os.fspath(config).endswith(".json"):
            with open(config, encoding="utf-8") as file:
                fileConfig(file, disable_existing_loggers=False)
            return
        if isinstance(config, str | os.PathLike):
            with open(config, encoding="utf-8") as file:
                config = json.load(file)
        dictConfig(config)  # type: ignore[arg-type]  # it says itself what it can't use
    except Exception as fault:
        cause = f": {fault.__cause__}" if fault.__cause__ else ""
        raise ConfigurationError(
            f"logging_config can't be used: {type(fault).__name__}: {fault}{cause}: give a mapping for "
            "logging.config.dictConfig, or the path of a file such as conf/logging.conf"
        ) from fault


def adopt(level: str = "INFO", processors: Sequence[Processor] = ()) -> None:
    """Have this process's `logging` and structlog write event lines, with what each is about.

    Called once the application is loaded. An application that has set handlers or processors itself keeps them; its
    handlers' records tell what they are about too (`%(key)s`), and a handler's exception is an event line in any case.
    `processors` are the project's own, for each line before it is rendered.
    """
    load()
    ours = EventHandler(processors)
    root = logging.getLogger()
    if root.handlers:
        logging.getLogger(FAILURES).addHandler(ours)
    else:
        root.addHandler(ours)
        root.setLevel(level)
    for name in _OURS:  # a configuration disables what it does not name
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
                handler.setStream(_Log())  # lines of its own form, and no handler's raw output
    _adopt_structlog()


class _Log(io.TextIOBase):
    """The log, for handlers that write to a stream."""

    def write(self, text: str) -> int:
        events.write(text)
        return len(text)


def _standard_streams() -> tuple[object, ...]:
    return sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__


def merge_attempt(logger: object, method: str, facts: Facts) -> Facts:
    """The processor, for chains of a project's own, that adds what a line is about: `key`, `queue`, `handler`, ….

    What a handler says under one of these names is `key_` and so on.
    """
    found = log_context.facts()
    for name in (*found, *log_context.FIELDS) if found else ():  # of a batch's also those that differ
        value, said = found.get(name), facts.get(name)
        if said is not None and said not in (value, found.get("keys")):
            facts[f"{name}_"] = facts.pop(name)
        if value is not None:
            facts[name] = value
    return facts


def tell_attempt(record: logging.LogRecord) -> bool:
    """The filter that has formatters find it in the record: `%(key)s`, … and a dash where there is none.

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
    """Each record is one line; a traceback is one of its facts.

    Its formatter is made for the first record: most of a pool's workers are idle, and each would have its own pages.
    """

    def __init__(self, processors: Sequence[Processor]) -> None:
        super().__init__()
        self._processors = processors

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self.formatter is None:
                self.setFormatter(_formatter(self._processors))
            events.write(self.format(record) + "\n")
        except Exception as fault:  # noqa: BLE001  # no handler fails for a line that can't be written
            if not isinstance(
                fault, sys.modules["structlog"].DropEvent
            ):  # which a project's processor raises
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
    """What a structlog line carries in its record, or the `extra` of a line of `logging`'s.

    What has the name of one of the line's own facts gets another: `level_`.
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
    """In their order: only a traceback comes last, as it has lines of its own on a terminal."""
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
    """As a record of `logging`: its text has all facts, for formatters that know nothing of them."""
    given = {name: facts.pop(name) for name in ("exc_info", "stack_info", "stacklevel") if name in facts}
    pairs = (
        f"{name}={events.quoted(value)}" for name, value in facts.items() if name not in ("event", "level")
    )
    text = " ".join((str(facts.get("event", "")), *pairs))
    return (text,), {**given, "extra": {"_structlog": dict(facts)}}
