"""Async handlers: each to its end by `dispatch`, or many on a loop by `begin`."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import pytest

from maildefer import log_context
from maildefer.handling import handler_marks
from maildefer.handling.calls import event_loop
from maildefer.handling.calls.event_loop import CANCEL_GRACE_SECONDS
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.limits.limit import LimitUse
from maildefer.handling.outcomes import ACKED, Buried, Defer, Deferred, HandedOff, Outcome, Postponed, Reject
from maildefer.handling.routes import RoutingBase
from maildefer.mail import MailRequest
from maildefer.message.smtp_error import SMTPError
from maildefer.routing import batch, concurrency, nolocking, timeout

Handler = Callable[..., Any]
T = TypeVar("T")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    event_loop.close()


def mail(sender: str = "ann@example.org", key: str = "KEY") -> MailRequest:
    message = MailRequest("peer", sender, "post@osb", b"Subject: x\n\nhi\n")
    message.key = key
    return message


def router(*functions: Handler, stateless: bool = True) -> RoutingBase:
    made = RoutingBase()
    for function in functions:
        if stateless:
            handler_marks.mark_stateless(function)
        made.register_route("^.*$", function)
    return made


def by_dispatch(dispatcher: Dispatcher, message: MailRequest) -> Outcome:
    return dispatcher.dispatch(message)[0]


def by_begin(dispatcher: Dispatcher, message: MailRequest) -> Outcome:
    return asyncio.run(dispatcher.begin(message))[0]


both = pytest.mark.parametrize("way", [by_dispatch, by_begin])
Way = Callable[[Dispatcher, MailRequest], Outcome]


def conversation() -> list[Handler]:
    """Two states, of which each leads to the other."""

    async def START(message: MailRequest, **captures: object) -> object:
        await asyncio.sleep(0)
        return CONFIRMING

    async def CONFIRMING(message: MailRequest, **captures: object) -> object:
        await asyncio.sleep(0)
        return START

    return [START, CONFIRMING]


async def done(message: MailRequest) -> None:
    await asyncio.sleep(0)


# What a coroutine ends in


@both
@pytest.mark.parametrize(
    ("raised", "wanted"),
    [
        (Defer("later", after=60), Deferred("later", 60)),
        (Reject("never"), Buried("never")),
        (SMTPError(451, "busy"), Deferred("451 busy")),
        (SMTPError(550, "no"), Buried("550 no")),
    ],
)
def test_what_a_coroutine_raises_means_what_it_means_in_any_handler(
    way: Way, raised: Exception, wanted: Outcome
) -> None:
    async def HANDLER(message: MailRequest) -> None:
        await asyncio.sleep(0)
        raise raised

    ended = way(Dispatcher(router(HANDLER)), mail())
    assert type(ended) is type(wanted)
    assert getattr(ended, "error", None) is None
    assert getattr(ended, "after_seconds", None) == getattr(wanted, "after_seconds", None)


@both
@pytest.mark.parametrize(
    "fault", [ValueError("broken"), SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()]
)
def test_any_other_exception_of_a_coroutine_is_a_failure(way: Way, fault: BaseException) -> None:
    async def HANDLER(message: MailRequest) -> None:
        raise fault

    ended = way(Dispatcher(router(HANDLER)), mail())
    assert isinstance(ended, Deferred)
    assert ended.error is not None
    assert ended.error.split(":")[0].endswith(type(fault).__name__)
    assert "in HANDLER" in str(ended.detail)


@both
def test_a_coroutine_moves_its_conversation(way: Way) -> None:
    made = router(*conversation(), stateless=False)
    dispatcher = Dispatcher(made)
    for state in ("CONFIRMING", "START", "CONFIRMING"):
        assert way(dispatcher, mail()) is ACKED
        assert made.get_state(__name__, mail()) == state
    assert made.get_state(__name__, mail("bob@example.org")) == "START"


@both
def test_a_coroutine_hands_on(way: Way) -> None:
    async def HANDLER(message: MailRequest) -> str:
        return f"{__name__}.HANDLER"

    ended = way(Dispatcher(router(HANDLER), queues_of={__name__: ["run/next"]}), mail())
    assert ended == HandedOff(__name__, "HANDLER", "run/next")


@both
def test_async_and_other_handlers_of_one_message_have_one_outcome(way: Way) -> None:
    ran = []

    async def FIRST(message: MailRequest) -> None:
        await asyncio.sleep(0)
        ran.append("first")

    def SECOND(message: MailRequest) -> None:
        ran.append("second")

    async def THIRD(message: MailRequest) -> None:
        ran.append("third")
        raise Defer("later")

    assert isinstance(way(Dispatcher(router(FIRST, SECOND, THIRD)), mail()), Deferred)
    assert ran == ["first", "second", "third"]


@both
def test_a_handler_that_runs_a_loop_of_its_own_still_works(way: Way) -> None:
    def HANDLER(message: MailRequest) -> None:
        asyncio.run(asyncio.sleep(0))

    assert way(Dispatcher(router(HANDLER, done)), mail()) is ACKED


@both
def test_the_log_tells_the_message_that_a_coroutine_has(way: Way) -> None:
    facts = []

    async def HANDLER(message: MailRequest) -> None:
        await asyncio.sleep(0)
        facts.append(log_context.facts())
        facts.append(await asyncio.to_thread(log_context.facts))

    way(Dispatcher(router(HANDLER)), mail())
    assert [(one["key"], one["handler"]) for one in facts] == [("KEY", f"{__name__}.HANDLER")] * 2
    assert log_context.facts() == {}


def test_a_bare_delivery_runs_a_coroutine_to_its_end() -> None:
    made = router(*conversation(), stateless=False)
    made.deliver(mail())
    assert made.get_state(__name__, mail()) == "CONFIRMING"


# Batches


def batch_ended(
    way: Way, dispatcher: Dispatcher, messages: Sequence[MailRequest]
) -> list[Outcome] | Deferred:
    step = dispatcher.batch_for(messages[0])
    assert step is not None
    if way is by_dispatch:
        return dispatcher.dispatch_batch(step, messages)
    return asyncio.run(dispatcher.begin_batch(step, messages))


@both
def test_a_batch_may_say_for_each_message_what_it_ends_in(way: Way) -> None:
    @batch()
    async def BATCH(messages: list[MailRequest]) -> dict[MailRequest, Exception]:
        await asyncio.sleep(0)
        return {messages[0]: Reject("not this one")}

    handler_marks.mark_stateless(BATCH)
    dispatcher = Dispatcher(router(BATCH))
    assert batch_ended(way, dispatcher, [mail(), mail()]) == [Buried("not this one"), ACKED]
    assert way(dispatcher, mail()) == Buried("not this one")  # alone


@both
def test_a_batch_that_fails_has_one_failure(way: Way) -> None:
    @batch()
    async def BATCH(messages: list[MailRequest]) -> None:
        await asyncio.sleep(0)
        raise ValueError("broken")

    ended = batch_ended(way, Dispatcher(router(BATCH)), [mail(), mail()])
    assert isinstance(ended, Deferred)
    assert ended.error == "ValueError: broken"


# Many on a loop


def test_many_messages_are_in_flight_at_once_each_with_its_own_line_in_the_log() -> None:
    begun: list[str | None] = []
    facts: list[tuple[str | None, object]] = []

    async def HANDLER(message: MailRequest) -> None:
        begun.append(message.key)
        if len(begun) == 100:
            everybody.set()
        await everybody.wait()
        facts.append((message.key, log_context.facts()["key"]))

    async def run() -> list[tuple[Outcome, str]]:
        return await asyncio.gather(*(dispatcher.begin(mail(key=f"K{n}")) for n in range(100)))

    dispatcher, everybody = Dispatcher(router(HANDLER)), asyncio.Event()
    assert asyncio.run(run()) == [(ACKED, f"{__name__}.HANDLER")] * 100
    assert len(facts) == 100
    assert all(key == told for key, told in facts)


def test_a_message_is_async_if_any_of_its_handlers_is() -> None:
    def plain(message: MailRequest) -> None: ...

    def hidden(message: MailRequest) -> object:
        return done(message)

    @functools.wraps(done)
    def wrapped(message: MailRequest) -> object:
        return done(message)

    for functions, is_async in (((plain,), False), ((plain, wrapped), True), ((hidden,), False)):
        assert Dispatcher(router(*functions)).is_async(mail()) == is_async
    assert by_begin(Dispatcher(router(hidden)), mail()) is ACKED


class LoopTokens:
    """Tokens of one message; `taken` is shared by all."""

    def __init__(self, taken: dict[str, asyncio.Lock]) -> None:
        self.taken = taken

    async def take_token(self, conversation: str) -> bool:
        return await self.taken.setdefault(conversation, asyncio.Lock()).acquire()

    def release_token(self, conversation: str) -> None:
        self.taken[conversation].release()


def test_a_message_that_waits_for_its_conversation_holds_up_no_other() -> None:
    order = []

    async def HANDLER(message: MailRequest) -> None:
        order.append(message.key)
        if message.key == "1":
            await other.wait()
        if message.key == "3":
            other.set()
        order.append(message.key)

    HANDLER.__name__ = "START"
    dispatcher, other = Dispatcher(router(HANDLER, stateless=False)), asyncio.Event()

    async def run() -> None:
        taken: dict[str, asyncio.Lock] = {}
        senders = {"1": "ann@example.org", "2": "ann@example.org", "3": "bob@example.org"}
        await asyncio.gather(
            *(dispatcher.begin(mail(who, key), tokens=LoopTokens(taken)) for key, who in senders.items())
        )
        assert not any(lock.locked() for lock in taken.values())

    asyncio.run(run())
    assert order == ["1", "3", "3", "1", "2", "2"]


def test_a_handler_without_locking_runs_beside_its_own_conversation() -> None:
    @nolocking
    async def HANDLER(message: MailRequest) -> None:
        begun.append(message.key)
        if len(begun) == 2:
            both_begun.set()
        await both_begun.wait()

    HANDLER.__name__ = "START"
    begun: list[str | None] = []
    dispatcher, both_begun = Dispatcher(router(HANDLER, stateless=False)), asyncio.Event()

    async def run() -> None:
        tokens = LoopTokens({})
        await asyncio.gather(*(dispatcher.begin(mail(key=key), tokens=tokens) for key in "12"))

    asyncio.run(run())
    assert begun == ["1", "2"]


class LoopSlots:
    def __init__(self, full: Postponed | None) -> None:
        self.full = full
        self.told: list[object] = []

    async def take_slots(self, uses: Sequence[LimitUse], key: str | None) -> Postponed | None:
        await asyncio.sleep(0)
        self.told.append(key)
        return self.full

    def release_slots(self, outcome: object) -> None:
        self.told.append("released")


@pytest.mark.parametrize("full", [None, Postponed(5.0, "full")])
def test_slots_are_waited_for_on_the_loop(full: Postponed | None) -> None:
    @concurrency(1)
    async def HANDLER(message: MailRequest) -> None: ...

    @batch()
    @concurrency(1)
    async def BATCH(messages: list[MailRequest]) -> None: ...

    for function in (HANDLER, BATCH):
        slots, dispatcher = LoopSlots(full), Dispatcher(router(function))
        if function is HANDLER:
            ended: object = asyncio.run(dispatcher.begin(mail(), limits=slots))[0]
        else:
            step = dispatcher.batch_for(mail())
            assert step is not None
            ended = asyncio.run(dispatcher.begin_batch(step, [mail()], limits=slots))
        assert ended == (full or ACKED if function is HANDLER else [full or ACKED])
        assert slots.told == (["KEY"] if full else ["KEY", "released"])


def test_what_waits_is_for_a_loop_only() -> None:
    class Waiting:
        async def take_token(self, conversation: str) -> bool:
            await asyncio.sleep(0)
            return True

        def release_token(self, conversation: str) -> None: ...

    dispatcher = Dispatcher(router(*conversation(), stateless=False), tokens=Waiting())
    with pytest.raises(RuntimeError, match=r"for `Dispatcher\.begin`, on a loop"):
        dispatcher.dispatch(mail())


# Time limits and cancellation


def waits() -> Coroutine[Any, Any, bool]:
    return asyncio.Event().wait()


@both
def test_at_its_own_time_limit_a_handler_is_cancelled_and_has_failed(way: Way) -> None:
    @timeout(0.01)
    async def HANDLER(message: MailRequest) -> None:
        await waits()

    ended = way(Dispatcher(router(HANDLER)), mail())
    assert isinstance(ended, Deferred)
    assert ended.reason.startswith("maildefer.errors.HandlerTimedOut: ")
    assert "HANDLER was cancelled at its time limit of 0.01 s" in ended.reason
    assert "await waits()" in str(ended.detail)


def test_a_batch_is_cancelled_at_its_time_limit_too() -> None:
    @batch()
    @timeout(0.01)
    async def BATCH(messages: list[MailRequest]) -> None:
        await waits()

    for way in (by_dispatch, by_begin):
        ended = batch_ended(way, Dispatcher(router(BATCH)), [mail()])
        assert isinstance(ended, Deferred)
        assert "cancelled at its time limit" in ended.reason


def test_a_worker_may_keep_all_limits_by_itself() -> None:
    kept = []

    async def within_limit(awaitable: Awaitable[Any], name: str) -> Any:
        kept.append(name)
        return await awaitable

    @timeout(60)
    async def HANDLER(message: MailRequest) -> str:
        return await asyncio.sleep(0, f"{__name__}.HANDLER")

    ended, name = asyncio.run(Dispatcher(router(HANDLER)).begin(mail(), within_limit=within_limit))
    assert isinstance(ended, HandedOff)
    assert kept == [name]


def test_the_worker_is_told_each_handlers_limit_with_its_grace_where_it_is_cancelled_first() -> None:
    told: list[tuple[object, ...]] = []

    @timeout(2)
    async def HANDLER(message: MailRequest) -> None: ...

    name = f"{__name__}.HANDLER"
    Dispatcher(router(HANDLER), running=lambda *given: told.append(given)).dispatch(mail())
    assert told == [(name, 2.0, 0), (name, 2.0, 0, CANCEL_GRACE_SECONDS)]
    told.clear()
    asyncio.run(Dispatcher(router(HANDLER)).begin(mail(), running=lambda *given: told.append(given)))
    assert told == [(name, 2.0, 0)]  # the worker adds the grace to all


async def cancelled(attempt: Coroutine[Any, Any, T]) -> T:
    """As by what another handler does with all tasks: the attempt waits, and its task is cancelled."""
    task = asyncio.create_task(attempt)
    await asyncio.sleep(0.001)
    task.cancel()
    return await task


def test_a_handler_whose_task_is_cancelled_by_whatever_has_failed_and_holds_nothing() -> None:
    async def START(message: MailRequest) -> None:
        await waits()

    taken: dict[str, asyncio.Lock] = {}
    attempt = Dispatcher(router(START, stateless=False)).begin(mail(), tokens=LoopTokens(taken))
    ended, name = asyncio.run(cancelled(attempt))
    assert isinstance(ended, Deferred)
    assert "CancelledError" in str(ended.error)
    assert "in START" in str(ended.detail)
    assert name.endswith(".START")
    assert [lock.locked() for lock in taken.values()] == [False]


def test_a_batch_that_cancels_its_own_task_has_failed() -> None:
    @batch()
    async def HANDLER(messages: list[MailRequest]) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    dispatcher = Dispatcher(router(HANDLER))
    step = dispatcher.batch_for(mail())
    assert step is not None
    ended = asyncio.run(dispatcher.begin_batch(step, [mail(), mail()]))
    assert isinstance(ended, Deferred)
    assert "CancelledError" in str(ended.error)


def test_what_is_cancelled_and_ends_all_the_same_has_its_outcome() -> None:
    async def HANDLER(message: MailRequest) -> None:
        try:
            await waits()
        except asyncio.CancelledError:
            raise Defer("another time") from None

    ended, _ = asyncio.run(cancelled(Dispatcher(router(HANDLER)).begin(mail())))
    assert ended == Deferred("another time")
