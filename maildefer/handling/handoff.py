"""Finds the queue of a handoff: the one queue that lists the module of the handler to which it goes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from maildefer.errors import HandlerMissing
from maildefer.handling import handler_marks
from maildefer.handling.handler_marks import Handler, HasRecipient
from maildefer.handling.outcomes import Buried, HandedOff, Outcome
from maildefer.handling.results import Handoff, failure
from maildefer.handling.routes import RoutingBase


class HandoffResolver:
    """Resolves the handoffs of one application. `queues_of`: the queues that list a module; None: not looked up."""

    def __init__(self, router: RoutingBase, queues_of: Mapping[str, Sequence[str]] | None) -> None:
        self._router = router
        self._queues_of = queues_of

    def resolve(self, handoff: Handoff) -> Outcome:
        """The outcome of a handoff: to the one queue that lists the module; buried without such a function or queue."""
        name = f"{handoff.module}.{handoff.function}"
        try:
            self._function(handoff)
        except HandlerMissing as missing:
            return Buried(f"no handler {name}", detail=str(missing))
        except Exception as fault:  # noqa: BLE001  # raised by the module's own code
            return failure(fault, None)
        if self._queues_of is None:
            return HandedOff(handoff.module, handoff.function)
        queues = self._queues_of.get(handoff.module, ())
        if len(queues) == 1:
            return HandedOff(handoff.module, handoff.function, queues[0])
        if queues:
            return Buried(f"{name} is in several queues: {', '.join(queues)}")
        return Buried(f"{name} is in no queue")

    def hand_on(self, handoff: Handoff, message: HasRecipient) -> Outcome:
        """Resolve the one handoff of a message, and begin its state."""
        outcome = self.resolve(handoff)
        return self.begin_state(outcome, message) if isinstance(outcome, HandedOff) else outcome

    def combine(self, handoffs: Sequence[HandedOff]) -> Outcome:
        """The one outcome of several handlers' handoffs of a message, since an entry moves to one queue.

        In that queue each stateless handler runs whose route matches, and one state: handoffs to one queue that name
        one state at most are one handoff. Others are buried, since any choice would lose the rest.
        """
        try:
            states = [one for one in handoffs if self._is_state(one)]
        except Exception as fault:  # noqa: BLE001  # of the module, from which a reload may have removed the function
            return failure(fault, None)
        places = {one.queue if self._queues_of is not None else one.module for one in handoffs}
        if len(places) == 1 and len({(one.module, one.function) for one in states}) <= 1:
            return next(iter(states or handoffs))
        names = dict.fromkeys(
            f"{one.module}.{one.function}" + (f" ({one.queue})" if one.queue else "") for one in handoffs
        )
        return Buried(
            f"handed on to several places: {', '.join(names)}: let one handler hand on, "
            "and the others push a copy into the queue that they mean, or call a task"
        )

    def begin_state(self, outcome: HandedOff, message: HasRecipient) -> Outcome:
        """Set the sender's state, if the handoff goes to a state function, so that this function gets the message."""
        try:
            function = self._function(Handoff(outcome.module, outcome.function))
            if not handler_marks.is_stateless(function):
                self._router.begin_state(outcome.module, message, outcome.function)
        except Exception as fault:  # noqa: BLE001  # the store may be the user's
            return failure(fault, outcome.module)
        return outcome

    def _is_state(self, outcome: HandedOff) -> bool:
        return not handler_marks.is_stateless(self._function(Handoff(outcome.module, outcome.function)))

    def _function(self, handoff: Handoff) -> Handler:
        """The function of the handoff. A receiver imports the module of another queue at the first handoff to it."""
        if handoff.module in (self._queues_of or ()) and handoff.module not in sys.modules:
            self._router.load([handoff.module])
        return self._router.function_of(handoff)
