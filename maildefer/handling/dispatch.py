"""Finds the handlers of a message, and has them run: one message at a time, or many on a worker's event loop.

A dispatcher runs only functions whose module its queue lists. It catches every exception of a handler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping, Sequence

from maildefer import log_context
from maildefer.errors import RouteTooSlow, RouteUntried
from maildefer.handling import handler_marks
from maildefer.handling.calls.batch import Batches
from maildefer.handling.calls.step import HandlerStep, step_of
from maildefer.handling.calls.terms import CallTerms, LoopTerms, Running, WithinLimit, at_once
from maildefer.handling.handler_marks import ERROR_STATE, Handler, HasRecipient
from maildefer.handling.handoff import HandoffResolver
from maildefer.handling.limits.admission import (
    FAULT_SECONDS,
    ConversationTokens,
    LimitSlots,
    batch_within_limits,
)
from maildefer.handling.outcomes import NO_ROUTE, Buried, Deferred, Outcome, Postponed
from maildefer.handling.results import failure
from maildefer.handling.routes import RoutingBase
from maildefer.handling.run_handlers import HandlersOfMessage, Matched, Row
from maildefer.matching.index import Pattern, PatternTable
from maildefer.message.addresses import TASK_DOMAIN


class Dispatcher:
    """Runs the handlers of one queue, or all handlers of the router if `modules` is None.

    `dispatch` may be called by several threads; handlers then run one at a time, but for `@nolocking` ones.
    `queues_of` says which queues list a module, for handoffs; without it, handoffs are not checked against queues.
    `tokens` keeps other workers out of a conversation; a single process needs none. `limits` keeps the limits of
    handlers, which without it hold for nobody. All three hold for `dispatch`; `begin` is given its own. `keep_seconds`
    is for how long messages are kept whose handlers have no `@keep`.
    """

    def __init__(
        self,
        router: RoutingBase,
        modules: Collection[str] | None = None,
        *,
        queues_of: Mapping[str, Sequence[str]] | None = None,
        tokens: ConversationTokens | None = None,
        limits: LimitSlots | None = None,
        running: Running | None = None,
        keep_seconds: float = 0.0,
    ) -> None:
        self._router = router
        self._modules = None if modules is None else frozenset(modules)
        self._handoffs = HandoffResolver(router, queues_of)
        self._handlers = HandlersOfMessage(router, self._handoffs)
        self._batches = Batches(self._handoffs.hand_on)
        self._terms = CallTerms(lock=router.lock, tokens=tokens, limits=limits, running=running)
        self._keep_seconds = keep_seconds
        self.keeps: dict[
            str, float
        ] = {}  # by a handler's full name, for how many seconds what it has acked is kept
        self._generation = -1
        self._table: PatternTable[Row] = PatternTable(())
        self._stateful_modules: frozenset[str] = frozenset()
        self._kinds: frozenset[bool] = frozenset()  # of its handlers: async or not

    def dispatch(self, message: HasRecipient) -> tuple[Outcome, str]:
        """Run every handler of the message; returns the worst outcome, and the handlers' full names."""
        return log_context.run_handlers(self._dispatch, message)

    def _dispatch(self, message: HasRecipient) -> tuple[Outcome, str]:
        if self._generation != self._router.generation:
            self._build()
        try:
            if matched := self._table.matches(message.To or ""):
                return self._handlers.run_here(message, matched, self._terms)
            return _no_route(message), ""
        except (RouteTooSlow, RouteUntried) as fault:
            return _untried(fault), ""
        finally:
            if self._router.keeps_states:
                self._router.end_attempt(message)

    async def begin(
        self,
        message: HasRecipient,
        *,
        tokens: ConversationTokens | None = None,
        limits: LimitSlots | None = None,
        running: Running | None = None,
        within_limit: WithinLimit | None = None,
    ) -> tuple[Outcome, str]:
        """As `dispatch`, for one of many messages on a loop, each in a task of its own, with terms of its own.

        Handlers that are not async run in place. `within_limit` keeps time limits; without it, only those of `@timeout`
        are kept. A handler whose task is cancelled, by whatever, has failed. Raises CancelledError only if that is done
        while the message waits for tokens or slots.
        """
        terms = LoopTerms(
            lock=self._router.lock, tokens=tokens, limits=limits, running=running, within_limit=within_limit
        )
        return await log_context.await_handlers(self._begin(message, terms))

    async def _begin(self, message: HasRecipient, terms: CallTerms) -> tuple[Outcome, str]:
        try:
            if matched := self._matched(message):
                return await self._handlers.run(message, matched, terms)
            return _no_route(message), ""
        except (RouteTooSlow, RouteUntried) as fault:
            return _untried(fault), ""
        finally:
            if self._router.keeps_states:
                self._router.end_attempt(message)

    def matches(self, address: str) -> list[str]:
        """The full names of the functions whose routes match, in order, whatever their states are."""
        if self._generation != self._router.generation:
            self._build()
        return [step.name for (steps, _), _ in self._table.matches(address) for step in steps]

    def most_failures(self, message: HasRecipient) -> int | None:
        """After how many failures no handler of the message may run again, by `@retry(attempts=…)`; None for no limit.

        It is asked after a worker's death, of which it is not known which of the handlers was the cause (else the
        keeper gives it up): the most patient one counts, and neither a `@batch` nor an async one, whose death charges
        messages without a part; but of an async one, that it may never begin again.
        """
        try:
            steps = [step for (steps, _), _ in self._matched(message) for step in steps]
        except (RouteTooSlow, RouteUntried):
            return None
        allowed = [
            step.retry.max_attempts
            if step.retry and step.terms is None and (not step.is_async or step.retry.max_attempts == 1)
            else None
            for step in steps
        ]
        known = [number for number in allowed if number is not None]
        return max(known) if known and len(known) == len(allowed) else None

    @property
    def may_keep(self) -> bool:
        """Whether any handler's messages are kept."""
        if self._generation != self._router.generation:
            self._build()
        return bool(self.keeps)

    def keep_seconds_of(self, message: HasRecipient) -> float:
        """For how long a message is kept of which it is not known which handlers have acked it: by all that match."""
        try:
            names = self.matches(message.To or "")
        except (RouteTooSlow, RouteUntried):
            names = list(self.keeps)
        return max((self.keeps.get(name, 0.0) for name in names), default=0.0)

    def batch_for(self, message: HasRecipient) -> HandlerStep | None:
        """The `@batch` function that takes the message with others; None where the message is dispatched alone.

        It is dispatched alone, too, where routes of other handlers match it: then all their outcomes make one.
        """
        try:
            matched = self._matched(message)
        except (RouteTooSlow, RouteUntried):
            return None
        if len(matched) != 1 or len(steps := matched[0][0][0]) != 1 or steps[0].terms is None:
            return None
        message.captures = dict(matched[0][1])  # type: ignore[attr-defined]  # a MailRequest takes it
        return steps[0]

    def is_async(self, message: HasRecipient) -> bool:
        """Whether any handler that matches is async by its marks; `begin` is for others, too."""
        if self._generation != self._router.generation:
            self._build()
        if len(self._kinds) < 2:  # all are alike
            return True in self._kinds
        try:
            return any(step.is_async for (steps, _), _ in self._matched(message) for step in steps)
        except (RouteTooSlow, RouteUntried):
            return False

    def dispatch_batch(self, step: HandlerStep, messages: Sequence[HasRecipient]) -> list[Outcome] | Deferred:
        """Run a `@batch` function once: an outcome for each message, or one failure, which any of them may cause."""
        ended: list[Outcome] | Deferred = log_context.run_handlers(
            at_once, self._attempt_batch(step, messages, self._terms)
        )
        return ended

    async def begin_batch(
        self,
        step: HandlerStep,
        messages: Sequence[HasRecipient],
        *,
        limits: LimitSlots | None = None,
        running: Running | None = None,
        within_limit: WithinLimit | None = None,
    ) -> list[Outcome] | Deferred:
        """As `dispatch_batch`, on a loop: see `begin`."""
        lock = self._router.lock
        terms = LoopTerms(lock=lock, limits=limits, running=running, within_limit=within_limit)
        return await log_context.await_handlers(self._attempt_batch(step, messages, terms))

    async def _attempt_batch(
        self, step: HandlerStep, messages: Sequence[HasRecipient], terms: CallTerms
    ) -> list[Outcome] | Deferred:
        def run() -> Awaitable[list[Outcome] | Deferred]:
            return self._batches.run(step, messages, terms)

        try:
            if terms.limits is None or not step.limits:
                return await run()
            return await batch_within_limits(terms.limits, step, messages, run)
        finally:
            if self._router.keeps_states:
                for message in messages:
                    self._router.end_attempt(message)

    def buried(self, message: HasRecipient, outcome: Outcome) -> None:
        """Set the conversation to `ERROR` if the message is buried after an exception.

        This is not done earlier, so that each retry finds the handler that failed. Faults of the store are ignored:
        the entry goes to the dead letters in any case.
        """
        if isinstance(outcome, Deferred) and outcome.module in self._stateful_modules:
            try:
                self._router.set_state(outcome.module, message, ERROR_STATE)
            except Exception:  # noqa: BLE001, S110  # the state stays as it was, which is what a retry would find
                pass

    def _matched(self, message: HasRecipient) -> Matched:
        if self._generation != self._router.generation:
            self._build()
        return self._table.matches(message.To or "")

    def _build(self) -> None:
        """Make the table of patterns and steps from the router's routes."""
        generation = self._router.generation
        table: list[tuple[Pattern, Row]] = []
        for pattern, functions in self._router.table():
            mine = filter(self._has_function, functions)
            steps = tuple(step_of(function, self._router.middleware) for function in mine)
            if steps:
                needs_token = any(not s.stateless or s.call_token or s.limits for s in steps)
                table.append((pattern, (steps, needs_token)))
        self._stateful_modules = frozenset(
            s.module for _, (steps, _) in table for s in steps if not s.stateless
        )
        keeps = {
            s.name: self._keep_seconds if s.keep is None else s.keep for _, (steps, _) in table for s in steps
        }
        self.keeps = {name: seconds for name, seconds in keeps.items() if seconds}
        self._kinds = frozenset(step.is_async for _, (steps, _) in table for step in steps)
        self._table, self._generation = PatternTable(table), generation

    def _has_function(self, function: Handler) -> bool:
        return self._modules is None or handler_marks.module_of(function) in self._modules


def _no_route(message: HasRecipient) -> Buried:
    """The outcome where nothing matches; a call of a task that was renamed or removed is named as one."""
    name, _, domain = (message.To or "").rpartition("@")
    if domain != TASK_DOMAIN:
        return Buried(NO_ROUTE)
    return Buried(f"{NO_ROUTE}: no module of this queue has the task {name}: was it renamed or removed?")


def _untried(fault: RouteTooSlow | RouteUntried) -> Outcome:
    """The outcome where it can't be told what matches; a route that is too slow is so at each attempt."""
    if isinstance(fault, RouteTooSlow):
        return Buried(str(fault))
    return failure(fault, None) if fault.failed else Postponed(FAULT_SECONDS, str(fault))
