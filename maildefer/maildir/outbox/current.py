"""Which attempt's outputs the code that runs now adds to: those of the message whose handlers it belongs to, or none.

A thread that a handler starts by itself has none, nor has its child process: what these push is pushed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Final, Protocol

from maildefer.maildir.layout import Layout, open_queue
from maildefer.maildir.push import Compose, Pusher


class CollectsOutputs(Protocol):
    """The outputs of one attempt."""

    def pushing(self, pusher: Pusher) -> Callable[[Compose], str]:
        """Return what pushes an entry into the pusher's queue, as an output if that is one of the project's."""


current: Final[ContextVar[CollectsOutputs | None]] = ContextVar("maildefer_outputs", default=None)

open_named: Callable[[str], Layout] = open_queue
"""Opens a queue by the name that the settings give it; set where settings are known."""


def pushing(pusher: Pusher, *, now: bool = False) -> Callable[[Compose], str]:
    """Return what pushes an entry into the pusher's queue: when the handlers have returned, or with `now` at once."""
    outputs = None if now else current.get()
    return pusher.push if outputs is None else outputs.pushing(pusher)


def push_together(pusher: Pusher, entries: Sequence[Compose], *, now: bool = False) -> None:
    """Push all of these, as `pushing` has it, or none. Raises what a push raises; a handler may go on with some."""
    push = pushing(pusher, now=now)
    if push == pusher.push:
        pusher.push_together(entries)
    else:
        for entry in entries:
            push(entry)
