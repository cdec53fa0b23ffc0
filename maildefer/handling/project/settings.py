"""The settings of a project: one module of plain names, checked, and as plain data for a pool.

| name in the settings module | variable | default | |
| --- | --- | --- | --- |
| `queues` | | from the next three | queue's path → handler modules, in order of priority; `[]`: for programs only |
| `handlers` | | | modules of `run/queue`, where `queues` is missing |
| `queue_config["queue"]`, `queue_handlers` | | | the second queue, where `queues` is missing |
| `router_defaults` | | `{}` | captures for routes |
| `receiver_config` | | none | the front end: where it listens, queue, processes, TLS, AUTH, limits (docs/delivery.md) |
| `web_config` | | none | the front end by HTTP: token_file, host, port, queues, processes and its limits |
| `health_config` | `MAILDEFER_HEALTH` | none | `host` and `port`, or `socket`: health, metrics (docs/monitoring.md) |
| `alerts`, `alert_limits` | | none | a command that tells of what is wrong, and its limits (docs/monitoring.md) |
| `dead_retention` | | for ever | how old dead letters may become: `"30d"`, or a time for each queue |
| `keep` | | not at all | how long handled messages are kept: `"7d"`, or a time for each queue (docs/operating.md) |
| `relay_config` | | none | arguments of `Relay`; with `queue`, of what handlers send all is seen or nothing |
| `outgoing_config` | | 127.0.0.1, port 25 | where `maildefer.handlers.outgoing` delivers (docs/outgoing.md) |
| `authentication_config` | | none | `servers` whose Authentication-Results count, `fields`, `hops`, `alignment` |
| `notices` | | none | `queue`, `author`, `rejects`, `per_sender`, `in_all`, `delay_seconds`: see docs/outgoing.md |
| `dkim_config` | | none | by the domain of From: `selector`, `key` (a file), `domain`, to sign what handlers send |
| `template_config` | | none | `dir`, and `module` below it: where `maildefer.view` finds templates |
| `workers` | `MAILDEFER_WORKERS` | CPUs, at least 2 | processes that handle |
| `concurrency` | `MAILDEFER_CONCURRENCY` | 10 | messages for `async def` handlers in flight in each of them, to 1000 |
| `handler_timeout_seconds` | `MAILDEFER_HANDLER_TIMEOUT_SECONDS` | 3600 | for one message; 0: none |
| `drain_seconds` | `MAILDEFER_DRAIN_SECONDS` | 30 | from `TERM` to `KILL` |
| `max_attempts` | `MAILDEFER_MAX_ATTEMPTS` | 20 | attempts that fail before an exception buries; a `Defer` is none |
| `lifetime_seconds` | `MAILDEFER_LIFETIME_SECONDS` | 432000 | after which a failure buries |
| `max_crashes` | `MAILDEFER_MAX_CRASHES` | 5 | workers that an entry may take with it |
| `max_bytes` | `MAILDEFER_MAX_BYTES` | 67108864 | larger entries are buried unread |
| `messages_per_worker` | `MAILDEFER_MESSAGES_PER_WORKER` | 10000 | then it is replaced; 0: never |
| `memory_bytes_per_worker` | `MAILDEFER_MEMORY_BYTES_PER_WORKER` | 0 | above it, it is replaced; 0: never |
| `idle_seconds_per_worker` | `MAILDEFER_IDLE_SECONDS_PER_WORKER` | 300 | after as long without messages; 0: never |
| `reload` | `MAILDEFER_RELOAD` | false | roll the workers when a module's file changes |
| `preload` | `MAILDEFER_PRELOAD` | true | load the application once and fork the workers of it (docs/forks.md) |
| `after_fork` | | `[]` | functions that each worker calls before its first message (docs/forks.md) |
| `log_level` | `MAILDEFER_LOG_LEVEL` | info | the least level of lines: debug, info, warning or error |
| `log_format` | `MAILDEFER_LOG_FORMAT` | by standard error | console, logfmt or json |
| `log_file` | `MAILDEFER_LOG_FILE` | standard error | where a pool appends its log; `USR1` opens it anew |
| `logging_config` | | none | for workers and receivers: a mapping for `logging.config.dictConfig`, or a file |
| `log_processors` | | `[]` | for the same: structlog processors for each line of a handler's |
| `middleware` | | `[]` | functions of context managers around each call of a handler (docs/middleware.md) |
| `state_path` | `MAILDEFER_STATE_PATH` | in the first queue | the directory of conversation states |

`MAILDEFER_SETTINGS_MODULE` or `SALMON_SETTINGS_MODULE` names the module, else it is `conf.settings`, or
`config.settings` where there is no such. A variable comes before the module. All relative paths begin at the project's
folder: `MAILDEFER_PROJECT`, else the one from which the settings module was imported.
Other names are the application's own; one that is nearly a setting's is told by an event (`project.misspelled`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import ModuleType
from typing import Any, Final, get_args

from maildefer import events
from maildefer.errors import ConfigurationError
from maildefer.handling.project import finder
from maildefer.handling.project.module_loader import import_user_module
from maildefer.handling.project.monitoring_settings import (
    alert_command,
    dead_retention,
    health_address,
    kept_messages,
)
from maildefer.handling.project.setting_place import is_decorator, place, wrong

FRONT_QUEUE: Final = "run/queue"
SENDS: Final = "maildefer.handlers.outgoing"  # the handlers that deliver a queue to other servers

_loaded: ModuleType | None = None
_loaded_in: tuple[ModuleType | None, str] = (None, "")  # the working directory when they were loaded


def load_settings(module: str | None = None) -> ModuleType:
    """Import the settings module and return it. Raises `ConfigurationError` with file and line."""
    global _loaded, _loaded_in
    name, source = (module, "the settings module") if module else finder.settings_module()
    found = import_user_module(name, listed_in=source)
    if not module and source not in finder.VARIABLES:
        finder.refuse_another(name, found)
    _loaded, _loaded_in = found, (found, os.getcwd())
    return found


def loaded_settings() -> ModuleType | None:
    """The settings module of this process, None until one is loaded."""
    return _loaded


def project(module: ModuleType | None = None) -> str:
    """The folder at which relative paths of these settings, or of the loaded ones, begin.

    It is `MAILDEFER_PROJECT`, or the folder from which the module was imported, or, for a module of an installed
    package, the working directory at that time; before any settings are loaded, it is what `finder.project` finds.
    Raises ConfigurationError.
    """
    module = module or _loaded
    if module is None or finder.named_project() is not None:
        return finder.project()
    return finder.folder_of(module) or (_loaded_in[1] if _loaded_in[0] is module else finder.project())


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """The settings that supervisor, keeper, scout and workers need, as plain data that crosses processes as JSON."""

    project: str  # where relative paths begin, the queues' too
    module: str
    queues: Mapping[str, tuple[str, ...]]
    router_defaults: Mapping[str, str]
    kept: tuple[str, ...] = ()  # queues without handlers, which no pool serves
    receiver_config: Mapping[str, Any] | None = None
    web_config: Mapping[str, Any] | None = None
    health_config: Mapping[str, Any] | None = None
    alerts: Mapping[str, Any] | None = None
    dead_retention: Mapping[str, float] = field(default_factory=dict)  # seconds, by queue
    keep: Mapping[str, float] = field(default_factory=dict)  # the same
    workers: int = 2
    concurrency: int = 10
    handler_timeout_seconds: float = 3600.0
    drain_seconds: float = 30.0
    max_attempts: int = 20
    lifetime_seconds: float = 5 * 86400.0
    max_crashes: int = 5
    max_bytes: int = 64 << 20
    messages_per_worker: int = 10_000
    memory_bytes_per_worker: int = 0
    idle_seconds_per_worker: float = 300.0
    reload: bool = False
    preload: bool = True
    log_level: str = ""
    log_format: str = ""
    log_file: str = ""
    state_path: str = ""

    @property
    def first_queue(self) -> str:
        """The queue of messages that are for no queue in particular; `run/queue` where no setting names handlers."""
        return next(iter(self.queues), FRONT_QUEUE)

    def keep_seconds(self, queue: str) -> float:
        """For how long messages of a queue are kept; its path may be absolute."""
        wanted = os.path.normpath(os.path.join(self.project, queue))
        given = {os.path.normpath(os.path.join(self.project, name)): time for name, time in self.keep.items()}
        return given.get(wanted, 0.0)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "queues": {queue: list(modules) for queue, modules in self.queues.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PoolSettings:
        """The inverse of `to_json`, of this or an older version."""
        known = {field.name for field in fields(cls)}
        known_facts = {name: value for name, value in data.items() if name in known}
        known_facts["queues"] = {queue: tuple(modules) for queue, modules in data["queues"].items()}
        return cls(**known_facts | {"kept": tuple(data.get("kept", ()))})


def pool_settings(module: ModuleType, environ: Mapping[str, str] = os.environ) -> PoolSettings:
    """Check and collect the module's settings, with the variables over them. Raises `ConfigurationError`."""
    listed = _queues(module)
    queues = {path: modules for path, modules in listed.items() if modules}
    values = {"workers": max(2, os.cpu_count() or 1), **plain_settings(module, environ)}
    values["state_path"] = values.get("state_path") or os.path.join(
        next(iter(queues), FRONT_QUEUE), ".maildefer", "states"
    )
    return PoolSettings(
        project=project(module),
        module=module.__name__,
        queues=queues,
        kept=tuple(path for path, modules in listed.items() if not modules),
        router_defaults=router_defaults(module),
        receiver_config=_table(module, "receiver_config", (*_SCALARS, list, tuple)),
        web_config=_table(module, "web_config", (*_SCALARS, list, tuple)),
        health_config=health_address(module, environ),
        alerts=alert_command(module, project(module)),
        dead_retention=dead_retention(module, queues),
        keep=kept_messages(module, queues),
        **values,
    )


def plain_settings(module: ModuleType, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The settings of one value each that a variable or the module gives. Raises `ConfigurationError`."""
    values: dict[str, Any] = {}
    for name, kind, least in _PLAIN:
        variable = f"MAILDEFER_{name.upper()}"
        if environ.get(variable):
            values[name] = _parsed(environ[variable], kind, least, variable)
        elif hasattr(module, name) and not is_decorator(getattr(module, name)):
            values[name] = _checked(getattr(module, name), kind, least, module, name)
        if values.get(name) and (choices := _CHOICES.get(name)):
            where = variable if environ.get(variable) else place(module, name)
            if (chosen := values[name].lower()) not in choices:
                raise ConfigurationError(f"{where}: {values[name]!r} is not one of {', '.join(choices)}")
            values[name] = chosen
    return values


def router_defaults(module: ModuleType) -> dict[str, str]:
    """The module's captures for routes. Raises `ConfigurationError`."""
    return _table(module, "router_defaults", (str,)) or {}


_SCALARS: Final = (str, int, float, bool, type(None))

# Name, type, least value.
_PLAIN: Final[tuple[tuple[str, type, float], ...]] = (
    ("workers", int, 1),
    ("concurrency", int, 1),
    ("handler_timeout_seconds", float, 0),
    ("drain_seconds", float, 0),
    ("max_attempts", int, 1),
    ("lifetime_seconds", float, 0),
    ("max_crashes", int, 1),
    ("max_bytes", int, 1),
    ("messages_per_worker", int, 0),
    ("memory_bytes_per_worker", int, 0),
    ("idle_seconds_per_worker", float, 0),
    ("reload", bool, 0),
    ("preload", bool, 0),
    ("log_level", str, 0),
    ("log_format", str, 0),
    ("log_file", str, 0),
    ("state_path", str, 0),
)
_CHOICES: Final = {"log_level": get_args(events.Level), "log_format": get_args(events.Format)}
_WORDS: Final = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(
    ("0", "false", "no", "off"), False
)


def _queues(module: ModuleType) -> dict[str, tuple[str, ...]]:
    """The queues of the setting `queues`, or of Salmon's settings: `run/queue`, and one more queue."""
    queues: dict[str, tuple[str, ...]] = {}
    if hasattr(module, "queues"):
        given = module.queues
        if not isinstance(given, Mapping) or not all(isinstance(path, str) and path for path in given):
            raise wrong(module, "queues", 'a mapping such as {"run/queue": ["workers.posting"]}', given)
        for path, modules in given.items():
            _add(queues, path, _names(module, f"queues[{path!r}]", modules))
    else:
        if getattr(module, "handlers", None):
            _add(queues, FRONT_QUEUE, _names(module, "handlers", module.handlers))
        if getattr(module, "queue_handlers", None):
            config = getattr(module, "queue_config", None)
            if not isinstance(config, Mapping) or not isinstance(config.get("queue"), str):
                raise wrong(
                    module, "queue_config", 'a mapping such as {"queue": "run/posts", "sleep": 10}', config
                )
            _add(queues, config["queue"], _names(module, "queue_handlers", module.queue_handlers))
    return queues


def _add(queues: dict[str, tuple[str, ...]], path: str, modules: tuple[str, ...]) -> None:
    path = os.path.normpath(path)
    queues[path] = tuple(dict.fromkeys((*queues.get(path, ()), *modules)))


def _names(module: ModuleType, setting: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) and name for name in value):
        raise wrong(module, setting, 'a list of module names such as ["workers.posting"]', value)
    return tuple(value)


def _table(module: ModuleType, name: str, kinds: tuple[type, ...]) -> dict[str, Any] | None:
    value = getattr(module, name, None)
    if value is None:
        return None
    if not isinstance(value, Mapping) or not all(
        isinstance(key, str) and isinstance(entry, kinds) for key, entry in value.items()
    ):
        raise wrong(module, name, f"a mapping from names to {' or '.join(k.__name__ for k in kinds)}", value)
    return dict(value)


def _parsed(text: str, kind: type, least: float, variable: str) -> Any:
    try:
        value = _WORDS[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise ConfigurationError(f"{variable}={text!r}: give {_wanted(kind, least)}") from None
    if kind in (int, float) and not least <= value < float("inf"):
        raise ConfigurationError(f"{variable}={text!r}: give {_wanted(kind, least)}")
    return value


def _checked(value: Any, kind: type, least: float, module: ModuleType, name: str) -> Any:
    accepted = (int, float) if kind is float else (kind,)
    fits = isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))
    if not fits or (kind in (int, float) and not least <= value < float("inf")):
        raise wrong(module, name, _wanted(kind, least), value)
    return kind(value)


def _wanted(kind: type, least: float) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[kind]
    return f"{words}, {least:g} or more" if kind in (int, float) else words
