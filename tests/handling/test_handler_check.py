"""A route that is wrong, or wrong for its handler, is an error with file and line before any message comes."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from maildefer.bounce import bounce_to
from maildefer.errors import ConfigurationError
from maildefer.handling import handler_marks
from maildefer.handling.handler_check import check, check_handler, never_runs, place_of
from maildefer.handling.patterns import capture_faults
from maildefer.mail import MailRequest
from maildefer.routing import Router, batch, route, route_like, stateless
from maildefer.server import QueueReceiver, SMTPReceiver
from maildefer.tasks import task
from tests.sampling import one_fast

Handler = Callable[..., Any]
HERE = __file__


@pytest.fixture(autouse=True)
def _fresh_router(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    for name in ("REGISTERED", "HANDLERS", "DEFAULT_CAPTURES"):
        monkeypatch.setattr(Router, name, {})
    monkeypatch.setattr(Router, "ORDER", [])


def plain(message: object, name: object = None, host: object = None) -> None: ...


def needing(message: object, name: object, host: object) -> None: ...


def anything(*arguments: object, **captures: object) -> None: ...


def alone(message: object) -> None: ...


def noting(function: Handler) -> Handler:
    """Hands everything on."""

    @functools.wraps(function)
    def wrapper(message: object, *arguments: object, **captures: object) -> object:
        print("one more")
        return function(message, *arguments, **captures)

    return wrapper


def awaiting(function: Handler) -> Handler:
    """Hands everything on, and awaits it."""

    @functools.wraps(function)
    async def wrapper(message: object, *arguments: object, **captures: object) -> object:
        return await function(message, *arguments, **captures)  # type: ignore[no-any-return]

    return wrapper


def supplying(function: Handler) -> Handler:
    """Gives an argument of its own."""

    @functools.wraps(function)
    def wrapper(message: object, **captures: object) -> object:
        return function(message, "a database", **captures)

    return wrapper


def adding(function: Handler) -> Handler:
    @functools.wraps(function)
    def wrapper(message: object, **captures: object) -> object:
        captures["database"] = "a database"
        return function(message, **captures)

    return wrapper


def keeping(function: Handler) -> Handler:
    """Keeps a capture for itself."""

    @functools.wraps(function)
    def wrapper(message: object, **captures: object) -> object:
        captures.pop("host", None)
        return function(message, **captures)

    return wrapper


def with_database(message: object, database: object, host: object = None) -> None: ...


class Called:
    def __call__(self, message: object, name: object) -> None: ...


@pytest.mark.parametrize(
    ("function", "captures"),
    [
        (plain, ()),
        (plain, ("name",)),
        (plain, ("name", "host")),
        (needing, ("name", "host")),
        (anything, ("name", "else")),
        (alone, ()),
        (Called(), ("name",)),
        (functools.partial(needing, host="h"), ("name",)),
        (functools.partial(needing, host="h"), ("name", "host")),
        (noting(plain), ("name", "host")),
        (noting(noting(needing)), ("name", "host")),
        (noting(anything), ("whatever",)),
        (awaiting(noting(needing)), ("name", "host")),
        (supplying(with_database), ("host",)),
        (adding(with_database), ("host",)),
        (noting(adding(with_database)), ("host",)),
        (keeping(alone), ("host",)),
        (bounce_to(soft=alone, hard=alone)(plain), ("name", "host")),
    ],
)
def test_a_handler_that_its_captures_fit_is_taken(function: Handler, captures: tuple[str, ...]) -> None:
    check_handler(function, captures)


@pytest.mark.parametrize(
    ("function", "captures", "why"),
    [
        (plain, ("nmae",), "unexpected keyword argument 'nmae'"),
        (needing, ("name",), "missing a required argument: 'host'"),
        (awaiting(needing), ("name",), "missing a required argument: 'host'"),
        (alone, ("host",), "unexpected keyword argument 'host'"),
        (lambda: None, (), "too many positional arguments"),
        (plain, ("message",), "multiple values for argument 'message'"),
        (Called(), ("host",), "'name'|'host'"),
        (functools.partial(needing, host="h"), (), "missing a required argument: 'name'"),
        (noting(plain), ("nmae",), "unexpected keyword argument 'nmae'"),
        (noting(needing), ("name",), "missing a required argument: 'host'"),
        (noting(noting(needing)), ("name",), "missing a required argument: 'host'"),
        (supplying(with_database), ("nmae",), "unexpected keyword argument 'nmae'"),
        (keeping(alone), ("name",), "unexpected keyword argument 'name'"),
        (bounce_to(soft=alone, hard=alone)(plain), ("nmae",), "unexpected keyword argument 'nmae'"),
        (bounce_to(soft=alone, hard=alone)(noting(needing)), ("name",), "argument: 'host'"),
    ],
)
def test_a_handler_that_its_captures_do_not_fit_is_refused(
    function: Handler, captures: tuple[str, ...], why: str
) -> None:
    with pytest.raises(ConfigurationError, match=why) as refused:
        check_handler(function, captures)
    assert str(refused.value).startswith(f"{place_of(function)}: ")
    assert str(refused.value).startswith(f"{HERE}:")


def test_a_decorator_that_is_wrapped_in_itself_ends() -> None:
    wrapper = noting(plain)
    wrapper.__wrapped__ = wrapper  # type: ignore[attr-defined]
    check_handler(wrapper, ("name",))
    assert place_of(wrapper).startswith(HERE)


def test_what_a_decorator_says_of_itself_is_believed() -> None:
    import inspect

    wrapper = noting(plain)
    wrapper.__signature__ = inspect.signature(anything)  # type: ignore[attr-defined]
    check_handler(wrapper, ("nmae",))


def test_a_batch_gets_no_captures_but_has_to_take_a_list() -> None:
    check_handler(batch()(lambda messages: None), ("name",))
    with pytest.raises(ConfigurationError, match="missing a required argument: 'host'"):
        check_handler(batch()(lambda messages, host: None), ("host",))


def test_each_of_stacked_routes_has_to_fit() -> None:
    @route("(name)@(host)", name="a", host="b")
    @route("(host)", host="c")
    def START(message: object, host: object, name: object = None) -> None: ...

    check(Router.table())

    @route_like(START)
    def END(message: object, host: object) -> None: ...

    with pytest.raises(ConfigurationError, match=r"\.END can't be called: .*'name'"):
        check(Router.table())


# Generators, as far as they show


def generator(message: object) -> Iterator[None]:
    yield


async def async_generator(message: object) -> AsyncIterator[None]:
    yield


async def coroutine(message: object) -> None: ...


class CalledLater:
    async def __call__(self, message: object) -> None: ...

    def method(self, message: object) -> Iterator[None]:
        yield


class CalledInSteps:
    def __call__(self, message: object) -> Iterator[None]:
        yield


@pytest.mark.parametrize(
    "function",
    [
        generator,
        async_generator,
        functools.partial(generator, 1),
        CalledInSteps(),
        CalledLater().method,
        functools.partial(CalledInSteps()),
    ],
)
def test_a_generator_is_refused_in_each_of_its_forms(function: Handler) -> None:
    assert never_runs(function)
    with pytest.raises(ConfigurationError, match=rf"^{HERE}:\d+: .* is a generator, whose body no call runs"):
        check_handler(function, ())


@pytest.mark.parametrize(
    "function",
    [
        plain,
        noting(generator),
        Called(),
        len,
        int,
        functools.partial(plain),
        coroutine,
        functools.partial(coroutine),
        CalledLater(),
    ],
)
def test_what_may_run_is_no_generator(function: Handler) -> None:
    assert not never_runs(function)


@pytest.mark.parametrize(
    ("function", "is_async"),
    [
        (coroutine, True),
        (functools.partial(coroutine, 1), True),
        (CalledLater(), True),
        (functools.partial(CalledLater()), True),
        (noting(coroutine), True),
        (plain, False),
        (async_generator, False),
        (CalledLater().method, False),
        (len, False),
    ],
)
def test_a_function_is_async_by_what_its_decorators_show(function: Handler, is_async: bool) -> None:
    assert handler_marks.is_async(function) == is_async
    assert handler_marks.described(function)["async"] == is_async


def test_the_handler_of_a_task_is_async_as_its_function_is() -> None:
    for function, is_async in ((coroutine, True), (plain, False)):
        task(function)
        [*_, handler] = [one for _, functions in Router.table() for one in functions]
        assert handler_marks.is_async(handler) == is_async


# The captures of a route


@pytest.mark.parametrize(
    ("pattern", "given", "faults"),
    [
        ("(name)@(host)", {"name": "a"}, []),
        ("(nmae)@(host)", {}, ["nothing defines (nmae)"]),
        (
            "(nmae)@(host)",
            {"name": "a"},
            ["nothing defines (nmae)", "it has no (name), but name='a' is given"],
        ),
        ("x@h", {"timeout": "30"}, ["it has no (timeout), but timeout='30' is given"]),
        ("(joe|ann)@h", {}, []),
        ("(?:help)@h", {}, []),
        ("(?P<name>.+)@h", {}, []),
        (r"\(name\)@h", {}, []),
        ("[(name)]+@[^](x)]h", {}, []),
        (r"\\(name)@h", {}, ["nothing defines (name)"]),
        ("(outer)@h", {"outer": "a(inner)", "inner": "b"}, []),
        ("(outer)@h", {"outer": "(joe)"}, []),
    ],
)
def test_what_is_wrong_with_a_routes_captures(pattern: str, given: dict[str, str], faults: list[str]) -> None:
    found = list(capture_faults(pattern, given, {"host": ".+", **given}))
    assert [text.partition(":")[0] for text in found] == faults


def test_a_wrong_capture_is_named_with_the_line_of_its_route() -> None:
    @route(".+")
    @route("x@h", timeout="30")
    @stateless
    def START(message: object) -> None: ...

    [fault] = handler_marks.faults_of(START)
    line = START.__code__.co_firstlineno + 1
    assert fault.startswith(f"{HERE}:{line}: the route 'x@h': it has no (timeout)")
    with pytest.raises(ConfigurationError, match="it has no"):
        check(Router.table())


# Where it is said

WRONG = {
    "parameters": "def START(message, nmae=None): ...",
    "undefined": "def START(message, name=None): ...",
    "unused": "def START(message, name=None): ...",
}
ROUTES = {
    "parameters": '@route("(name)@h", name=".+")',
    "undefined": '@route("(nmae)@h")',
    "unused": '@route("x@h", timeout="30")',
}


@pytest.fixture
def project(tmp_path: Path) -> Callable[[str], Path]:
    def write(kind: str) -> Path:
        for package in ("conf", "app"):
            (tmp_path / package).mkdir(exist_ok=True)
            (tmp_path / package / "__init__.py").touch()
        (tmp_path / "conf/settings.py").write_text('queues = {"run/queue": ["app.front"]}\n')
        path = tmp_path / "app/front.py"
        path.write_text(f"from maildefer.routing import route\n\n{ROUTES[kind]}\n{WRONG[kind]}\n")
        return path

    return write


@pytest.mark.parametrize("modules", [[], ["app.front"]])
@one_fast("kind", sorted(WRONG))
@pytest.mark.slow
def test_routes_names_file_and_line(project: Callable[[str], Path], kind: str, modules: list[str]) -> None:
    path = project(kind)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAILDEFER_")}
    ended = subprocess.run(
        [sys.executable, "-m", "maildefer", "routes", *modules],
        cwd=path.parents[1], env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert f"{path}:3: " in ended.stderr
    assert ended.returncode in (1, 78)


@pytest.mark.parametrize("receiver", [QueueReceiver, lambda queue: SMTPReceiver(port=0)])
def test_no_receiver_starts_with_a_wrong_route(receiver: Handler) -> None:
    Router.register_route("^(?P<nmae>.*)$", plain)
    made = receiver("run/queue")
    try:
        with pytest.raises(ConfigurationError, match="nmae"):
            made.start()
    finally:
        made.close()


def test_a_receiver_that_reloads_keeps_its_routes_when_the_new_ones_are_wrong(
    project: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = project("unused")
    good = path.read_text().replace(', timeout="30"', "")
    path.write_text(good)
    monkeypatch.syspath_prepend(str(path.parents[1]))
    monkeypatch.setattr(Router, "LOG_EXCEPTIONS", False)
    Router.load(["app.front"])
    try:
        Router.deliver(MailRequest("peer", "a@b", "x@h", b"\n"))
        path.write_text(
            good + "# longer, so that it is read again\n" + ROUTES["unused"] + "\ndef END(message): ...\n"
        )
        with pytest.raises(ConfigurationError, match=f"{path}:6"):
            Router.reload()
        assert len(Router.table()) == 1
    finally:
        for name in ("app", "app.front"):
            sys.modules.pop(name, None)
