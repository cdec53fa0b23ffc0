"""Runs the handlers of a message, and makes one outcome of their results.

A dispatcher runs only functions whose module its queue lists. It catches every exception of a handler.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from maildefer import log_context
from maildefer.errors import RouteTooSlow, RouteUntried, StorageFault
from maildefer.handling import handler_marks
from maildefer.handling.calls.batch import Batches
from maildefer.handling.calls.step import HandlerStep, step_of
from maildefer.handling.handler_marks import ERROR_STATE, Handler, HasRecipient
from maildefer.handling.handoff import HandoffResolver
from maildefer.handling.limits.admission import (
    ConversationTokens,
    LimitSlots,
    batch_within_limits,
    within_limits,
    within_tokens,
)
from maildefer.handling.outcomes import (
    ACKED,
    NO_ROUTE,
    Buried,
    Deferred,
    HandedOff,
    Outcome,
    Postponed,
    no_handler_text,
    worst,
)
from maildefer.handling.results import Handoff, failure, meaning_of, outcome_of
from maildefer.handling.routes import RoutingBase
from maildefer.matching.index import MatchLike, Pattern, PatternTable
from maildefer.message.addresses import TASK_DOMAIN

FAULT_SECONDS: Final = 30.0

# A row: its steps, whether any of them needs a token or slot: it is stateful, limited, or its calls must not overlap.
_Row = tuple[Sequence[HandlerStep], bool]
_Matched = list[tuple[_Row, MatchLike]]


class Dispatcher:
    """Runs the handlers of one queue, or all handlers of the router if `modules` is None.

    `dispatch` may be called by several threads; handlers then run one at a time, but for `@nolocking` ones.
    `queues_of` says which queues list a module, for handoffs; without it, handoffs are not checked against queues.
    `tokens` keeps other workers out of a conversation; a single process needs none. `limits` keeps the limits of
    handlers, which without it hold for nobody. `running` is called with the name
    of each handler before it runs, its own time limit in seconds, if it has one, and its `most_timeouts`.
    """

    def __init__(
        self,
        router: RoutingBase,
        modules: Collection[str] | None = None,
        *,
        queues_of: Mapping[str, Sequence[str]] | None = None,
        tokens: ConversationTokens | None = None,
        limits: LimitSlots | None = None,
        running: Callable[[str, float | None, int], None] | None = None,
    ) -> None:
        self._router = router
        self._modules = None if modules is None else frozenset(modules)
        self._handoffs = HandoffResolver(router, queues_of)
        self._batches = Batches(router.lock, self._handoffs.hand_on)
        self._tokens = tokens
        self._limits = limits
        self._running = running
        self._generation = -1
        self._table: PatternTable[_Row] = PatternTable(())
        self._stateful_modules: frozenset[str] = frozenset()

    def dispatch(self, message: HasRecipient) -> tuple[Outcome, str]:
        """Run every handler of the message; returns the worst outcome, and the handlers' full names."""
        return log_context.run_handlers(self._dispatch, message)

    def _dispatch(self, message: HasRecipient) -> tuple[Outcome, str]:
        if self._generation != self._router.generation:
            self._build()
        try:
            matched = self._table.matches(message.To or "")
        except RouteTooSlow as fault:  # as it would be at each attempt
            return Buried(str(fault)), ""
        except RouteUntried as fault:
            return (failure(fault, None) if fault.failed else Postponed(FAULT_SECONDS, str(fault))), ""
        if not matched:
            return Buried(_no_route(message.To or "")), ""
        try:
            for (_, needs_token), _ in matched:
                if needs_token:
                    return self._run_with_tokens(message, matched)
            return self._run_matched(message, matched)
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
        keeper gives it up): the most patient one counts, and no `@batch`, whose death charges messages without a part.
        """
        try:
            steps = [step for (steps, _), _ in self._matched(message) for step in steps]
        except (RouteTooSlow, RouteUntried):
            return None
        allowed = [step.retry.max_attempts if step.retry and step.terms is None else None for step in steps]
        known = [number for number in allowed if number is not None]
        return max(known) if known and len(known) == len(allowed) else None

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
        message.captures = matched[0][1].groupdict()  # type: ignore[attr-defined]  # a MailRequest takes it
        return steps[0]

    def dispatch_batch(self, step: HandlerStep, messages: Sequence[HasRecipient]) -> list[Outcome] | Deferred:
        """Run a `@batch` function once: an outcome for each message, or one failure, which any of them may cause."""
        if self._limits is None or not step.limits:
            return self._run_batch(step, messages)
        return batch_within_limits(self._limits, step, messages, lambda: self._run_batch(step, messages))

    def _run_batch(self, step: HandlerStep, messages: Sequence[HasRecipient]) -> list[Outcome] | Deferred:
        if self._running is not None:
            self._running(step.name, step.timeout_seconds, step.most_timeouts)
        try:
            return log_context.run_handlers(self._batches.run, step, messages)
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

    def _matched(self, message: HasRecipient) -> _Matched:
        if self._generation != self._router.generation:
            self._build()
        return self._table.matches(message.To or "")

    def _build(self) -> None:
        """Make the table of patterns and steps from the router's routes."""
        generation = self._router.generation
        table: list[tuple[Pattern, _Row]] = []
        for pattern, functions in self._router.table():
            mine = filter(self._has_function, functions)
            steps = tuple(step_of(function, self._router.middleware) for function in mine)
            if steps:
                needs_token = any(not s.stateless or s.call_token or s.limits for s in steps)
                table.append((pattern, (steps, needs_token)))
        self._stateful_modules = frozenset(
            s.module for _, (steps, _) in table for s in steps if not s.stateless
        )
        self._table, self._generation = PatternTable(table), generation

    def _has_function(self, function: Handler) -> bool:
        return self._modules is None or handler_marks.module_of(function) in self._modules

    def _run_with_tokens(self, message: HasRecipient, matched: _Matched) -> tuple[Outcome, str]:
        """Run the handlers under the tokens of all their conversations, which are taken before any handler runs."""
        tokens = self._tokens
        if tokens is None:
            return self._run_within_limits(message, matched)
        log_context.begin_handler(message, "")
        try:
            wanted = self._conversations(message, matched)
        except Exception as fault:  # noqa: BLE001  # a @state_key_generator is the user's code
            return failure(fault, None), ""
        return within_tokens(tokens, wanted, lambda: self._run_within_limits(message, matched))

    def _conversations(self, message: HasRecipient, matched: _Matched) -> list[str]:
        """What the message needs tokens for, sorted: all workers take them in one order, so no two can deadlock.

        Its conversations, and calls of `@batch` functions with this message alone.
        """
        modules = {
            step.module
            for (steps, _), _ in matched
            for step in steps
            if not step.stateless and not step.nolocking
        }
        calls = {step.call_token for (steps, _), _ in matched for step in steps if step.call_token}
        conversations = {ascii([self._router.state_key(module, message), message.From]) for module in modules}
        return sorted(conversations | calls)

    def _run_within_limits(self, message: HasRecipient, matched: _Matched) -> tuple[Outcome, str]:
        if self._limits is None:
            return self._run_matched(message, matched)
        return within_limits(
            self._limits,
            message,
            matched,
            self._router.get_state,
            lambda: self._run_matched(message, matched),
        )

    def _run_matched(self, message: HasRecipient, matched: _Matched) -> tuple[Outcome, str]:
        """Run each stateless handler, and the first stateful one that is its module's state when its turn comes."""
        outcome: Outcome = ACKED
        handoffs: list[HandedOff] | None = None  # most messages have none
        names = ""
        chosen = False
        states: dict[str, str] = {}  # as read since a handler last ran
        for (steps, _), found in matched:
            groups = found.groupdict()
            for step in steps:
                if not step.stateless:
                    if chosen:
                        continue
                    try:
                        if step.module not in states:
                            states[step.module] = self._router.get_state(step.module, message)
                        if states[step.module] != step.state:
                            continue
                    except Exception as fault:  # noqa: BLE001  # the store may be the user's
                        chosen = True
                        outcome = worst(outcome, _state_fault(fault, step, ran=bool(names)))
                        if isinstance(outcome, Postponed):
                            return outcome, ""
                        continue
                    chosen = True
                names = f"{names},{step.name}" if names else step.name
                ended = self._run(step, message, groups)
                if states:
                    states.clear()
                if ended is not ACKED:
                    outcome = worst(outcome, ended)
                    if type(ended) is HandedOff:
                        handoffs = [*(handoffs or ()), ended]
        if not names and outcome is ACKED:
            known = ", ".join(step.name for (steps, _), _ in matched for step in steps)
            return Buried("no handler in the sender's state", detail=no_handler_text(known, states)), ""
        if handoffs and type(outcome) is HandedOff:
            outcome = handoffs[0] if len(handoffs) == 1 else self._handoffs.combine(handoffs)
            if type(outcome) is HandedOff:
                outcome = self._handoffs.begin_state(outcome, message)
        return outcome, names

    def _run(self, step: HandlerStep, message: HasRecipient, groups: dict[str, Any]) -> Outcome:
        log_context.begin_handler(message, step.name)
        if self._running is not None:
            self._running(step.name, step.timeout_seconds, step.most_timeouts)
        try:
            if step.nolocking:
                result = step.function(message, **groups)
            else:
                with self._router.lock:
                    result = step.function(message, **groups)
            if result is None:
                return ACKED
            following = meaning_of(step.function, result)
            if following is None:
                return ACKED
            if isinstance(following, Handoff):
                return self._handoffs.resolve(following)
            self._router.set_state(following.module, message, following.state)
            return ACKED
        except BaseException as fault:  # noqa: BLE001  # no worker ends for a sys.exit in a handler
            return outcome_of(fault, step.module, step.retry)


def _state_fault(fault: Exception, step: HandlerStep, *, ran: bool) -> Outcome:
    """The outcome where a state can't be read: postponed, and not charged, if no handler has run yet."""
    if isinstance(fault, StorageFault) and not ran:
        return Postponed(FAULT_SECONDS, f"its state can't be read: {fault}")
    return failure(fault, step.module, step.retry)


def _no_route(address: str) -> str:
    """The reason of a burial; a call of a task that was renamed or removed is named as one."""
    name, _, domain = address.rpartition("@")
    if domain != TASK_DOMAIN:
        return NO_ROUTE
    return f"{NO_ROUTE}: no module of this queue has the task {name}: was it renamed or removed?"
