"""What a message needs before its handlers run: tokens of its conversations, then a slot of each limit; all or none.

A message that must wait is postponed and holds nothing meanwhile, so that no two can wait for each other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

from maildefer import log_context
from maildefer.errors import StorageFault
from maildefer.handling import handler_marks
from maildefer.handling.handler_marks import Handler, RetryTerms
from maildefer.handling.limits.limit import Limit, LimitUse
from maildefer.handling.outcomes import Outcome, Postponed
from maildefer.handling.results import ensure_run, outcome_of

T = TypeVar("T")
TOKEN_SECONDS: Final = 1.0
FAULT_SECONDS: Final = 30.0


class ConversationTokens(Protocol):
    """The tokens by which one worker of all hosts at a time handles a conversation."""

    def take_token(self, conversation: str, /) -> bool | Awaitable[bool]:
        """Take the token; False while another worker holds it. Raises StorageFault's kinds.

        An awaitable is for a message on a loop, which a wait must not block.
        """

    def release_token(self, conversation: str, /) -> None:
        """Let other workers take the token."""


class LimitSlots(Protocol):
    """What keeps limits over all hosts; of one worker, or of one message on its loop."""

    def take_slots(
        self, uses: Sequence[LimitUse], key: str | None, /
    ) -> Postponed | Awaitable[Postponed | None] | None:
        """Take a slot of each limit for the entry of that key, or none and say for how long it is postponed.

        Raises StorageFault's kinds.
        """

    def release_slots(self, outcome: Outcome | None, /) -> Outcome | None:
        """Release what was taken; returns the outcome to settle, another one where a destination is down.

        `outcome` is None for a batch, and where nothing ended. Raises nothing.
        """


class LimitedStep(Protocol):
    """The part of a `HandlerStep` that limits need."""

    @property
    def function(self) -> Handler: ...
    @property
    def name(self) -> str: ...
    @property
    def module(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def stateless(self) -> bool: ...
    @property
    def limits(self) -> tuple[Limit, ...]: ...
    @property
    def retry(self) -> RetryTerms | None: ...


async def within_tokens(
    tokens: ConversationTokens, wanted: Sequence[str], run: Callable[[], Awaitable[tuple[Outcome, str]]]
) -> tuple[Outcome, str]:
    """Run handlers under the tokens of conversations, and of calls that must not overlap."""
    taken: list[str] = []
    try:
        for conversation in wanted:
            is_taken = tokens.take_token(conversation)
            if not (is_taken if isinstance(is_taken, bool) else await is_taken):
                reason = f"another worker handles the conversation {conversation}"
                if not conversation.startswith("["):
                    reason = f"another worker is in the {conversation}"
                return Postponed(TOKEN_SECONDS, reason), ""
            taken.append(conversation)
        return await run()
    finally:
        for conversation in reversed(taken):
            tokens.release_token(conversation)


async def within_limits(
    slots: LimitSlots,
    message: Any,
    matched: Iterable[tuple[tuple[Sequence[LimitedStep], bool], Mapping[str, Any]]],
    get_state: Callable[[str, Any], str],
    run: Callable[[], Awaitable[tuple[Outcome, str]]],
) -> tuple[Outcome, str]:
    """Run the handlers that match the message under the limits of those whose turn it is."""
    uses: list[LimitUse] = []
    for step, groups in ((step, groups) for (steps, _), groups in matched for step in steps if step.limits):
        log_context.begin_handler(message, step.name)
        try:
            if step.stateless or get_state(step.module, message) == step.state:
                uses += uses_of(step, message, groups)
        except StorageFault as fault:  # the state can't be read
            return Postponed(FAULT_SECONDS, f"the limits of {step.name} can't be read: {fault}"), ""
        except BaseException as fault:  # noqa: BLE001  # the key may be a function of the user's
            return outcome_of(fault, step.module, step.retry), step.name
    full = await _taken(slots, uses, message) if uses else None
    if full is not None:
        return full, ""
    if not uses:
        return await run()
    ended: Outcome | None = None
    try:
        ended, names = await run()
    finally:
        settled = slots.release_slots(ended)
    return settled or ended, names


async def batch_within_limits(
    slots: LimitSlots, step: LimitedStep, messages: Sequence[object], run: Callable[[], Awaitable[T]]
) -> T | list[Outcome]:
    """Run a `@batch` under its limits, which count calls."""
    uses = tuple(LimitUse(limit, step.name) for limit in step.limits)
    full = await _taken(slots, uses, messages[0])
    if full is not None:
        return [full] * len(messages)
    try:
        return await run()
    finally:
        slots.release_slots(None)


async def _taken(slots: LimitSlots, uses: Sequence[LimitUse], message: object) -> Postponed | None:
    full = slots.take_slots(uses, handler_marks.entry_key(message))
    return full if full is None or isinstance(full, Postponed) else await full


def uses_of(step: LimitedStep, message: Any, captures: Mapping[str, Any]) -> Iterator[LimitUse]:
    """The limits of a handler for one message. Raises what a key's function, or reading a task's call, raises."""
    task = handler_marks.task_of(step.function)
    for limit in step.limits:
        if limit.choose is not None:
            yield from limit.choose(message)
        elif limit.key is None:
            yield LimitUse(limit, step.name)
        elif task is None:
            yield LimitUse(limit, step.name, _key_of(limit, (message,), captures))
        else:
            yield LimitUse(limit, step.name, _key_of(limit, (), task.arguments_in(message)))


def _key_of(limit: Limit, message: tuple[Any, ...], given: Mapping[str, Any]) -> str:
    """The key's value as a text. Case does not count: who sends the message chooses it, as in an address."""
    assert limit.key is not None
    if isinstance(limit.key, str):
        value = given[limit.key]
    else:
        value = limit.key(*message, **given)
        ensure_run(limit.key, value)  # the text of a coroutine would be a key of its own for each message
    return str(value).casefold().encode("utf-8", "backslashreplace").decode()
