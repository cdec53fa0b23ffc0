"""A loaded project: its settings, its handler modules, and the routes of each queue.

A template loads it for the workers, which are its forks; a probe loads it for the supervisor, which imports no user
code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

from maildefer import logs
from maildefer.errors import ConfigurationError, HandlerMissing
from maildefer.handling import handler_marks
from maildefer.handling.calls.step import use_middleware
from maildefer.handling.calls.terms import Running
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.handler_check import check, place_of
from maildefer.handling.handler_marks import FIRST_STATE, Handler
from maildefer.handling.limits.admission import ConversationTokens, LimitSlots
from maildefer.handling.limits.limit import LimitUse, limits_of
from maildefer.handling.periodic.table import MOST_BYTES, PeriodicTask, record_of
from maildefer.handling.project.mail_settings import provide
from maildefer.handling.project.module_loader import import_user_module, module_files, project_files
from maildefer.handling.project.named_functions import Hook, after_fork_hooks
from maildefer.handling.project.setting_place import place, wrong
from maildefer.handling.project.settings import PoolSettings, load_settings, pool_settings
from maildefer.handling.retry import RetryPolicy
from maildefer.handling.routes import DEFAULT_STATE_KEY, Router, RoutingBase
from maildefer.handling.state.directory import DirectoryStorage
from maildefer.handling.state.storage import MemoryStorage

__all__ = ["Application", "PoolSettings", "load_settings", "module_files", "pool_settings", "provide"]


class Application:
    """The settings and the router, with every queue's handler modules imported. Made by `Application.load`."""

    def __init__(self, settings: PoolSettings, router: RoutingBase = Router) -> None:
        self.settings = settings
        self.router = router
        self.queues_of = queues_of(settings.queues)
        self.log_processors: tuple[logs.Processor, ...] = ()
        self.after_fork: tuple[Hook, ...] = ()
        self._handlers: dict[str, tuple[int, list[Handler]]] = {}  # by queue, of a generation of the routes

    @classmethod
    def load(cls, module: str | None = None, *, probed: bool = False) -> Application:
        """Load the project (`project.finder`). Raises `ConfigurationError` for any mistake in it.

        With `probed`, a probe has compared the handlers' parameters with the routes' captures, and it is not repeated.
        """
        loaded = load_settings(module)
        application = cls(pool_settings(loaded))
        if not application.settings.queues:
            raise ConfigurationError(
                f'{place(loaded)}: no queues: add queues = {{"run/queue": ["workers.posting"]}}, or handlers = […]'
            )
        provide(loaded)
        application.log_processors = set_up_logging(loaded)
        application.import_handlers(probed=probed)
        application.after_fork = after_fork_hooks(loaded)
        return application

    def run_after_fork(self) -> None:
        """Call the functions of `after_fork`, once in each process that handles. Raises ConfigurationError."""
        for hook in self.after_fork:
            try:
                hook()
            except Exception as fault:
                raise ConfigurationError(
                    f"after_fork: {hook.__module__}.{hook.__qualname__} failed: {type(fault).__name__}: {fault}"
                ) from fault

    def import_handlers(self, *, probed: bool = False) -> None:
        """Set captures' defaults and the state store, then import middleware and each queue's modules, in order."""
        self.router.defaults(**self.settings.router_defaults)
        store = self.router.STATE_STORE
        if type(store) is MemoryStorage and not store.states:  # else the settings module has chosen one
            self.router.STATE_STORE = DirectoryStorage(self._absolute(self.settings.state_path))
        use_middleware(self.router)
        for queue, modules in self.settings.queues.items():
            for name in modules:
                import_user_module(name, listed_in=f"handlers of {queue} in {self.settings.module}")
                self.router.HANDLERS.setdefault(name, DEFAULT_STATE_KEY)
        self._check(probed)

    def dispatcher(
        self,
        queue: str,
        *,
        tokens: ConversationTokens | None = None,
        limits: LimitSlots | None = None,
        running: Running | None = None,
    ) -> Dispatcher:
        """The dispatcher of a queue, named as in the settings or by its absolute path. Raises `ConfigurationError`."""
        modules = self.settings.queues[self.queue_named(queue)]
        return Dispatcher(
            self.router,
            modules,
            queues_of=self.queues_of,
            tokens=tokens,
            limits=limits,
            running=running,
            keep_seconds=self.settings.keep_seconds(queue),
        )

    def has_limits(self, queue: str) -> bool:
        """Whether any handler of the queue is limited."""
        return any(map(limits_of, self.handlers_of(queue)))

    def has_async(self, queue: str) -> bool:
        """Whether any handler of the queue is async by its marks."""
        return any(map(handler_marks.is_async, self.handlers_of(queue)))

    def limits_before_claim(self, queue: str) -> tuple[LimitUse, ...]:
        """The limits of the queue's one handler, where they hold for all of its messages; else none."""
        handlers = self.handlers_of(queue)
        if len(handlers) != 1 or handler_marks.batch_of(handlers[0]) is not None:
            return ()
        [handler] = handlers
        if not handler_marks.is_stateless(handler) or any(limit.key for limit in limits_of(handler)):
            return ()
        return tuple(LimitUse(limit, handler_marks.full_name(handler)) for limit in limits_of(handler))

    def handlers_of(self, queue: str) -> list[Handler]:
        """The functions of the queue that have routes, in the order in which these are tried."""
        generation, found = self._handlers.get(queue, (-1, []))
        if generation != self.router.generation:  # looked for once, by a template for all its workers
            modules = self.settings.queues[self.queue_named(queue)]
            table = self.router.table()
            generation = self.router.generation
            found = [
                one for _, functions in table for one in functions if handler_marks.module_of(one) in modules
            ]
            found = list(dict.fromkeys(found))
            self._handlers[queue] = generation, found
        return found

    def batches_of(self, queue: str) -> list[Handler]:
        """The `@batch` functions of the queue."""
        return [
            function for function in self.handlers_of(queue) if handler_marks.batch_of(function) is not None
        ]

    def queue_named(self, queue: str) -> str:
        """The settings' own spelling of a queue's path."""
        for known in self.settings.queues:
            if self._absolute(known) == self._absolute(queue):
                return known
        raise ConfigurationError(
            f"no handlers for {queue}: the settings have {', '.join(self.settings.queues)}; "
            f"add it to `queues` in {self.settings.module}"
        )

    def queue_for(self, module: str) -> str:
        """The one queue that lists the module. Raises `HandlerMissing` for none or several."""
        queues = self.queues_of.get(module, ())
        if len(queues) != 1:
            where = f"is in several queues ({', '.join(queues)})" if queues else "is in no queue"
            raise HandlerMissing(f"{module} {where}: list it once in `queues` of {self.settings.module}")
        return queues[0]

    def retry_policy(self) -> RetryPolicy:
        return RetryPolicy(
            max_attempts=self.settings.max_attempts, lifetime_seconds=self.settings.lifetime_seconds
        )

    def routes_table(self) -> list[dict[str, Any]]:
        """Every route of every queue, in the order in which they are tried, as plain data."""
        return [
            {"queue": queue, "pattern": pattern.pattern, **handler_marks.described(function)}
            for queue, modules in self._modules_of_queues()
            for pattern, functions in self.router.table()
            for function in functions
            if handler_marks.module_of(function) in modules
        ]

    def periodic_tasks(self) -> list[PeriodicTask]:
        """The tasks whose calls are pushed by a schedule, by name. Raises ConfigurationError.

        Those of modules that no queue lists are left out: another host's settings may list them.
        """
        found = []
        for function in {one for _, functions in self.router.table() for one in functions}:
            task = handler_marks.scheduled_task_of(function)
            if task is not None and task.periodic and handler_marks.module_of(function) in self.queues_of:
                found.append(replace(task.periodic, queue=self.queue_named(task.queue)))
        for queue in self.settings.queues:
            table = [record_of(task) for task in found if task.queue == queue]
            if len(json.dumps(table)) > MOST_BYTES:
                raise ConfigurationError(
                    f"{queue} has {len(table)} periodic tasks, too many for one queue: give some of them another one"
                )
        return sorted(found, key=lambda task: task.name)

    def _modules_of_queues(self) -> Iterator[tuple[str, frozenset[str]]]:
        return ((queue, frozenset(modules)) for queue, modules in self.settings.queues.items())

    def files(self) -> list[str]:
        """The source files whose change should make a pool reload: handlers, settings, and what they import here."""
        handlers = [name for modules in self.settings.queues.values() for name in modules]
        return sorted({*module_files([*handlers, self.settings.module]), *project_files()})

    def _absolute(self, path: str) -> str:
        return os.path.normpath(os.path.join(self.settings.project, path))

    def _check(self, probed: bool) -> None:
        table = [
            (pattern, [one for one in functions if handler_marks.module_of(one) in self.queues_of])
            for pattern, functions in self.router.table()
        ]
        routed: dict[str, list[Handler]] = {}
        for function in (function for _, functions in table for function in functions):
            routed.setdefault(handler_marks.module_of(function), []).append(function)
        for queue, modules in self.settings.queues.items():
            for name in modules:
                if name not in routed:
                    raise ConfigurationError(
                        f"{name} has no routes, so {queue} could never use it: "
                        f"put @route above its handlers, or take it out of {self.settings.module}"
                    )
        for function in (function for _, functions in table for function in functions):
            if handler_marks.batch_of(function) is not None and self.settings.max_crashes < 2:
                raise ConfigurationError(
                    f"{handler_marks.full_name(function)} is a @batch, and max_crashes = 1 would bury all its "
                    f"messages for one that kills the worker: set max_crashes to 2 or more in {self.settings.module}"
                )
        if not probed:
            check(table)
        for name, functions in routed.items():
            if not any(
                handler_marks.is_stateless(one) or handler_marks.name_of(one) == FIRST_STATE
                for one in functions
            ):
                raise ConfigurationError(
                    f"{place_of(functions[0])}: {name} has states and no {FIRST_STATE}, in which each sender begins, "
                    f"so none of them would ever run: name the first of them {FIRST_STATE}, "
                    "or put @stateless below the route of those that are no states"
                )


def set_up_logging(settings: ModuleType) -> tuple[logs.Processor, ...]:
    """Set up `logging` by `logging_config`, before handler modules are imported; returns `log_processors`.

    Raises `ConfigurationError`.
    """
    if (config := getattr(settings, "logging_config", None)) is not None:
        try:
            logs.configure(config)
        except ConfigurationError as fault:
            raise ConfigurationError(f"{place(settings, 'logging_config')}: {fault}") from fault.__cause__
    processors = getattr(settings, "log_processors", ())
    if not isinstance(processors, list | tuple) or not all(map(callable, processors)):
        raise wrong(settings, "log_processors", "a list of structlog processors", processors)
    return tuple(processors)


def queues_of(queues: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Map each module to the queues that list it."""
    found: dict[str, tuple[str, ...]] = {}
    for queue, modules in queues.items():
        for module in modules:
            found[module] = (*found.get(module, ()), queue)
    return found
