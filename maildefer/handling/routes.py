"""The table of routes, and `Router.deliver`, which runs the handlers in the caller.

There is one `Router` per process; handler modules register themselves in it when they are imported.
"""

from __future__ import annotations

import importlib
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from maildefer import log_context
from maildefer.errors import ConfigurationError, HandlerMissing
from maildefer.handling import handler_marks, undeliverable
from maildefer.handling.calls.event_loop import finished
from maildefer.handling.calls.step import one_by_one, use_middleware
from maildefer.handling.handler_check import check
from maildefer.handling.handler_marks import ERROR_STATE, FIRST_STATE, Handler, HasRecipient, entry_key
from maildefer.handling.patterns import compiled
from maildefer.handling.results import Handoff, ensure_run, meaning_of
from maildefer.handling.state.storage import EntryStorage, MemoryStorage, StateStorage
from maildefer.matching.index import PatternTable
from maildefer.message.smtp_error import SMTPError

if TYPE_CHECKING:
    from maildefer.handling.calls.middleware import Middleware

LOG: Final = logging.getLogger("routing")
ROUTE_FIRST_STATE: Final = FIRST_STATE
KeyFunction = Callable[[str, Any], str]
_Table = tuple[dict[str, tuple[re.Pattern[str], list[Handler]]], list[str]]


def DEFAULT_STATE_KEY(mod: str, msg: object) -> str:
    """The key of a module's states where no `@state_key_generator` makes another: the module's name."""
    return mod


class RoutingBase:
    """Routes, states and defaults of one application. Delivery is safe among threads, also during `reload`."""

    def __init__(self) -> None:
        self.REGISTERED: dict[str, tuple[re.Pattern[str], list[Handler]]] = {}
        self.ORDER: list[str] = []
        self.DEFAULT_CAPTURES: dict[str, str] = {}
        self.STATE_STORE: StateStorage = MemoryStorage()
        self.keeps_states = False  # whether any was ever set; else attempts are not reported to the store
        self.HANDLERS: dict[str, KeyFunction] = {}
        self.RELOAD = False
        self.LOG_EXCEPTIONS = True
        self.UNDELIVERABLE_QUEUE: undeliverable.Pushable | None = None
        self.middleware: Middleware | None = None
        self.generation = 0  # grows with each change of the table, for values that are made from it
        self.lock = threading.RLock()  # one handler of the process at a time, except @nolocking ones
        self._table_lock = threading.RLock()
        self._swap_lock = threading.Lock()
        self._new_table: _Table | None = None
        self._indexed: tuple[int, list[str], int] | None = None  # the table from which `_rows` was made
        self._rows: PatternTable[list[Handler]] = PatternTable(())

    # The table
    def defaults(self, **captures: str) -> None:
        """Add captures for every pattern that is registered from now on: call before importing handlers."""
        self.DEFAULT_CAPTURES.update(captures)

    def register_route(self, format: str, func: Handler) -> None:
        """Append `func` to those of the regular expression `format`, which keeps the place of its first use."""
        with self._table_lock:
            registered, order = self._new_table or (self.REGISTERED, self.ORDER)
            if format in registered:
                registered[format][1].append(func)
            else:
                registered[format] = (compiled(format), [func])
                order.append(format)  # second, so that each name in the order is found
            handler_marks.mark_registered(func)
            self.generation += 1

    def match(self, address: str) -> Iterator[tuple[list[Handler], dict[str, Any]]]:
        """The functions and named groups of each regular expression that matches, in order.

        Raises RouteTooSlow if one takes more than a second, and RouteUntried.
        """
        for functions, groups in self._index().matches(address):
            yield functions, dict(groups)

    def _index(self) -> PatternTable[list[Handler]]:
        """The table as an index for look-ups, made anew when the table has changed."""
        with self._swap_lock:
            if self._indexed != (self.generation, self.ORDER, len(self.REGISTERED)):
                self._indexed = (self.generation, list(self.ORDER), len(self.REGISTERED))
                known = (self.REGISTERED[regex] for regex in self.ORDER if regex in self.REGISTERED)
                self._rows = PatternTable(known)
            return self._rows

    def table(self) -> list[tuple[re.Pattern[str], list[Handler]]]:
        """A copy of the table: each regular expression with its functions, in order."""
        with self._swap_lock:
            return [self.REGISTERED[regex] for regex in tuple(self.ORDER) if regex in self.REGISTERED]

    def clear_routes(self) -> None:
        with self._table_lock:
            self.ORDER.clear()
            self.REGISTERED.clear()
            self.generation += 1

    def load(self, modules: list[str] | tuple[str, ...]) -> None:
        """Import handler modules, which register themselves. A second call changes nothing."""
        use_middleware(self)
        for module in modules:
            try:
                importlib.import_module(module)
                self.HANDLERS.setdefault(module, DEFAULT_STATE_KEY)
            except ImportError:
                self._log_or_raise(f"cannot import the handler module {module}")

    def reload(self) -> None:
        """Import all handler modules anew, in the order of their loading; states stay.

        Other threads deliver by the old table until the new one replaces it in one step. If a module is broken, or a
        route wrong, the old table stays, so that a half-saved file makes no message undeliverable.
        """
        with self._table_lock:
            new_table: _Table = ({}, [])
            self._new_table = new_table
            try:
                reloaded = [self._reload_module(name) for name in tuple(self.HANDLERS) if name in sys.modules]
                if all(reloaded) and self._is_usable(new_table):
                    with self._swap_lock:
                        self.REGISTERED, self.ORDER = new_table
            finally:
                self._new_table = None
                self.generation += 1

    def _reload_module(self, name: str) -> bool:
        try:
            importlib.reload(sys.modules[name])
        except (TypeError, NameError, ImportError):
            self._log_or_raise(f"cannot reload the handler module {name}")
            return False
        return True

    def _is_usable(self, new_table: _Table) -> bool:
        try:
            check(new_table[0].values())
        except ConfigurationError as fault:
            self._log_or_raise(f"the handlers are not reloaded: {fault}")
            return False
        return True

    # States
    def state_key(self, module_name: str, message: HasRecipient) -> str:
        made_by = self.HANDLERS.get(module_name, DEFAULT_STATE_KEY)
        if type(key := made_by(module_name, message)) is not str:
            ensure_run(made_by, key)
        return key

    def get_state(self, module_name: str, message: HasRecipient) -> str:
        """The sender's state in that module. A retry finds the state that its first try found."""
        key, entry = self.state_key(module_name, message), entry_key(message)
        if entry is not None and isinstance(self.STATE_STORE, EntryStorage):
            return self.STATE_STORE.get_for_entry(key, message.From, entry)
        return self.STATE_STORE.get(key, message.From)

    def set_state(self, module_name: str, message: HasRecipient, state: str) -> None:
        self.keeps_states = True
        key, entry = self.state_key(module_name, message), entry_key(message)
        if entry is not None and isinstance(self.STATE_STORE, EntryStorage):
            self.STATE_STORE.set_for_entry(key, message.From, state, entry)
        else:
            self.STATE_STORE.set(key, message.From, state)

    def begin_state(self, module_name: str, message: HasRecipient, state: str) -> None:
        """Set the state from which the message starts in the module to which it is handed on."""
        self.keeps_states = True
        key, entry = self.state_key(module_name, message), entry_key(message)
        if entry is not None and isinstance(self.STATE_STORE, EntryStorage):
            self.STATE_STORE.begin_for_entry(key, message.From, state, entry)
        else:
            self.STATE_STORE.set(key, message.From, state)

    def end_attempt(self, message: HasRecipient) -> None:
        """Tell the store that the message was handled, or failed. Called after the handlers of a message."""
        store, entry = self.STATE_STORE, entry_key(message)
        if entry is not None and isinstance(store, EntryStorage):
            store.end_attempt(entry)

    def in_state(self, func: Handler, message: HasRecipient) -> bool:
        return self.get_state(handler_marks.module_of(func), message) == handler_marks.name_of(func)

    def in_error(self, func: Handler, message: HasRecipient) -> bool:
        return self.get_state(handler_marks.module_of(func), message) == ERROR_STATE

    def clear_states(self) -> None:
        self.STATE_STORE.clear()

    # Delivery
    def deliver(self, message: HasRecipient) -> None:
        """Run the handlers of the message in this thread.

        An `SMTPError` is raised to the caller. Any other exception sets the sender's state in that module to `ERROR`,
        and the message goes to `UNDELIVERABLE_QUEUE`, as does a message that no handler took.
        """
        if self.RELOAD:
            self.reload()
        try:
            self._deliver(message)
        finally:
            self.end_attempt(message)

    def _deliver(self, message: HasRecipient) -> None:
        ran, handoffs = list[Handler](), list[Handoff]()
        for function, groups in self._chosen(message):
            ran.append(function)
            if (handoff := self.call_safely(function, message, groups)) is not None:
                handoffs.append(handoff)
        for handoff in handoffs:
            self._continue(handoff, message, ran)
        if not ran:
            self._undeliverable(message, "no handler took it")

    def _chosen(self, message: HasRecipient) -> Iterator[tuple[Handler, dict[str, Any]]]:
        """Each stateless function, and the first stateful one that is its module's state when its turn comes."""
        stateful_chosen = False
        for functions, groups in self.match(message.To or ""):
            for function in tuple(functions):
                if handler_marks.is_stateless(function):
                    yield function, groups
                elif not stateful_chosen and self.in_state(function, message):
                    stateful_chosen = True
                    yield function, groups

    @log_context.contained
    def call_safely(self, func: Handler, message: HasRecipient, kwargs: dict[str, Any]) -> Handoff | None:
        """Run one handler by the rules of `deliver`; returns its handoff, if it makes one."""
        log_context.begin_handler(message, handler_marks.full_name(func))
        module = handler_marks.module_of(func)
        try:
            result = self.call(func, message, kwargs)
            following = meaning_of(func, result)
            if isinstance(following, Handoff):
                self.function_of(following)
                return following
            if following is not None:
                self.set_state(following.module, message, following.state)
        except SMTPError:
            raise
        except Exception as fault:  # noqa: BLE001  # the user's code may raise anything
            self.set_state(module, message, ERROR_STATE)
            self._undeliverable(message, f"{handler_marks.full_name(func)} failed")
            handler_marks.mark_in_undeliverable_queue(fault)
            self._log_or_raise(f"{handler_marks.full_name(func)} failed on a message for {message.To}")
        return None

    def call(self, func: Handler, message: HasRecipient, kwargs: dict[str, Any]) -> object:
        """Call the handler, to its end, under the lock of all handlers of this process, unless it is `@nolocking`."""
        with nullcontext() if handler_marks.is_nolocking(func) else self.lock:
            result = one_by_one(func, self.middleware)(message, **kwargs)
            return finished(result, handler_marks.timeout_of(func), handler_marks.full_name(func))

    def function_of(self, handoff: Handoff) -> Handler:
        """The registered function to which a handoff goes. Raises `HandlerMissing`."""
        for _, functions in self.table():
            for function in functions:
                if (handler_marks.module_of(function), handler_marks.name_of(function)) == handoff:
                    return function
        raise HandlerMissing(
            f"no handler {handoff.module}.{handoff.function}: correct the name that is returned, "
            f"or list {handoff.module} in `queues` of the settings"
        )

    def _continue(self, handoff: Handoff, message: HasRecipient, ran: list[Handler]) -> None:
        """Run the handler of a handoff here, unless it has run: without a pool there is no other queue."""
        function = self.function_of(handoff)
        if not handler_marks.is_stateless(function):
            self.begin_state(handoff.module, message, handoff.function)
        if function not in ran:
            ran.append(function)
            groups = next((g for functions, g in self.match(message.To or "") if function in functions), {})
            self.call_safely(function, message, groups)

    def _undeliverable(self, message: HasRecipient, why: str) -> None:
        if self.UNDELIVERABLE_QUEUE is not None:
            undeliverable.push(self.UNDELIVERABLE_QUEUE, message, why)
        else:
            LOG.warning("undeliverable message for %s from %s: %s", message.To, message.From, why)

    def _log_or_raise(self, what: str) -> None:
        """In an `except` clause: log the exception, or raise it if `LOG_EXCEPTIONS` is off."""
        if not self.LOG_EXCEPTIONS:
            raise  # what the caller's except clause has caught
        LOG.exception(what)


Router: Final = RoutingBase()
