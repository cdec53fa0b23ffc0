"""Calls `@batch` functions, which take a list of messages: one call, and an outcome for each message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from inspect import isawaitable

from maildefer import log_context
from maildefer.handling.calls.event_loop import called_outside
from maildefer.handling.calls.step import HandlerStep
from maildefer.handling.calls.terms import CallTerms
from maildefer.handling.handler_marks import HasRecipient
from maildefer.handling.outcomes import ACKED, Deferred, Outcome
from maildefer.handling.results import Handoff, MessageResult, handoff_in, outcome_of, result_of_each


class Batches:
    """Runs the `@batch` functions of one queue; `hand_on` resolves their handoffs."""

    def __init__(self, hand_on: Callable[[Handoff, HasRecipient], Outcome]) -> None:
        self._hand_on = hand_on

    async def run(
        self, step: HandlerStep, messages: Sequence[HasRecipient], terms: CallTerms
    ) -> list[Outcome] | Deferred:
        """Call the function once: an outcome for each message, in order; or the one failure that it raised.

        `Defer`, `Reject` and SMTP replies are no failures: they hold for all messages.
        """
        log_context.begin_handler(list(messages), step.name)
        try:
            if terms.running is not None:
                terms.running(step.name, step.timeout_seconds, step.most_timeouts)
            function = step.batch_function
            call = partial(called_outside, function) if terms.on_loop else function
            with nullcontext() if step.nolocking else terms.lock:
                returned = call(list(messages))
            if isawaitable(returned):
                returned = await terms.finished(step, returned)
            said = result_of_each(step.batch_function, messages, returned)
        except BaseException as fault:  # noqa: BLE001  # no worker ends for a sys.exit in a handler
            outcome = outcome_of(fault, step.module, step.retry)
            if isinstance(outcome, Deferred) and outcome.error is not None:
                return outcome
            return [outcome] * len(messages)
        return [self._outcome(one, message, step) for one, message in zip(said, messages, strict=True)]

    def _outcome(self, said: MessageResult, message: HasRecipient, step: HandlerStep) -> Outcome:
        if said is None:
            return ACKED
        if isinstance(said, BaseException):
            return outcome_of(said, step.module, step.retry)
        handoff = handoff_in(said)
        assert handoff is not None, said
        return self._hand_on(handoff, message)
