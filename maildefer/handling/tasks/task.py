"""Functions as handlers: a call becomes a message with its arguments as JSON, and is made when that is handled.

The message is addressed to `module.name@task.invalid` (no mail can come for that domain, RFC 2606). Front ends refuse
that address, which any client could send; and as other programs may push what they were sent, a call is signed with a
secret of the queue's directory, and messages without a valid signature are rejected.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar, overload

from maildefer.handling import handler_marks
from maildefer.handling.handler_check import never_runs
from maildefer.handling.outcomes import Reject
from maildefer.handling.periodic.table import PeriodicTask, periodic_task, task_address
from maildefer.handling.project.finder import is_project, named_project, settings_beside
from maildefer.handling.project.queue_paths import located, queue_at, redirected
from maildefer.handling.project.settings import FRONT_QUEUE, load_settings, loaded_settings
from maildefer.handling.results import ensure_run
from maildefer.handling.tasks.arguments import ArgumentsRefused
from maildefer.handling.tasks.call import Call, bound, call_in, composed
from maildefer.handling.tasks.listing import listing_queue, refuse_unlisted
from maildefer.host.identity import this_host
from maildefer.maildir.markers.names import hash_of
from maildefer.maildir.markers.unique import push_unique
from maildefer.maildir.outbox.current import pushing
from maildefer.maildir.push import Planned, Pusher

if TYPE_CHECKING:
    from datetime import datetime

P = ParamSpec("P")
R = TypeVar("R")

_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
# Of `defer`, beside the function's arguments.
_OPTIONS: Final = frozenset(("after", "at", "unique", "priority", "now"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions(Generic[P, R]):
    """A task and options for its calls: `task.options(after=60).defer(…)`."""

    task: Task[P, R]
    after: float | None = None
    at: datetime | None = None
    unique: str | None = None
    priority: str = "normal"
    now: bool = False

    def defer(self, *arguments: P.args, **named: P.kwargs) -> str:
        """Push the call: see `Task.defer`. All that is named here is the function's."""
        return self.task._push(arguments, named, self)


class Task(Generic[P, R]):
    """A function that can be called at once, or later by `defer`. Any thread and process may do either."""

    def __init__(self, function: Callable[P, R], queue: str | None = None, **schedule: Any) -> None:
        if isinstance(function, Task):
            raise TypeError(f"@task on {function.name}: it is a task already: put one @task on top")
        if isinstance(function, type) or not hasattr(function, "__qualname__"):
            raise TypeError(f"@task on {function!r}: it goes on plain functions: define one that calls this")
        if handler_marks.batch_of(function) is not None:
            raise TypeError(f"@task on {function.__qualname__}: its calls come one by one, never as a @batch")
        if "." in function.__qualname__ or never_runs(function):
            raise TypeError(
                f"@task on {function.__qualname__}: it goes on plain functions of a module; "
                "a decorator below it is made with functools.wraps"
            )
        functools.update_wrapper(self, function)
        handler_marks.mark_takes_one_message(self)
        self.function = function
        self.name: str = f"{function.__module__}.{function.__name__}"
        self.address = task_address(self.name)
        self._queue = queue
        self._checked: ModuleType | None = None  # the settings against which the queue was checked
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters.values()
        self._positional = [each.name for each in parameters if each.kind in _POSITIONAL]
        self._options = _OPTIONS.difference(each.name for each in parameters if each.kind in _NAMED)
        self.periodic = self._scheduled(schedule)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    if not TYPE_CHECKING:  # a checker knows what there is

        def __getattr__(self, name: str) -> Any:
            known = vars(self).get("name", "of no function yet")
            raise AttributeError(
                f"the task {known} has no {name}: .defer(…) calls it later, .options(…).defer(…) says when, and @retry "
                "how often"
            )

    def __call__(self, *arguments: P.args, **named: P.kwargs) -> R:
        return self.function(*arguments, **named)

    @overload
    def defer(self, *arguments: P.args, **named: P.kwargs) -> str: ...
    @overload
    def defer(self, *arguments: Any, after: float, **named: Any) -> str: ...
    @overload
    def defer(self, *arguments: Any, at: datetime, **named: Any) -> str: ...
    @overload
    def defer(self, *arguments: Any, unique: str, **named: Any) -> str: ...
    @overload
    def defer(self, *arguments: Any, priority: str, **named: Any) -> str: ...
    @overload
    def defer(self, *arguments: Any, now: bool, **named: Any) -> str: ...

    def defer(self, *arguments: Any, **named: Any) -> str:
        """Push the call for a worker; durable when this returns the entry's key.

        `after` (in seconds) or `at` (a datetime with its zone) say when it is to be made, `priority` (`high`, `normal`
        or `low`) before which others, unless the function itself has a parameter of that name: see `options`. With
        `unique`, nothing is pushed while a call of this task with that key has not ended; the key of its entry is
        returned, a `PushedKey`, and says by `is_new` which it is. `now`: see `Queue.push`. Raises ArgumentsRefused,
        TypeError and ValueError for what is no such value, QueueError's kinds, ConfigurationError for a queue that no
        setting lists.
        """
        options = {name: named.pop(name) for name in self._options.intersection(named)}
        return self.options(**options).defer(*arguments, **named)

    def options(
        self,
        *,
        after: float | None = None,
        at: datetime | None = None,
        unique: str | None = None,
        priority: str = "normal",
        now: bool = False,
    ) -> TaskOptions[P, R]:
        """Give options for calls whose arguments are all the function's, as where it has a parameter `at` itself."""
        return TaskOptions(task=self, after=after, at=at, unique=unique, priority=priority, now=now)

    def _push(self, arguments: tuple[Any, ...], named: dict[str, Any], options: TaskOptions[P, R]) -> str:
        layout, host = queue_at(self.queue), this_host().label
        call = self._call(arguments, named)
        compose = composed(call, self.address, layout.path, host, self._positional)
        pusher = Pusher(layout, host=host)
        due = pusher.due(after=options.after, at=options.at)
        planned = Planned(compose=compose, due=due, priority=options.priority)
        if options.unique is None:
            return pushing(pusher, now=options.now)(planned)
        return push_unique(layout, f"{self.name} {hash_of(options.unique)}", planned, host=host)

    @property
    def queue(self) -> str:
        """The queue of the calls: the given one, else the first one that lists the function's module.

        It is an absolute path in the function's project. Where no setting lists handlers it is `run/queue`. Raises
        ConfigurationError, also for a module that no queue lists.
        """
        settings = self._settings()
        if settings is not None:
            self.check(settings)
        if settings is None or self._queue is not None:
            return located(self._queue or FRONT_QUEUE)
        return listing_queue(settings, self._line(), self.name)

    def check(self, settings: ModuleType) -> None:
        """Raise ConfigurationError for a given queue that no setting lists, or that does not list the module."""
        if self._queue is not None and self._checked is not settings:
            refuse_unlisted(settings, self._line(), self.name, self._queue)
            self._checked = settings

    def _line(self) -> str:
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        return "" if code is None else f"{code.co_filename}:{code.co_firstlineno}: "

    def handle(self, message: Any) -> Awaitable[None] | None:
        """Make the call in the message. `Defer` and `Reject` have the same effect as in any handler.

        The rest of the call of an `async def` function is returned.
        """
        call = self._call_in(message)
        if call.task == self.name:
            bound(call, self._signature)
            result: object = self.function(*call.args, **call.kwargs)
            if isawaitable(result):
                return self._awaited(result)
            ensure_run(self.function, result)
        elif call.task.lower() != self.name.lower():  # case counts in names, and not in addresses
            raise Reject(f"a call of {call.task} that came to {self.name}")
        return None

    async def _awaited(self, result: Awaitable[object]) -> None:
        ensure_run(self.function, await result)

    def _scheduled(self, schedule: dict[str, Any]) -> PeriodicTask | None:
        """Return what the decorator says of times, if it does. Raises ValueError, TypeError."""
        try:
            found = periodic_task(self.name, **schedule)
        except ValueError as fault:
            raise ValueError(f"@task on {self.name}: {fault}") from fault
        if found is not None:
            try:
                self._signature.bind()
            except TypeError as fault:
                raise TypeError(f"@task on {self.name}: {fault}: periodic calls have none") from fault
        return found

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the function's parameters."""
        return tuple(self._signature.parameters)

    def arguments_in(self, message: Any) -> dict[str, Any]:
        """The arguments of the call in the message, by their names. Raises Reject as `handle` does."""
        given = bound(self._call_in(message), self._signature)
        given.apply_defaults()
        return dict(given.arguments)

    def _call_in(self, message: Any) -> Call:
        entry = message.copied_as or message.key
        if message.queue is None or entry is None:
            raise Reject("no call of a task")
        data = message.Data if isinstance(message.Data, bytes) else message.Data.encode()
        return call_in(data, redirected(located(message.queue)), entry)

    def _call(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> Call:
        try:
            self._signature.bind(*arguments, **named)
        except TypeError as fault:
            raise ArgumentsRefused(f"{self.name}: {fault}: call it as it is defined") from fault
        # What has a name keeps it: see `bound`.
        return Call(task=self.name, args=list(arguments), kwargs=named)

    def _settings(self) -> ModuleType | None:
        """The loaded settings; else those of the function's project, or of the project of the working directory."""
        if (found := loaded_settings()) is not None:
            return found
        module = sys.modules.get(self.function.__module__)
        if module is not None and named_project() is None and (beside := settings_beside(module)):
            return load_settings(beside)
        return load_settings() if is_project() else None
