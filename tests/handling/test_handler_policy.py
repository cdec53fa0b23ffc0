"""`@retry` and `@timeout`: what they refuse, where they may stand, and whose failures they are for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maildefer.handling import decorators, handler_marks
from maildefer.handling.calls.step import step_of
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.handler_marks import RetryTerms
from maildefer.handling.outcomes import Buried, Deferred
from maildefer.handling.retry import RetryPolicy
from maildefer.handling.routes import RoutingBase
from maildefer.mail import MailRequest
from maildefer.queue import Queue
from maildefer.routing import Defer, Reject, batch, keep, retry, route, stateless, timeout
from maildefer.tasks import task
from tests.support.in_project import enter_project

any_retry: Any = retry
any_timeout: Any = timeout
any_keep: Any = keep


@pytest.fixture(autouse=True)
def router(monkeypatch: pytest.MonkeyPatch) -> RoutingBase:
    made = RoutingBase()
    monkeypatch.setattr(decorators, "Router", made)
    return made


def handler(message: Any, **captures: str) -> None: ...


def fresh() -> Callable[..., Any]:
    def posting(message: Any) -> None:
        raise ValueError("boom")

    posting.__qualname__ = posting.__name__
    return posting


def fresh_async() -> Callable[..., Any]:
    async def posting(message: Any) -> None:
        raise ValueError("boom")

    posting.__qualname__ = posting.__name__
    return posting


def mail() -> MailRequest:
    return MailRequest("peer", "ann@example.org", "post@osb", b"Subject: x\n\nhi\n")


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"attempts": 0}, "attempts=0: give a number from 1"),
        ({"attempts": -1}, "attempts=-1"),
        ({"attempts": True}, "attempts=True"),
        ({"attempts": "3"}, "attempts='3'"),
        ({"attempts": 1.5}, "attempts=1.5"),
        ({"backoff": -1}, "backoff=-1 is no time: give zero"),
        ({"backoff": "soon"}, "backoff='soon'"),
        ({"backoff": float("nan")}, "backoff=nan"),
        ({"backoff": float("inf")}, "backoff=inf"),
        ({"backoff": (60, 5)}, r"backoff=\(60, 5\): give one pause, or the first and the longest"),
        ({"backoff": (1, 2, 3)}, r"backoff=\(1, 2, 3\): give one pause"),
        ({"backoff": ()}, r"backoff=\(\): give one pause"),
        ({"backoff": (1, "x")}, "backoff='x'"),
        ({"backoff": lambda failures: 5}, "backoff=<function"),
        ({"lifetime": 0}, "lifetime=0 is no time: give 1 or more"),
        ({"lifetime": "5 years"}, "lifetime='5 years'"),
        ({"lifetime": "999w"}, "less than ten years"),
        ({}, "give attempts, backoff or lifetime by name"),
        ({"atempts": 3}, "by name, not atempts"),
    ],
)
def test_nonsense_is_refused_where_the_function_is_defined_and_both_are_named(
    given: dict[str, Any], wrong: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^@retry on {__name__}.posting: .*{wrong}"):
        any_retry(**given)(fresh())


@pytest.mark.parametrize("seconds", [0, -1, "", "0s", "long", None, True, float("inf"), "999w"])
def test_a_time_limit_that_is_none_is_refused(seconds: Any) -> None:
    with pytest.raises(ValueError, match=f"^@timeout on {__name__}.posting: seconds="):
        any_timeout(seconds)(fresh())


@pytest.mark.parametrize("decorator", [any_retry, any_timeout, any_keep])
def test_a_decorator_without_its_parentheses_is_refused(decorator: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="posting"):
        decorator(fresh())


@pytest.mark.parametrize("decorator", [retry(attempts=2), timeout(5), keep("7d")])
def test_what_stands_twice_is_refused(decorator: Any) -> None:
    with pytest.raises(TypeError, match=r"posting: it stands there twice"):
        decorator(decorator(fresh()))


def test_a_method_is_refused_as_it_keeps_no_marks() -> None:
    class Posts:
        def posting(self, message: Any) -> None: ...

    with pytest.raises(TypeError, match=r"posting: it goes on the functions of a module"):
        retry(attempts=2)(Posts().posting)


def test_times_are_seconds_or_texts() -> None:
    terms = handler_marks.retry_of(retry(attempts=3, backoff=("10s", "1h"), lifetime="2d")(fresh()))
    assert terms == RetryTerms(3, 10.0, 3600.0, 172800.0)
    assert handler_marks.retry_of(retry(backoff=0)(fresh())) == RetryTerms(None, 0.0, 0.0, None)
    assert handler_marks.timeout_of(timeout("5m")(fresh())) == 300.0


def wrapped(function: Any) -> Any:
    @functools.wraps(function)
    def around(*arguments: Any, **captures: Any) -> Any:
        return function(*arguments, **captures)

    return around


POLICY: list[Any] = [retry(attempts=2), timeout(5), keep("1h")]


@pytest.mark.parametrize(
    "bottom_up",
    [
        [*POLICY, stateless, route("post@osb")],
        [stateless, route("post@osb"), *POLICY],
        [stateless, POLICY[0], route("post@osb"), *POLICY[1:]],
        [*POLICY, wrapped, stateless, route("post@osb")],
        [stateless, route("post@osb"), wrapped, *POLICY],
        [*POLICY, batch(limit=5), stateless, route("post@osb")],
        [batch(limit=5), stateless, route("post@osb"), *POLICY],
    ],
)
def test_the_order_of_decorators_does_not_matter(bottom_up: list[Any], router: RoutingBase) -> None:
    function: Any = fresh()
    for decorator in bottom_up:
        function = decorator(function)
    [(_, [routed])] = router.table()
    step = step_of(routed)
    assert (step.retry, step.timeout_seconds, step.keep) == (RetryTerms(2), 5.0, 3600.0)


@pytest.mark.parametrize("above", [True, False])
def test_a_task_has_the_policy_of_its_function(
    above: bool, router: RoutingBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter_project(tmp_path, monkeypatch)
    monkeypatch.setattr("maildefer.handling.tasks.declare.Router", router)
    function: Any = fresh()
    for decorator in [task, *POLICY] if above else [*POLICY, task]:
        function = decorator(function)
    function.defer(mail := "a text")
    _, message = Queue("run/queue").pop()
    assert message is not None
    outcome, _ = Dispatcher(router).dispatch(message)
    assert isinstance(outcome, Deferred), mail
    assert outcome.retry == RetryTerms(2)


def outcome_of(router: RoutingBase) -> Any:
    return Dispatcher(router).dispatch(mail())[0]


def raising(fault: Exception) -> Any:
    def posting(message: Any) -> None:
        raise fault

    posting.__qualname__ = posting.__name__
    return posting


def test_the_policy_of_the_handler_that_failed_counts(router: RoutingBase) -> None:
    for function in (retry(attempts=7)(handler), retry(attempts=2)(fresh()), fresh()):
        route("post@osb")(stateless(function))
    assert outcome_of(router).retry == RetryTerms(2)


def test_of_several_that_failed_the_first_counts(router: RoutingBase) -> None:
    for function in (fresh(), retry(attempts=2)(fresh())):
        route("post@osb")(stateless(function))
    assert outcome_of(router).retry is None


def test_a_failure_counts_before_what_another_handler_defers(router: RoutingBase) -> None:
    for function in (retry(attempts=9)(raising(Defer("later"))), retry(attempts=2)(fresh())):
        route("post@osb")(stateless(function))
    assert outcome_of(router).retry == RetryTerms(2)


def test_a_rejected_message_has_no_policy(router: RoutingBase) -> None:
    route("post@osb")(stateless(retry(attempts=9)(raising(Reject("never")))))
    assert outcome_of(router) == Buried("never")


def test_a_handlers_terms_replace_the_settings_and_leave_the_others_alone() -> None:
    settings = RetryPolicy(max_attempts=7, lifetime_seconds=1000)
    assert settings.under(None) is settings
    assert settings.under(RetryTerms(max_attempts=3)).lifetime_seconds == 1000
    own = settings.under(RetryTerms(None, 5.0, 20.0, 50.0))
    assert (own.max_attempts, own.lifetime_seconds) == (7, 50.0)
    assert [own.next(failures, 0, lambda: 0.5) for failures in (1, 2, 3, 4)] == [5, 10, 20, 20]


def test_a_pause_of_one_number_does_not_grow() -> None:
    constant = RetryPolicy().under(handler_marks.retry_of(retry(backoff=30)(fresh())))
    assert [constant.next(failures, 0, lambda: 0.5) for failures in (1, 2, 19)] == [30, 30, 30]


def test_one_attempt_is_never_followed_by_another() -> None:
    once = RetryPolicy().under(RetryTerms(max_attempts=1))
    failed = Deferred("boom", error="ValueError: boom")
    assert once.delay(failed, 1, 1, 0, lambda: 0.5) is None
    assert once.delay(Deferred("later", 60), 5, 0, 0, lambda: 0.5) == 60, (
        "what a handler asks for is no failure"
    )


def test_a_batch_fails_by_its_own_policy(router: RoutingBase) -> None:
    route("post@osb")(stateless(batch(limit=5)(retry(attempts=2)(fresh()))))
    dispatcher = Dispatcher(router)
    step = dispatcher.batch_for(mail())
    assert step is not None
    outcome = dispatcher.dispatch_batch(step, [mail(), mail()])
    assert isinstance(outcome, Deferred)
    assert outcome.retry == RetryTerms(2)


@pytest.mark.parametrize(
    ("functions", "most"),
    [
        ([retry(attempts=2)(fresh())], 2),
        ([retry(attempts=2)(fresh()), retry(attempts=4)(fresh())], 4),
        ([retry(attempts=2)(fresh()), fresh()], None),
        ([retry(backoff=2)(fresh())], None),
        ([batch(limit=5)(retry(attempts=2)(fresh()))], None),
        ([retry(attempts=2)(fresh_async())], None),
        ([retry(attempts=1)(fresh_async())], 1),
        ([retry(attempts=1)(fresh_async()), fresh()], None),
        ([], None),
    ],
)
def test_after_a_workers_death_the_most_patient_handler_counts(
    functions: list[Any], most: int | None, router: RoutingBase
) -> None:
    for function in functions:
        route("post@osb")(stateless(function))
    assert Dispatcher(router).most_failures(mail()) == most


def test_each_handler_is_begun_with_its_own_time_limit_and_how_often_it_may_exceed_it(
    router: RoutingBase,
) -> None:
    begun: list[tuple[float | None, int]] = []
    patient = retry(attempts=2)
    for function in (
        fresh(),
        timeout("5m")(fresh()),
        timeout(1)(patient(fresh())),
        patient(fresh()),
        timeout(1)(retry(backoff=2)(fresh())),
        batch(limit=5)(timeout(1)(patient(fresh()))),
    ):
        route("post@osb")(stateless(function))
    Dispatcher(router, running=lambda *told: begun.append(told[1:])).dispatch(mail())
    assert begun == [(None, 0), (300.0, 0), (1.0, 2), (None, 0), (1.0, 0), (1.0, 0)]
