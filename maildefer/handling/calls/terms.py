"""With what handlers are called: by tokens, limits and a scoreboard; each to its end, or many on a loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import nullcontext
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, Protocol, TypeVar

from maildefer.handling.calls import event_loop
from maildefer.handling.calls.event_loop import CANCEL_GRACE_SECONDS
from maildefer.handling.calls.step import HandlerStep
from maildefer.handling.calls.threads import with_threads
from maildefer.handling.limits.admission import ConversationTokens, LimitSlots

T = TypeVar("T")


class Running(Protocol):
    """Called before each handler: its name, its own time limit, if it has one, and its `most_timeouts`.

    Once more for what it returned, if that is awaited: it is cancelled at the limit, and has the grace to end.
    """

    def __call__(
        self, name: str, limit_seconds: float | None, most: int, grace_seconds: float = 0.0, /
    ) -> None: ...


WithinLimit = Callable[[Awaitable[Any], str], Awaitable[Any]]
"""Awaits what a handler does, by its name, and cancels it at the limit that `Running` was told last."""


@dataclass(kw_only=True)
class CallTerms:
    """The terms of a dispatcher's calls, of which each runs to its end; those of `lock` run one at a time."""

    lock: RLock
    tokens: ConversationTokens | None = None
    limits: LimitSlots | None = None
    running: Running | None = None
    on_loop: bool = field(default=False, init=False)

    async def finished(self, step: HandlerStep, result: Awaitable[object]) -> object:
        """The result of what is awaitable; without a time limit but its own."""
        if self.running is not None and step.timeout_seconds is not None:
            self.running(step.name, step.timeout_seconds, step.most_timeouts, CANCEL_GRACE_SECONDS)
        with nullcontext() if step.nolocking else self.lock:
            return event_loop.finished(result, step.timeout_seconds, step.name)


@dataclass(kw_only=True)
class LoopTerms(CallTerms):
    """The terms for one message, or batch, among others on the loop that runs."""

    within_limit: WithinLimit | None = None
    on_loop: bool = field(default=True, init=False)

    async def finished(self, step: HandlerStep, result: Awaitable[object]) -> object:
        if self.within_limit is not None:
            return await self.within_limit(with_threads(result), step.name)
        return await event_loop.within_limit(result, step.timeout_seconds, step.name)


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run the handlers of one attempt, which wait for nothing by `CallTerms`, without a loop."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("tokens and slots that wait are for `Dispatcher.begin`, on a loop")
