"""Runs the handlers that match a message, and makes one outcome of their results."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from functools import partial
from inspect import isawaitable
from typing import Any

from maildefer import log_context
from maildefer.errors import StorageFault
from maildefer.handling.calls.event_loop import called_outside
from maildefer.handling.calls.step import HandlerStep
from maildefer.handling.calls.terms import CallTerms, at_once
from maildefer.handling.handler_marks import HasRecipient
from maildefer.handling.handoff import HandoffResolver
from maildefer.handling.limits.admission import FAULT_SECONDS, within_limits, within_tokens
from maildefer.handling.outcomes import ACKED, Buried, HandedOff, Outcome, Postponed, no_handler_text, worst
from maildefer.handling.results import Handoff, failure, meaning_of, outcome_of
from maildefer.handling.routes import RoutingBase

# A row: its steps, whether any of them needs a token or slot: it is stateful, limited, or its calls must not overlap.
Row = tuple[Sequence[HandlerStep], bool]
Matched = Sequence[tuple[Row, Mapping[str, Any]]]


class HandlersOfMessage:
    """Runs what has matched a message; for any number of messages at a time."""

    def __init__(self, router: RoutingBase, handoffs: HandoffResolver) -> None:
        self._router = router
        self._handoffs = handoffs

    def run_here(self, message: HasRecipient, matched: Matched, terms: CallTerms) -> tuple[Outcome, str]:
        """Run the handlers, each to its end; the worst outcome, and the handlers' full names."""
        (steps, needs_token), groups = matched[0]
        if needs_token or len(steps) > 1 or len(matched) > 1:  # as for few messages: it costs 0.6 µs
            return at_once(self.run(message, matched, terms))
        step = steps[0]
        ended = self._run(step, message, groups, terms)
        if ended is not ACKED:
            if isinstance(ended, Coroutine):
                ended = at_once(ended)
            if isinstance(ended, HandedOff):
                ended = self._handoffs.begin_state(ended, message)
        return ended, step.name

    async def run(self, message: HasRecipient, matched: Matched, terms: CallTerms) -> tuple[Outcome, str]:
        """Run the handlers: by `CallTerms` each to its end, or on a loop, so that others run meanwhile."""
        for (_, needs_token), _ in matched:
            if needs_token:
                return await self._run_with_tokens(message, matched, terms)
        return await self._run_matched(message, matched, terms)

    async def _run_with_tokens(
        self, message: HasRecipient, matched: Matched, terms: CallTerms
    ) -> tuple[Outcome, str]:
        """Run the handlers under the tokens of all their conversations, which are taken before any handler runs."""
        if terms.tokens is None:
            return await self._run_within_limits(message, matched, terms)
        log_context.begin_handler(message, "")
        try:
            wanted = self._conversations(message, matched)
        except Exception as fault:  # noqa: BLE001  # a @state_key_generator is the user's code
            return failure(fault, None), ""
        run = partial(self._run_within_limits, message, matched, terms)
        return await within_tokens(terms.tokens, wanted, run)

    def _conversations(self, message: HasRecipient, matched: Matched) -> list[str]:
        """What the message needs tokens for, sorted: all workers take them in one order, so no two can deadlock.

        Its conversations, and calls of `@batch` functions with this message alone.
        """
        all_steps = [step for (steps, _), _ in matched for step in steps]
        modules = {step.module for step in all_steps if not step.stateless and not step.nolocking}
        calls = {step.call_token for step in all_steps if step.call_token}
        conversations = {ascii([self._router.state_key(module, message), message.From]) for module in modules}
        return sorted(conversations | calls)

    async def _run_within_limits(
        self, message: HasRecipient, matched: Matched, terms: CallTerms
    ) -> tuple[Outcome, str]:
        if terms.limits is None:
            return await self._run_matched(message, matched, terms)
        run = partial(self._run_matched, message, matched, terms)
        return await within_limits(terms.limits, message, matched, self._router.get_state, run)

    async def _run_matched(
        self, message: HasRecipient, matched: Matched, terms: CallTerms
    ) -> tuple[Outcome, str]:
        """Run each stateless handler, and the first stateful one that is its module's state when its turn comes."""
        outcome: Outcome = ACKED
        handoffs: list[HandedOff] | None = None  # most messages have none
        names = ""
        chosen = False
        states: dict[str, str] = {}  # as read since a handler last ran
        for (steps, _), groups in matched:
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
                ended = self._run(step, message, groups, terms)
                if ended is not ACKED and isinstance(ended, Coroutine):
                    ended = await ended
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

    def _run(
        self, step: HandlerStep, message: HasRecipient, groups: Mapping[str, Any], terms: CallTerms
    ) -> Outcome | Coroutine[Any, Any, Outcome]:
        """Run one handler; where it returns what is awaitable, the rest of that is returned."""
        log_context.begin_handler(message, step.name)
        try:
            if terms.running is not None:
                terms.running(step.name, step.timeout_seconds, step.most_timeouts)
            function = partial(called_outside, step.function) if terms.on_loop else step.function
            if step.nolocking:
                result = function(message, **groups)
            else:
                terms.lock.acquire()  # half the time of a `with`
                try:
                    result = function(message, **groups)
                finally:
                    terms.lock.release()
            if result is None:
                return ACKED
            if isawaitable(result):
                return self._await(step, message, result, terms)
            return self._outcome(step, message, result)
        except BaseException as fault:  # noqa: BLE001  # no worker ends for a sys.exit in a handler
            return outcome_of(fault, step.module, step.retry)

    async def _await(
        self, step: HandlerStep, message: HasRecipient, result: Awaitable[object], terms: CallTerms
    ) -> Outcome:
        try:
            return self._outcome(step, message, await terms.finished(step, result))
        except BaseException as fault:  # noqa: BLE001  # also a cancellation, by whatever
            return outcome_of(fault, step.module, step.retry)

    def _outcome(self, step: HandlerStep, message: HasRecipient, result: object) -> Outcome:
        following = meaning_of(step.function, result)
        if following is None:
            return ACKED
        if isinstance(following, Handoff):
            return self._handoffs.resolve(following)
        self._router.set_state(following.module, message, following.state)
        return ACKED


def _state_fault(fault: Exception, step: HandlerStep, *, ran: bool) -> Outcome:
    """The outcome where a state can't be read: postponed, and not charged, if no handler has run yet."""
    if isinstance(fault, StorageFault) and not ran:
        return Postponed(FAULT_SECONDS, f"its state can't be read: {fault}")
    return failure(fault, step.module, step.retry)
