"""Functions that take a list of messages, by `@batch`: how they are called, and what their results mean for each.

A result for all is a plain handler's: nothing, `"module.FUNCTION"`, or what it raises. A mapping from messages to any
of these says it for one: `{message: Defer("its blog is down")}`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from maildefer import log_context
from maildefer.handling import handler_marks
from maildefer.handling.exceptions import outcome_of
from maildefer.handling.handler_marks import Handler, HasRecipient
from maildefer.handling.outcomes import ACKED, Deferred, HandedOff, Outcome
from maildefer.handling.results import Handoff, ensure_run, handoff_in, interpreted

if TYPE_CHECKING:
    from maildefer.handling.handoff.resolve import HandoffResolver
    from maildefer.handling.routes import RoutingBase
    from maildefer.handling.step import HandlerStep

MOST_MESSAGES: Final = 1000
LONGEST_LINGER_SECONDS: Final = 3600.0

Verdict = BaseException | str | None
"""For one message: as if it had been raised, or returned."""


class Batches:
    """Runs the `@batch` functions of one queue."""

    def __init__(self, router: RoutingBase, onward: HandoffResolver) -> None:
        self._router = router
        self._onward = onward

    def run(self, step: HandlerStep, messages: Sequence[HasRecipient]) -> list[Outcome] | Deferred:
        """One call: an outcome for each message, in their order; or the one failure that the function raised.

        `Defer`, `Reject` and SMTP replies are no failures, but the function's word for all of them.
        """
        log_context.begin(list(messages), step.name)
        try:
            if step.nolocking:
                returned = step.given(list(messages))
            else:
                with self._router.lock:
                    returned = step.given(list(messages))
            said = verdicts(step.given, messages, returned)
        except BaseException as fault:  # noqa: BLE001  # no worker ends for a sys.exit in a handler
            outcome = outcome_of(fault, step.module)
            if isinstance(outcome, Deferred) and outcome.error is not None:
                return outcome
            return [outcome] * len(messages)
        try:
            return [self._outcome(one, message, step) for one, message in zip(said, messages, strict=True)]
        finally:
            if self._router.keeps_states:
                for message in messages:
                    self._router.attempt_ended(message)

    def _outcome(self, said: Verdict, message: HasRecipient, step: HandlerStep) -> Outcome:
        if said is None:
            return ACKED
        if isinstance(said, BaseException):
            return outcome_of(said, step.module)
        handoff = handoff_in(said)
        assert handoff is not None, said
        outcome = self._onward.outcome(handoff)
        return self._onward.begun(outcome, message) if isinstance(outcome, HandedOff) else outcome


def one_by_one(function: Handler) -> Handler:
    """A `@batch` function as one that takes a single message, by lists of one; any other function as it is.

    For where messages come one at a time: in tests, in `Router.deliver`, and beside other handlers of a message.
    """
    if handler_marks.batch_of(function) is None:
        return function

    @functools.wraps(function)
    def alone(message: Any, **captures: Any) -> object:
        message.captures = captures
        [said] = verdicts(function, [message], function([message]))
        if isinstance(said, BaseException):
            raise said
        return said

    return alone


def verdicts(function: Handler, messages: Sequence[object], returned: object) -> list[Verdict]:
    """What the function's result says for each of its messages. Raises `TypeError` for a mapping that says nonsense."""
    if not isinstance(returned, Mapping):
        following = interpreted(function, returned)
        return [".".join(following) if isinstance(following, Handoff) else None] * len(messages)
    ensure_run(function, [said for said in returned.values() if not isinstance(said, BaseException | type)])
    given = {id(message): said for message, said in returned.items()}
    found = [given.pop(id(message), None) for message in messages]
    for said in found:
        if not (
            said is None or isinstance(said, BaseException) or (isinstance(said, str) and handoff_in(said))
        ):
            raise TypeError(
                f"{handler_marks.full_name(function)} returned {said!r} for a message: "
                'give Defer(…), Reject(…), another exception, "module.FUNCTION", or None'
            )
    if given:
        raise TypeError(
            f"{handler_marks.full_name(function)} returned a mapping with what is none of its messages: "
            "use them as its keys"
        )
    return found
