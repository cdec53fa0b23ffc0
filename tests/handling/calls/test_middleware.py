"""The project's context managers around each call of a handler."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import sys
import types
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest

from maildefer.errors import ConfigurationError, HandlerNotRun
from maildefer.handling import handler_marks
from maildefer.handling.calls.middleware import CallOutcome, HandlerCall, Middleware, middleware_of
from maildefer.handling.calls.step import step_of, use_middleware
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.outcomes import ACKED, Buried, Deferred, HandedOff, Outcome
from maildefer.handling.project import settings as settings_module
from maildefer.handling.routes import RoutingBase
from maildefer.mail import MailRequest
from maildefer.message.smtp_error import SMTPError
from maildefer.queue import Queue
from maildefer.routing import Defer, Reject, Router
from maildefer.tasks import task
from tests.support.in_project import enter_project

BOOM = RuntimeError("boom")
SEEN: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    SEEN.clear()


def returns(value: Any) -> Callable[..., Any]:
    def handler(*_: object, **__: object) -> Any:
        SEEN.append("handler")
        return value

    return handler


def raises(fault: BaseException) -> Callable[..., Any]:
    def handler(*_: object, **__: object) -> Any:
        raise fault

    return handler


@contextmanager
def noting(call: HandlerCall) -> Iterator[None]:
    SEEN.append(f"in {call.outcome}")
    try:
        yield
    except BaseException as fault:
        SEEN.append(repr(fault))
        raise
    finally:
        SEEN.append(call.outcome)


def mail(key: str = "1.M1", attempt: int = 3) -> MailRequest:
    message = MailRequest("peer", "ann@x", "words@x", b"Subject: x\n\ny\n")
    message.queue, message.key, message.attempt = "run/queue", key, attempt
    return message


def router_of(handler: Callable[..., Any], *middleware: Any) -> RoutingBase:
    handler_marks.mark_stateless(handler)
    handler.__module__, handler.__name__ = "workers.words", "WORDS"
    router = RoutingBase()
    router.register_route("^(?P<name>words)@x$", handler)
    router.middleware = Middleware([(f"conf.hooks.{one.__name__}", one) for one in middleware])
    return router


def outcome(handler: Callable[..., Any], *middleware: Any) -> Outcome:
    router = router_of(handler, *middleware)
    return Dispatcher(router, queues_of={"workers.other": ("run/other",)}).dispatch(mail())[0]


def failed(handler: Callable[..., Any], *middleware: Any) -> Deferred:
    ended = outcome(handler, *middleware)
    assert isinstance(ended, Deferred)
    return ended


def test_a_call_shows_its_message_and_after_it_the_outcome() -> None:
    @contextmanager
    def looking(call: HandlerCall) -> Iterator[None]:
        SEEN.append((call.handler, call.queue, call.key, call.attempt, call.arguments, call.outcome))
        assert call.message is call.messages[0]
        yield
        SEEN.append(call.outcome)

    assert outcome(returns(None), looking) is ACKED
    before = ("workers.words.WORDS", "run/queue", "1.M1", 3, {"name": "words"}, None)
    assert [before, "handler", CallOutcome("acked")] == SEEN


@pytest.mark.parametrize(
    ("handler", "word", "reason"),
    [
        (returns("ignored"), "acked", None),
        (returns("workers.other.START"), "handed_off", None),
        (raises(Defer("not now")), "deferred", "not now"),
        (raises(SMTPError(450, "busy")), "deferred", "450"),
        (raises(Reject("never")), "buried", "never"),
        (raises(SMTPError(550, "no")), "buried", "550"),
        (raises(BOOM), "failed", "RuntimeError: boom"),
        (raises(SystemExit(3)), "failed", "SystemExit: 3"),
        (returns(iter(())), "failed", "iterator"),
    ],
    ids=range(9),
)
def test_an_outcome_is_what_the_handler_ended_in(
    handler: Callable[..., Any], word: str, reason: str | None
) -> None:
    outcome(handler, noting)
    ended = SEEN[-1]
    assert (ended.word, ended.exception is not None) == (word, word == "failed")
    assert ended.reason is None if reason is None else reason in ended.reason


def named(name: str) -> Any:
    @contextmanager
    def middleware(call: HandlerCall) -> Iterator[None]:
        SEEN.append(f"{name} in")
        yield
        SEEN.append(f"{name} out")

    middleware.__name__ = name
    return middleware


def test_the_first_listed_is_the_outermost() -> None:
    outcome(returns(None), named("first"), named("second"))
    assert SEEN == ["first in", "second in", "handler", "second out", "first out"]


def test_the_handlers_exception_comes_to_all_and_stays_the_outcome() -> None:
    ended = failed(raises(BOOM), noting, noting)
    assert (ended.reason, ended.fault) == ("RuntimeError: boom", BOOM)
    assert SEEN[2:] == [repr(BOOM), CallOutcome("failed", "RuntimeError: boom", BOOM)] * 2


def test_one_that_suppresses_an_exception_suppresses_it_for_nobody() -> None:
    def silent(call: HandlerCall) -> Any:
        return suppress(Exception)

    @contextmanager
    def forgetful(call: HandlerCall) -> Iterator[None]:
        try:
            yield
        except RuntimeError:
            SEEN.append("caught")

    assert failed(raises(BOOM), noting, silent, forgetful).fault is BOOM
    assert SEEN[1:] == ["caught", repr(BOOM), CallOutcome("failed", "RuntimeError: boom", BOOM)]


@contextmanager
def broken_before(call: HandlerCall) -> Iterator[None]:
    if call.outcome is None:
        raise BOOM
    yield


@contextmanager
def broken_after(call: HandlerCall) -> Iterator[None]:
    yield
    raise BOOM


@contextmanager
def broken_after_all(call: HandlerCall) -> Iterator[None]:
    try:
        yield
    finally:
        raise BOOM


@contextmanager
def twice(call: HandlerCall) -> Iterator[None]:
    yield
    yield


@contextmanager
def never(call: HandlerCall) -> Iterator[None]:
    if call.attempt == 0:
        yield


def none_at_all(call: HandlerCall) -> Any:
    SEEN.append("called")


def async_manager(call: HandlerCall) -> Any:
    @asynccontextmanager
    async def made() -> AsyncIterator[None]:
        yield

    return made()


def leaving(call: HandlerCall) -> Any:
    sys.exit("over")


@pytest.mark.parametrize(
    ("middleware", "runs", "why"),
    [
        (broken_before, False, "RuntimeError: boom"),
        (broken_after, True, "RuntimeError: boom"),
        (broken_after_all, True, "RuntimeError: boom"),
        (twice, True, "it yielded twice"),
        (never, False, "it did not yield"),
        (
            none_at_all,
            False,
            "it returned None, which is no context manager: write a function of one argument that",
        ),
        (async_manager, False, "which is no context manager"),
        (leaving, False, "SystemExit: over"),
    ],
)
def test_one_that_is_broken_costs_an_attempt_and_is_named(middleware: Any, runs: bool, why: str) -> None:
    ended = failed(returns(None), noting, middleware, named("inner"))
    assert ended.reason == ended.error
    assert ended.reason.startswith(f"middleware conf.hooks.{middleware.__name__}: ")
    assert why in ended.reason
    assert ended.module == "workers.words"
    assert ("handler" in SEEN) is runs
    assert ("inner out" in SEEN) is runs
    assert SEEN[-1].exception is ended.fault  # what is outside of it sees that, too


def test_one_that_breaks_when_the_handler_has_failed_is_the_one_that_is_named() -> None:
    ended = failed(raises(ValueError("of the handler")), noting, broken_after_all, noting)
    assert ended.reason == "middleware conf.hooks.broken_after_all: RuntimeError: boom"
    assert "ValueError: of the handler" in str(ended.detail)
    assert [one.reason for one in SEEN if isinstance(one, CallOutcome)] == [
        "ValueError: of the handler",
        "middleware conf.hooks.broken_after_all: RuntimeError: boom",
    ]


def test_one_that_goes_on_after_an_exception_is_named_and_the_others_are_left() -> None:
    @contextmanager
    def endless(call: HandlerCall) -> Iterator[None]:
        while True:
            with suppress(BaseException):
                yield

    def ended_by(handler: Any) -> str:
        SEEN.clear()
        reason = failed(handler, noting, endless).reason
        assert SEEN[-1].reason == reason
        return reason

    assert (
        ended_by(raises(BOOM))
        == "middleware conf.hooks.endless: RuntimeError: generator ignored GeneratorExit"
    )


def test_those_that_were_entered_are_left_where_a_later_one_breaks() -> None:
    outcome(returns(None), named("first"), noting, broken_before, named("later"))
    assert SEEN[0] == "first in"
    assert SEEN[2] == repr(BOOM)
    assert "later in" not in SEEN
    assert SEEN[-1].word == "failed"


@pytest.mark.parametrize("fault", [Defer("database is down", after=60), Reject("not for us")], ids=repr)
def test_a_defer_or_reject_of_one_means_what_a_handlers_does(fault: Exception) -> None:
    @contextmanager
    def deciding(call: HandlerCall) -> Iterator[None]:
        try:
            yield
        except RuntimeError as raised:
            raise fault from raised

    ended = outcome(raises(BOOM), noting, deciding)
    assert ended == (Deferred("database is down", 60) if isinstance(fault, Defer) else Buried("not for us"))
    assert SEEN[-1] == CallOutcome("deferred" if isinstance(fault, Defer) else "buried", str(fault))


def test_an_exception_that_a_middleware_has_raised_once_is_a_handlers_when_that_raises_it() -> None:
    assert "middleware" in failed(returns(None), broken_before).reason
    assert failed(raises(BOOM), noting).reason == "RuntimeError: boom"


def test_a_variable_that_one_sets_is_the_handlers() -> None:
    current = contextvars.ContextVar[str]("current", default="none")

    @contextmanager
    def setting(call: HandlerCall) -> Iterator[None]:
        token = current.set(call.handler)
        yield
        current.reset(token)

    def handler(message: object, name: str) -> None:
        SEEN.append(current.get())

    assert outcome(handler, setting) is ACKED
    assert (SEEN, current.get()) == (["workers.words.WORDS"], "none")


def test_decorators_below_and_above_a_context_manager_are_called() -> None:
    def decorated(function: Any) -> Any:
        @functools.wraps(function)
        def call(given: HandlerCall) -> Any:
            SEEN.append("decorator")
            return function(given)

        return call

    @decorated
    @contextmanager
    @decorated
    def both(call: HandlerCall) -> Iterator[None]:
        yield
        SEEN.append(call.outcome)

    outcome(returns(None), both)
    assert ["decorator", "decorator", "handler", CallOutcome("acked")] == SEEN


@pytest.mark.parametrize("fault", [StopIteration(7), GeneratorExit(), KeyboardInterrupt()], ids=repr)
def test_an_exception_that_generators_convert_or_swallow_stays_the_handlers(fault: BaseException) -> None:
    @contextmanager
    def plain(call: HandlerCall) -> Iterator[None]:
        yield

    ended = failed(raises(fault), noting, plain)
    assert ended.fault is fault
    assert SEEN[-1].exception is fault


def test_a_class_of_context_managers_is_a_middleware() -> None:
    class Timing:
        def __init__(self, call: HandlerCall) -> None:
            self.call = call

        def __enter__(self) -> None: ...

        def __exit__(self, *raised: object) -> None:
            SEEN.append((self.call.outcome.word, raised[0]))

    outcome(raises(BOOM), Timing)
    assert [("failed", RuntimeError)] == SEEN


def batched(result: Callable[[list[Any]], Any]) -> Any:
    def together(messages: list[Any]) -> Any:
        return result(messages)

    handler_marks.mark_batch(together, handler_marks.BatchTerms(10, 0.0))
    return together


def test_a_batch_is_one_call_with_an_outcome_for_each_message() -> None:
    def result(messages: list[Any]) -> Any:
        said = (Defer("later"), BOOM, Reject("no"), "workers.words.WORDS", None)
        return dict(zip(messages, said, strict=True))

    @contextmanager
    def counting(call: HandlerCall) -> Iterator[None]:
        SEEN.append((len(call.messages), call.key, call.arguments))
        yield
        SEEN.append([one.word for one in call.outcomes])
        SEEN.append(call.outcome)

    handler = batched(result)
    router = router_of(handler, counting)
    dispatcher = Dispatcher(router, queues_of={"workers.words": ("run/other",)})
    messages = [mail(f"{number}.M1") for number in range(5)]
    step = dispatcher.batch_for(messages[0])
    assert step is not None
    ended: Any = dispatcher.dispatch_batch(step, messages)
    assert [type(one) for one in ended] == [Deferred, Deferred, Buried, HandedOff, type(ACKED)]
    assert [
        (5, "0.M1", {}),
        ["deferred", "failed", "buried", "handed_off", "acked"],
        CallOutcome("buried", "no"),
    ] == SEEN
    router.middleware = Middleware([("conf.hooks.broken_after", broken_after)])
    router.generation += 1
    step = dispatcher.batch_for(messages[0])
    assert step is not None
    ended = dispatcher.dispatch_batch(step, messages)
    assert ended.reason == "middleware conf.hooks.broken_after: RuntimeError: boom"


def test_a_batch_that_empties_its_list_shows_its_messages_all_the_same() -> None:
    def emptying(messages: list[Any]) -> None:
        messages.clear()
        raise BOOM

    @contextmanager
    def counting(call: HandlerCall) -> Iterator[None]:
        try:
            yield
        finally:
            SEEN.append((len(call.messages), call.key, len(call.outcomes)))

    with pytest.raises(RuntimeError):
        Middleware([("counting", counting)]).around(emptying, takes_list=True)([mail("0.M1"), mail("1.M1")])
    assert SEEN == [(2, "0.M1", 2)]


def test_a_batch_that_gets_one_message_is_a_call_of_that() -> None:
    assert outcome(batched(lambda messages: {messages[0]: Defer("later")}), noting) == Deferred("later")
    assert SEEN[-1] == CallOutcome("deferred", "later")


@pytest.mark.parametrize("is_batch", [False, True])
def test_an_async_handler_is_surrounded_in_its_task(is_batch: bool) -> None:
    current = contextvars.ContextVar[str]("current")

    @contextmanager
    def setting(call: HandlerCall) -> Iterator[None]:
        token = current.set(str(call.key))
        yield
        current.reset(token)
        SEEN.append((call.key, call.outcome.word))

    async def slow(given: Any) -> None:
        key = (given[0] if isinstance(given, list) else given).key
        await asyncio.sleep(0)
        assert current.get() == key
        if key == "2.M1":
            raise BOOM

    async def together(function: Any) -> list[Any]:
        calls = [function([mail(key)] if is_batch else mail(key)) for key in ("1.M1", "2.M1")]
        return await asyncio.gather(*map(asyncio.create_task, calls), return_exceptions=True)

    surrounded = Middleware([("conf.hooks.setting", setting)]).around(slow, takes_list=is_batch)
    assert asyncio.run(together(surrounded)) == [None, BOOM]
    assert SEEN == [("1.M1", "acked")]  # the second was left by its exception


@pytest.mark.parametrize("hides", [False, True])
def test_an_async_handler_is_surrounded_until_it_has_ended_whatever_hides_it(hides: bool) -> None:
    current = contextvars.ContextVar[str]("current")

    @contextmanager
    def setting(call: HandlerCall) -> Iterator[None]:
        token = current.set("set")
        try:
            yield
        finally:
            # What hides a coroutine is called in one context, which the coroutine has a copy of.
            if not hides:
                current.reset(token)

    async def slow(message: Any, **captures: Any) -> None:
        await asyncio.sleep(0)
        SEEN.append(current.get())
        raise Defer("later")

    def hiding(message: Any, **captures: Any) -> object:
        return slow(message)

    assert outcome(hiding if hides else slow, noting, setting) == Deferred("later")
    assert SEEN[1:] == ["set", "Defer('later')", CallOutcome("deferred", "later")]


def test_a_cancelled_handler_is_left_and_stays_cancelled() -> None:
    async def endless(message: Any) -> None:
        await asyncio.Event().wait()

    async def cancel() -> None:
        surrounded: Any = Middleware([("noting", noting)]).around(endless)
        running = asyncio.create_task(surrounded(mail()))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancel())
    assert SEEN[1] == "CancelledError()"


def test_a_task_shows_the_arguments_of_its_call_and_none_that_nobody_signed(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter_project(tmp_path, monkeypatch)

    @contextmanager
    def looking(call: HandlerCall) -> Iterator[None]:
        SEEN.append((call.handler, call.arguments))
        yield

    def rebuild(blog_id: int, force: bool = False) -> None: ...

    rebuild.__qualname__ = "rebuild"
    deferred = task(rebuild)
    Router.middleware = Middleware([("conf.hooks.looking", looking)])
    deferred.defer(7)
    _, message = Queue("run/queue").pop()
    assert message is not None
    assert Dispatcher(Router, [__name__]).dispatch(message)[0] is ACKED
    assert [(f"{__name__}.rebuild", {"blog_id": 7, "force": False})] == SEEN
    message.key = message.copied_as = "another"
    ended = Dispatcher(Router, [__name__]).dispatch(message)[0]
    assert isinstance(ended, Buried)
    assert "a copy of one under another name" in ended.reason
    assert len(SEEN) == 1


def test_a_delivery_without_a_pool_is_surrounded() -> None:
    router = router_of(raises(BOOM), noting)
    router.LOG_EXCEPTIONS = False
    with pytest.raises(RuntimeError):
        router.deliver(mail())
    assert SEEN[-1].word == "failed"
    router = router_of(returns(None), broken_after)
    router.LOG_EXCEPTIONS = False
    with pytest.raises(RuntimeError):
        router.deliver(mail())


def test_a_capture_may_have_any_name() -> None:
    def handler(message: object, given: str, name: str) -> None:
        SEEN.append((given, name))

    surrounded = Middleware([("noting", noting)]).around(handler)
    surrounded(mail(), given="a", name="b")
    assert ("a", "b") in SEEN


def test_without_middleware_a_handler_is_called_as_it_is() -> None:
    handler = returns(None)
    assert step_of(handler).function is handler
    assert step_of(handler).batch_function is handler


# The setting


def positional_pair(call: object, more: object) -> Any: ...


def generator(call: object) -> Iterator[None]:
    yield


async def coroutine(call: object) -> None: ...


@asynccontextmanager
async def asynchronous(call: object) -> AsyncIterator[None]:
    yield


READY = suppress(Exception)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> types.ModuleType:
    enter_project(tmp_path, monkeypatch)
    made = types.ModuleType("conf.settings")
    monkeypatch.setattr(settings_module, "_loaded", made)
    return made


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("conf.hooks.timing", r"middleware is 'conf\.hooks\.timing': give a list of names"),
        (None, "give a list of names"),
        ([noting], "give a list of names"),
        (["timing"], "give names of functions with their modules"),
        ([""], "give names of functions with their modules"),
        ([f"{__name__}.noting"] * 2, "give each name once"),
        (["no.such.module"], "there is no module no"),
        (
            [f"{__name__}.nothing"],
            rf"test_middleware\.py has no nothing: correct the name {__name__}\.nothing",
        ),
        ([__name__], rf"{__name__} is a module: name a function in it, as {__name__}\.FUNCTION"),
        (["email.mime"], r"^conf\.settings: email\.mime is a module: name a function in it"),
        (
            [f"{__name__}.BOOM"],
            r"^conf\.settings: the middleware .* and not a function that makes a context manager: write",
        ),
        ([f"{__name__}.READY"], "and not a function that makes a context manager"),
        (
            [f"{__name__}.positional_pair"],
            r"test_middleware\.py:\d+: .*can't be called with one argument.*'more'",
        ),
        (
            [f"{__name__}.generator"],
            r"test_middleware\.py:\d+: .*is a generator or a coroutine: .*@contextlib",
        ),
        ([f"{__name__}.coroutine"], "is a generator or a coroutine"),
        (
            [f"{__name__}.asynchronous"],
            "is an async context manager, and handlers are surrounded by plain ones",
        ),
    ],
    ids=range(16),
)
def test_a_wrong_setting_is_refused_where_it_is_loaded(
    value: Any, why: str, settings: types.ModuleType
) -> None:
    vars(settings)["middleware"] = value
    with pytest.raises(ConfigurationError, match=why):
        use_middleware(Router)
    assert Router.middleware is None


def test_the_setting_names_functions_in_their_order(settings: types.ModuleType) -> None:
    vars(settings)["middleware"] = [f"{__name__}.noting", f"{__name__}.broken_after"]
    generation = Router.generation
    Router.load([])
    assert Router.middleware.functions == (
        (f"{__name__}.noting", noting),
        (f"{__name__}.broken_after", broken_after),
    )
    assert Router.generation > generation  # for dispatchers that have a table already
    assert middleware_of(types.ModuleType("none")) is None
    vars(settings)["middleware"] = ()
    use_middleware(Router)
    assert Router.middleware is None


def test_a_handler_whose_work_was_not_done_has_failed_for_middleware_too() -> None:
    ended = failed(returns(iter(())), noting)
    assert isinstance(ended.fault, HandlerNotRun)
