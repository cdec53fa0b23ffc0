"""A message is done only when its handler has run to its end, whatever stands above that handler."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import gc
import json
import os
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from maildefer.bounce import bounce_to
from maildefer.errors import ConfigurationError, HandlerNotRun
from maildefer.handling import handler_marks
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.outcomes import ACKED, LONGEST_REASON, Buried, Defer, Deferred, Outcome, Reject
from maildefer.handling.policy.decide import Session, decide
from maildefer.handling.policy.process import answer, load
from maildefer.handling.results import ensure_run, meaning_of, outcome_of
from maildefer.handling.routes import RoutingBase
from maildefer.handling.tasks import signature
from maildefer.handling.tasks.call import Call, UnsignedMessage
from maildefer.handling.tasks.task import Task
from maildefer.mail import MailRequest
from maildefer.maildir.layout import create_queue
from maildefer.message.smtp_error import SMTPError
from maildefer.queue import Queue
from maildefer.routing import Router, batch, nolocking, route, stateless
from maildefer.server import QueueReceiver

Handler = Callable[..., Any]


async def coroutine(message: object, **captures: object) -> None: ...


def generator(message: object, **captures: object) -> Iterator[None]:
    yield


async def async_generator(message: object, **captures: object) -> AsyncIterator[None]:
    yield


def old_coroutine(message: object, **captures: object) -> Iterator[None]:
    yield


class Later:
    """Awaitable, and nothing else; false, too."""

    def __await__(self) -> Iterator[None]:
        yield

    def __bool__(self) -> bool:
        return False


class Called:
    __name__ = "CALLED"

    async def __call__(self, message: object, **captures: object) -> None: ...


def wrapped(function: Handler) -> Handler:
    @functools.wraps(function)
    def wrapper(*arguments: Any, **captures: Any) -> Any:
        return function(*arguments, **captures)

    return wrapper


def held(function: Handler) -> Handler:
    return functools.partial(function, extra=1)


def hidden(function: Handler) -> Handler:
    """Nothing of the function shows on the outside."""

    def plain(message: object, **captures: object) -> object:
        return function(message, **captures)

    return plain


def same(function: Handler) -> Handler:
    return function


AWAITED: list[Handler] = [
    coroutine,
    Called(),
    lambda message, **captures: Later(),
    types.coroutine(old_coroutine),
]
HANDLERS: list[Handler] = [
    generator,
    async_generator,
    lambda message, **captures: [coroutine(message)],
    contextlib.contextmanager(generator),
    contextlib.asynccontextmanager(async_generator),
]
every_async_handler = pytest.mark.parametrize("handler", AWAITED)
every_handler = pytest.mark.parametrize("handler", HANDLERS)
every_decorator = pytest.mark.parametrize(
    "above", [same, wrapped, held, hidden, lambda f: wrapped(held(hidden(f)))]
)


@pytest.fixture(autouse=True)
def _no_warning() -> Iterator[None]:
    """Warnings are errors: a coroutine that nobody has closed fails its test."""
    gc.freeze()  # what was there before needn't be looked at, hundreds of times
    yield
    gc.collect()
    gc.unfreeze()


@pytest.fixture(autouse=True)
def router(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RoutingBase:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    for name in ("REGISTERED", "HANDLERS", "DEFAULT_CAPTURES"):
        monkeypatch.setattr(Router, name, {})
    monkeypatch.setattr(Router, "ORDER", [])
    monkeypatch.setattr(Router, "LOG_EXCEPTIONS", False)
    return Router


def mail() -> MailRequest:
    message = MailRequest("peer", "ann@example.org", "post@osb", b"Subject: x\n\nhi\n")
    message.key = "KEY"
    return message


def dispatched(router: RoutingBase) -> Outcome:
    outcome, _ = Dispatcher(router).dispatch(mail())
    return outcome


def is_not_run(outcome: Outcome) -> bool:
    assert isinstance(outcome, Deferred), outcome
    assert outcome.error is not None
    assert "nobody runs it, so the work is not done" in outcome.reason
    return outcome.error.startswith("maildefer.errors.HandlerNotRun: ")


@every_decorator
@every_handler
def test_no_handler_is_done_whose_body_has_not_run(above: Handler, handler: Handler) -> None:
    made = above(handler)
    handler_marks.mark_stateless(made)
    router = RoutingBase()
    router.register_route("^.*$", made)
    assert is_not_run(dispatched(router))


@every_decorator
@every_async_handler
def test_what_a_handler_returns_is_awaited_in_each_form(above: Handler, handler: Handler) -> None:
    made = above(handler)
    handler_marks.mark_stateless(made)
    router = RoutingBase()
    router.register_route("^.*$", made)
    assert dispatched(router) is ACKED
    router.deliver(mail())


@every_async_handler
def test_what_a_batch_returns_is_awaited_in_each_form(handler: Handler) -> None:
    made = batch()(wrapped(handler))
    handler_marks.mark_stateless(made)
    router = RoutingBase()
    router.register_route("^.*$", made)
    dispatcher = Dispatcher(router)
    step = dispatcher.batch_for(mail())
    assert step is not None
    assert dispatcher.dispatch_batch(step, [mail(), mail()]) == [ACKED, ACKED]
    assert dispatched(router) is ACKED


def test_what_a_coroutine_returns_is_not_awaited_in_turn() -> None:
    async def forgetful(message: object) -> object:
        return coroutine(message)

    handler_marks.mark_stateless(forgetful)
    router = RoutingBase()
    router.register_route("^.*$", forgetful)
    outcome = dispatched(router)
    assert is_not_run(outcome)
    assert isinstance(outcome, Deferred)
    assert "await it in there" in outcome.reason


@every_handler
def test_no_state_is_done_whose_body_has_not_run(handler: Handler) -> None:
    made = wrapped(handler)
    made.__name__ = "START"
    router = RoutingBase()
    router.register_route("^.*$", made)
    assert is_not_run(dispatched(router))


@every_handler
def test_no_batch_is_done_whose_body_has_not_run(handler: Handler) -> None:
    made = batch()(wrapped(handler))
    handler_marks.mark_stateless(made)
    router = RoutingBase()
    router.register_route("^.*$", made)
    dispatcher = Dispatcher(router)
    step = dispatcher.batch_for(mail())
    assert step is not None
    outcome = dispatcher.dispatch_batch(step, [mail(), mail()])
    assert isinstance(outcome, Deferred)
    assert is_not_run(outcome)
    assert is_not_run(dispatched(router))


def test_no_message_of_a_batch_is_done_whose_own_result_has_not_run() -> None:
    @route(".*")
    @stateless
    @batch()
    def BATCH(messages: list[MailRequest]) -> object:
        return {message: coroutine(message) for message in messages}

    dispatcher = Dispatcher(Router)
    step = dispatcher.batch_for(mail())
    assert step is not None
    outcome = dispatcher.dispatch_batch(step, [mail(), mail()])
    assert isinstance(outcome, Deferred)
    assert is_not_run(outcome)


@every_handler
def test_no_task_is_done_whose_body_has_not_run(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(message: object) -> object:
        return handler(message)

    work.__qualname__ = "work"
    made = Task(work)
    layout = create_queue("run/queue")
    call = UnsignedMessage.of(Call(task=made.name, args=["x"], kwargs={}), made.address)
    message = MailRequest("peer", "", made.address, call.signed(signature.ensure_secret(layout.path), "key"))
    message.queue, message.key = layout.path, "key"
    with pytest.raises(HandlerNotRun):
        made.handle(message)


@pytest.mark.parametrize("handler", [*HANDLERS, *AWAITED])
def test_what_a_bounce_goes_to_has_run_as_well(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    @route(".*")
    @stateless
    @bounce_to(soft=wrapped(handler), hard=wrapped(handler))
    def START(message: MailRequest) -> None: ...

    monkeypatch.setattr(MailRequest, "is_bounce", lambda self: True)
    message = mail()
    message.bounce = types.SimpleNamespace(is_hard=lambda: True)  # type: ignore[assignment]
    outcome, _ = Dispatcher(Router).dispatch(message)
    assert outcome is ACKED if handler in AWAITED else is_not_run(outcome)


@every_decorator
@every_handler
def test_a_bare_delivery_raises_for_a_body_that_has_not_run(above: Handler, handler: Handler) -> None:
    made = above(handler)
    handler_marks.mark_stateless(made)
    Router.register_route("^.*$", made)
    with pytest.raises(HandlerNotRun):
        Router.deliver(mail())


@pytest.mark.slow
@every_handler
def test_a_receiver_keeps_a_message_whose_handler_has_not_run(handler: Handler) -> None:
    made = nolocking(wrapped(handler))
    handler_marks.mark_stateless(made)
    Router.register_route("^.*$", made)
    queue = Queue("run/queue")
    queue.push("To: post@osb\n\nhi\n")
    QueueReceiver("run/queue", sleep=0.01).start(one_shot=True)
    assert len(os.listdir("run/queue/.later/new")) == 1


@pytest.mark.parametrize("handler", [generator, coroutine])
def test_the_function_that_gets_a_receivers_messages_has_run_as_well(handler: Handler) -> None:
    class Own(QueueReceiver):
        def process_message(self, msg: Any) -> Any:
            return handler(msg)

    queue = Queue("run/queue")
    queue.push("To: post@osb\n\nhi\n")
    Own("run/queue", sleep=0.01).start(one_shot=True)
    assert len(os.listdir("run/queue/.later/new")) == (handler is generator)
    assert os.listdir("run/queue/cur") == []


@pytest.mark.parametrize("handler", [*HANDLERS, *AWAITED])
def test_no_answer_of_a_policy_counts_whose_body_has_not_run(handler: Handler) -> None:
    def accept(session: Session, sender: str, recipient: str) -> object:
        return handler(sender)

    with pytest.raises(HandlerNotRun):
        decide(accept, Session(), "a@b", "c@d")


def test_a_password_is_not_refused_for_a_check_that_has_not_run() -> None:
    async def check(user: str, password: str) -> bool:
        return True

    said = answer(check, json.loads('{"user": "ann", "password": "x"}'))
    assert said["fault"].startswith("HandlerNotRun: ")  # type: ignore[union-attr]


def test_a_policy_that_never_runs_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lazy_policy.py").write_text("async def accept(session, sender, recipient): return True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"lazy_policy\.py:1: .* is a coroutine or a generator"):
        load("lazy_policy.accept")


def test_a_bounce_goes_to_nothing_that_never_runs() -> None:
    for soft, hard in ((async_generator, hidden), (hidden, generator)):
        with pytest.raises(TypeError, match="no call runs its body"):
            bounce_to(soft=soft, hard=hard)


def test_no_state_is_looked_up_by_a_key_that_has_not_been_made() -> None:
    async def key(module: str, message: object) -> str:
        return module

    router = RoutingBase()
    router.HANDLERS[__name__] = key  # type: ignore[assignment]
    router.register_route("^.*$", hidden_state())
    assert is_not_run(dispatched(router))


def hidden_state() -> Handler:
    def START(message: object) -> None: ...

    return START


def nothing() -> None: ...


UNDONE: list[Callable[[], object]] = [
    lambda: [[coroutine(None)]],
    lambda: {"a": ({"b": [coroutine(None)]},)},
    lambda: map(print, [1]),
    lambda: filter(None, [1]),
    lambda: iter([1]),
    lambda: [zip([1], strict=True)],
    lambda: concurrent.futures.Future[None](),
    lambda: lambda: None,
    lambda: functools.partial(nothing),
    lambda: [hidden(nothing)],
    lambda: Later().__bool__,
]
EXCEPTIONS: list[Callable[[], object]] = [
    lambda: Defer("later"),
    lambda: Reject("never"),
    lambda: ValueError("x"),
    lambda: Defer,
    lambda: [Reject("never")],
    lambda: {"a": (KeyError,)},
]


@pytest.mark.parametrize("kind", ["stateless", "state", "batch", "one"])
@pytest.mark.parametrize("made", [*UNDONE, *EXCEPTIONS])
def test_no_message_is_done_for_a_result_that_only_stands_for_the_work(
    made: Callable[[], object], kind: str
) -> None:
    mappings = []

    def START(message: object, **captures: object) -> object:
        result = made()
        mappings.append(isinstance(result, dict))
        return result

    if kind != "state":
        handler_marks.mark_stateless(START)
    function = batch()(START) if kind in ("batch", "one") else START
    router = RoutingBase()
    router.register_route("^.*$", function)
    dispatcher = Dispatcher(router)
    outcome: object = dispatched(router)
    if kind == "batch":
        step = dispatcher.batch_for(mail())
        assert step is not None
        outcome = dispatcher.dispatch_batch(step, [mail(), mail()])
    assert isinstance(outcome, Deferred)
    assert outcome.error is not None
    if not (kind in ("batch", "one") and mappings[0]):  # that is no mapping from its messages
        assert outcome.error.startswith("maildefer.errors.HandlerNotRun: ")
        advice = "write `raise " if made in EXCEPTIONS else "in there"
        assert advice in outcome.reason


def test_a_registered_function_may_be_returned_wherever_it_was_written() -> None:
    def START(message: object, **captures: object) -> object:
        return NEXT

    def NEXT(message: object, **captures: object) -> None: ...

    router = RoutingBase()
    for function in (START, NEXT):
        router.register_route("^.*$", function)
    assert dispatched(router) is ACKED
    assert router.get_state(__name__, mail()) == "NEXT"


def test_a_collection_that_holds_itself_or_very_much_is_looked_through_in_part() -> None:
    endless: list[object] = []
    endless += [endless, endless, {"a": endless}]
    ensure_run(hidden, endless)
    looks = 0

    class Counted(dict[str, object]):
        def __getattribute__(self, name: str) -> object:
            nonlocal looks
            looks += name == "values"
            return super().__getattribute__(name)

    ensure_run(hidden, [Counted() for _ in range(50_000)])
    assert 0 < looks <= 10_000


def test_what_has_run_may_return_what_it_likes() -> None:
    values: list[object] = [None, 0, "", "text", [1, "a"], {"a": 1}, object(), hidden, Called]
    for value in values:
        ensure_run(hidden, value)


def test_a_decorator_that_runs_a_coroutine_has_run_it() -> None:
    ran = []

    def awaited(function: Callable[..., Awaitable[object]]) -> Handler:
        @functools.wraps(function)
        def wrapper(message: object, **captures: object) -> object:
            return asyncio.run(function(message, **captures))  # type: ignore[arg-type]

        return wrapper

    async def work(message: object) -> None:
        ran.append(message)

    made = awaited(work)
    handler_marks.mark_stateless(made)
    router = RoutingBase()
    router.register_route("^.*$", made)
    assert dispatched(router) is ACKED
    assert len(ran) == 1


def test_a_generator_that_has_begun_is_closed_whatever_it_does_then() -> None:
    def stubborn() -> Iterator[None]:
        try:
            yield
        finally:
            raise ValueError

    begun = stubborn()
    next(begun)
    with pytest.raises(HandlerNotRun):
        meaning_of(hidden, begun)


# Groups of exceptions


def test_what_is_alone_in_groups_means_what_it_means_without_them() -> None:
    for said in (Defer("later", after=60), Reject("never"), SMTPError(451, "busy"), SMTPError(550, "none")):
        group = ExceptionGroup("tasks", [ExceptionGroup("tasks", [said])])
        assert outcome_of(group, "m") == outcome_of(said, "m")


def test_a_group_of_rejects_is_one_with_their_texts() -> None:
    assert outcome_of(ExceptionGroup("tasks", [Reject("one"), SMTPError(550, "two")]), "m") == Buried(
        "one; 550 two"
    )
    long = outcome_of(ExceptionGroup("tasks", [Reject("x" * 1500)] * 3), "m")
    assert isinstance(long, Buried)
    assert len(long.reason) == LONGEST_REASON


def test_a_group_of_defers_is_the_one_with_the_longest_wait() -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    defers = [Defer("now", after=0), Defer("soon"), Defer("hour", after=3600), Defer("day", at=tomorrow)]
    for count in range(1, 5):
        for order in (defers[:count], defers[:count][::-1]):
            assert outcome_of(ExceptionGroup("tasks", order), "m") == outcome_of(defers[count - 1], "m")


def test_a_group_of_defers_and_other_things_has_failed() -> None:
    for other in (Reject("never"), ValueError("x")):
        outcome = outcome_of(ExceptionGroup("tasks", [Defer("later"), other]), "m")
        assert isinstance(outcome, Deferred)
        assert outcome.error is not None
        assert "Defer: later; " in outcome.reason


def test_a_group_of_several_has_failed_and_its_reason_names_them() -> None:
    group = ExceptionGroup(
        "tasks", [Reject("never"), ExceptionGroup("more", [ValueError("x"), KeyError("y")])]
    )
    outcome = outcome_of(group, "m")
    assert isinstance(outcome, Deferred)
    assert outcome.fault is group
    for text in ("tasks (2 sub-exceptions); ", "Reject: never; ", "ValueError: x; KeyError: 'y'"):
        assert text in outcome.reason
