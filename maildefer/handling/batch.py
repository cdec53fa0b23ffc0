"""Runs `@batch` functions, which take a list of messages: one call, and an outcome for each message."""

from __future__ import annotations

from collections.abc import Sequence

from maildefer import log_context
from maildefer.handling.handler_marks import HasRecipient
from maildefer.handling.handoff import HandoffResolver
from maildefer.handling.outcomes import ACKED, Deferred, HandedOff, Outcome
from maildefer.handling.results import MessageResult, handoff_in, outcome_of, result_of_each
from maildefer.handling.routes import RoutingBase
from maildefer.handling.step import HandlerStep


class Batches:
    """Runs the `@batch` functions of one queue."""

    def __init__(self, router: RoutingBase, handoffs: HandoffResolver) -> None:
        self._router = router
        self._handoffs = handoffs

    def run(self, step: HandlerStep, messages: Sequence[HasRecipient]) -> list[Outcome] | Deferred:
        """Call the function once: an outcome for each message, in order; or the one failure that it raised.

        `Defer`, `Reject` and SMTP replies are no failures: they hold for all messages.
        """
        log_context.begin_handler(list(messages), step.name)
        try:
            if step.nolocking:
                returned = step.batch_function(list(messages))
            else:
                with self._router.lock:
                    returned = step.batch_function(list(messages))
            said = result_of_each(step.batch_function, messages, returned)
        except BaseException as fault:  # noqa: BLE001  # no worker ends for a sys.exit in a handler
            outcome = outcome_of(fault, step.module, step.retry)
            if isinstance(outcome, Deferred) and outcome.error is not None:
                return outcome
            return [outcome] * len(messages)
        try:
            return [self._outcome(one, message, step) for one, message in zip(said, messages, strict=True)]
        finally:
            if self._router.keeps_states:
                for message in messages:
                    self._router.end_attempt(message)

    def _outcome(self, said: MessageResult, message: HasRecipient, step: HandlerStep) -> Outcome:
        if said is None:
            return ACKED
        if isinstance(said, BaseException):
            return outcome_of(said, step.module, step.retry)
        handoff = handoff_in(said)
        assert handoff is not None, said
        outcome = self._handoffs.resolve(handoff)
        return self._handoffs.begin_state(outcome, message) if isinstance(outcome, HandedOff) else outcome
