"""What a message has done already: `with message.once("invoice-17") as first:`.

What a handler does outside of the queue can't be undone, and a worker can die between any two of its steps. So the
begin and the end of such a step are recorded on the mount, under the message's key, its bytes and the step's name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from weakref import WeakKeyDictionary

from maildefer.digest import blake2b
from maildefer.errors import EffectLost, EffectNameRefused, MessageHasNoKey, StorageFault
from maildefer.maildir.outbox.current import current

if TYPE_CHECKING:
    from types import TracebackType

    from maildefer.maildir.idempotency.effects import EffectState
    from maildefer.maildir.layout import Layout
    from maildefer.maildir.outbox.current import CollectsOutputs

T = TypeVar("T")

_in_tests: Final[WeakKeyDictionary[Any, dict[object, object]]] = WeakKeyDictionary()


class Once:
    """One effect of a message, for one block; `async with` does the same while the event loop goes on.

    In the block it is true where the effect is to be done. `interrupted`: an attempt before this one has begun it and
    not ended, so that it may have happened. False: it is done, and the block's end changes nothing. What is pushed in
    the block is pushed at once, as its end tells for good that it was.
    """

    __slots__ = ("_effect", "_outputs", "_state", "_what")

    def __init__(self, effect: Any, what: str) -> None:
        self._effect = effect
        self._what = what
        self._state: EffectState | None = None
        self._outputs: CollectsOutputs | None = None

    def __bool__(self) -> bool:
        return self._known != "done"

    @property
    def interrupted(self) -> bool:
        """Whether the effect was begun before, and not ended: nobody here knows if it happened."""
        return self._known == "interrupted"

    @property
    def _known(self) -> EffectState:
        if self._state is None:
            raise TypeError(f"{self._what} is for a block: with message.{self._what} as first:")
        return self._state

    def __enter__(self) -> Self:
        if self._state is not None:
            raise TypeError(f"{self._what}: this value was used: write message.{self._what} for each block")
        self._begin()
        self._push_at_once()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._push_as_before()
        if kind is None and self:
            self._end()

    async def __aenter__(self) -> Self:
        from asyncio import to_thread  # a worker without async handlers needs none

        await to_thread(self.__enter__)
        self._push_at_once()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        from asyncio import to_thread

        self._push_as_before()
        await to_thread(self.__exit__, *raised)

    def _push_at_once(self) -> None:
        if (outputs := current.get()) is not None:
            self._outputs = outputs
            current.set(None)

    def _push_as_before(self) -> None:
        if self._outputs is not None:
            current.set(self._outputs)

    def _begin(self) -> None:
        self._state = _recorded(self._effect.begin)

    def _end(self) -> None:
        if not _recorded(self._effect.end):
            raise EffectLost(self._what)


def _recorded(record: Callable[[], T]) -> T:
    try:
        return record()
    except StorageFault as fault:
        fault.is_charged = False  # the message has no part in it
        raise


class _InMemory:
    """An effect of a message that is from no queue, in a test."""

    def __init__(self, message: Any, name: str) -> None:
        self._states = _in_tests.setdefault(message, {})
        self._what = message.key, name

    def begin(self) -> EffectState:
        found = self._states.get(self._what)
        if found == "done":
            return "done"
        self._states[self._what] = self
        return "interrupted" if found else "new"

    def end(self) -> bool:
        is_mine = self._states[self._what] is self
        self._states[self._what] = "done" if is_mine else self._states[self._what]
        return is_mine


def forget(message: object) -> None:
    """Forget what a message that is from no queue has done, in a test."""
    _in_tests.pop(message, None)


def _homeless(message: Any) -> Layout | None:
    raise MessageHasNoKey


home_of: Callable[[Any], Layout | None] = _homeless
"""The queue that records what a message has done; None where a test does, in memory. Set where handlers run."""


class HasEffects:
    """What a message has done: one method of `MailRequest`."""

    __slots__ = ()

    def once(self: Any, name: str) -> Once:
        """For a block whose effect is not to happen twice: `with message.once("invoice-17") as first:`.

        `first` is false once a block of that name has ended, in whichever attempt at this message, on whichever host;
        `first.interrupted` tells that one was begun and has not ended, so that its effect may have happened.
        All handlers and middleware of the message share its names: one of a handler's own has the handler's name in it.
        Raises TypeError, EffectNameRefused, MessageHasNoKey; its blocks EffectLost, StorageFault's kinds.
        """
        # Most handlers need none of it.
        from maildefer.maildir.idempotency.effects import Effect
        from maildefer.maildir.markers.names import encoded_name

        encoded, what = encoded_name(name, "once({!r})", EffectNameRefused), f"once({name!r})"
        if (home := home_of(self)) is None:
            return Once(_InMemory(self, name), what)
        facts = b"\0".join((self.key.encode("utf-8", "surrogateescape"), encoded))
        data = self.Data if isinstance(self.Data, bytes) else self.Data.encode("utf-8", "surrogateescape")
        # Whoever may put entries into a queue can choose another's key: see decision 50.
        hashed = blake2b(facts + b"\0" + blake2b(data, digest_size=32).digest(), digest_size=16).hexdigest()
        return Once(Effect(home, hashed, facts), what)
