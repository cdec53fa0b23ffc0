"""`@concurrency` and `@rate`: what they mean, what they refuse, where they may stand, and of which keys they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maildefer.errors import ConfigurationError
from maildefer.handling import decorators
from maildefer.handling.calls.step import step_of
from maildefer.handling.handler_check import check_handler
from maildefer.handling.limits.limit import limits_of
from maildefer.handling.routes import RoutingBase
from maildefer.routing import batch, concurrency, rate, route, stateless
from maildefer.tasks import task
from tests.support.in_project import enter_project

any_concurrency: Any = concurrency
any_rate: Any = rate


@pytest.fixture(autouse=True)
def router(monkeypatch: pytest.MonkeyPatch) -> RoutingBase:
    made = RoutingBase()
    monkeypatch.setattr(decorators, "Router", made)
    return made


def fresh() -> Callable[..., Any]:
    def send(message: Any, **captures: str) -> None: ...

    send.__qualname__ = send.__name__
    return send


@pytest.mark.parametrize(
    ("text", "count", "seconds"),
    [
        ("30/min", 30, 60),
        ("5/s", 5, 1),
        ("1000/h", 1000, 3600),
        ("10/30s", 10, 30),
        (" 3 / 1.5 minutes ", 3, 90),
        ("1/day", 1, 86400),
    ],
)
def test_a_rate_is_a_number_and_a_time(text: str, count: int, seconds: float) -> None:
    [limit] = limits_of(rate(text)(fresh()))
    assert (limit.count, limit.period_seconds) == (count, seconds)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "30",
            "30/",
            "/min",
            "-1/min",
            "0/min",
            "1.5/min",
            "30/fortnight",
            "30/0s",
            "30/0.5s",
            "30 per min",
        ),
        *("6000/h", "1/32d", "30/min; 5/s", "३०/min", "99999999999/min", None, 30, b"30/min"),
    ],
)
def test_nonsense_is_refused_with_the_function(text: Any) -> None:
    with pytest.raises(ValueError, match=r"@rate on tests\.handling\.limits\.test_declare\.send: .*give "):
        any_rate(text)(fresh())


@pytest.mark.parametrize("count", [0, -1, 1.0, True, "2", None, 1001])
def test_so_many_at_a_time_is_a_whole_number(count: Any) -> None:
    with pytest.raises(ValueError, match=r"@concurrency on .*send: .*give a number from 1 to 1000"):
        any_concurrency(count)(fresh())


@pytest.mark.parametrize("key", [1, "no name", "", "a.b", b"domain"])
def test_a_key_is_a_name_or_a_function(key: Any) -> None:
    with pytest.raises(TypeError, match=r"@concurrency on .*send: key="):
        any_concurrency(1, key=key)(fresh())


def test_the_same_limit_stands_there_once() -> None:
    with pytest.raises(TypeError, match="it stands there twice"):
        concurrency(2)(concurrency(3)(fresh()))
    both = rate("5/s", key="domain")(rate("100/h", key="domain")(concurrency(1)(fresh())))
    assert [str(limit) for limit in limits_of(both)] == [
        "1 at a time",
        "100 in 1h by domain",
        "5 in 1s by domain",
    ]


@pytest.mark.parametrize("bare", [any_concurrency, any_rate])
def test_without_parentheses_it_is_refused(bare: Any) -> None:
    with pytest.raises(ValueError, match=r"on tests\.handling\.limits\.test_declare\.send: .*give a number"):
        bare(fresh())


def test_a_method_is_refused() -> None:
    class Handlers:
        def send(self, message: Any) -> None: ...

    with pytest.raises(TypeError, match="functions of a module"):
        concurrency(1)(Handlers().send)


def through(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return wrapper


@pytest.mark.parametrize(
    "stand",
    [
        lambda f: concurrency(2)(route("post@osb")(stateless(f))),
        lambda f: route("post@osb")(concurrency(2)(stateless(f))),
        lambda f: route("post@osb")(stateless(concurrency(2)(f))),
        lambda f: concurrency(2)(route("post@osb")(stateless(batch()(f)))),
        lambda f: route("post@osb")(stateless(batch()(concurrency(2)(f)))),
        lambda f: concurrency(2)(through(route("post@osb")(stateless(f)))),
        lambda f: route("post@osb")(through(stateless(concurrency(2)(f)))),
    ],
)
def test_it_may_stand_anywhere(
    stand: Callable[[Callable[..., Any]], Callable[..., Any]], router: RoutingBase
) -> None:
    stand(fresh())
    [(_, [function])] = router.table()
    assert [limit.count for limit in step_of(function).limits] == [2]


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RoutingBase:
    enter_project(tmp_path, monkeypatch)
    from maildefer.handling.tasks import declare as tasks

    made = RoutingBase()
    monkeypatch.setattr(tasks, "Router", made)
    return made


@pytest.mark.parametrize(
    "stand",
    [lambda f: concurrency(2, key="domain")(task(f)), lambda f: task(concurrency(2, key="domain")(f))],
)
def test_a_task_may_be_limited_by_a_parameter(stand: Callable[[Any], Any], tasks: RoutingBase) -> None:
    def notify(domain: str, text: str = "") -> None: ...

    notify.__qualname__ = "notify"
    stand(notify)
    [(pattern, [handler])] = tasks.table()
    check_handler(handler, tuple(pattern.groupindex))
    assert [str(limit) for limit in limits_of(handler)] == ["2 at a time by domain"]


def test_a_name_that_nothing_gives_is_refused_at_load() -> None:
    with pytest.raises(
        ConfigurationError, match=r"test_declare.py:\d+: .*send is limited to 1 at a time by domain"
    ):
        check_handler(concurrency(1, key="domain")(fresh()), ("list_name",))
    check_handler(concurrency(1, key="list_name")(fresh()), ("list_name",))


def test_a_name_that_is_no_parameter_of_the_task_is_refused_at_load(tasks: RoutingBase) -> None:
    def send(domain: str) -> None: ...

    send.__qualname__ = "send"
    concurrency(1, key="host")(task(send))
    [(_, [handler])] = tasks.table()
    with pytest.raises(
        ConfigurationError, match=r"test_declare\.py:\d+: .*nothing gives it host: it has domain"
    ):
        check_handler(handler, ())


def test_a_function_that_does_not_fit_is_refused_at_load() -> None:
    with pytest.raises(ConfigurationError, match="can't be called with what it gets"):
        check_handler(concurrency(1, key=lambda message: "")(fresh()), ("list_name",))
    check_handler(concurrency(1, key=lambda message, list_name: "")(fresh()), ("list_name",))


def test_a_batch_is_limited_as_a_whole() -> None:
    with pytest.raises(ConfigurationError, match="is a @batch, whose messages have many keys"):
        check_handler(concurrency(1, key="name")(stateless(batch()(lambda messages: None))), ("name",))
