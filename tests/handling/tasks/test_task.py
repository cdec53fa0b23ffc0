"""Functions as deferred work."""

from __future__ import annotations

import copy
import enum
import functools
import math
import os
import re
import time
import types
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from maildefer.errors import ConfigurationError
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.outcomes import ACKED, NO_ROUTE, Buried, Deferred
from maildefer.handling.project import settings as settings_module
from maildefer.handling.routes import Router
from maildefer.handling.tasks import signature
from maildefer.handling.tasks.call import Call, composed
from maildefer.maildir.names import EntryName
from maildefer.maildir.push import Pusher
from maildefer.queue import PushedKey, Queue
from maildefer.routing import Defer
from maildefer.tasks import ArgumentsRefused, task
from tests.support.in_project import enter_project

CALLS: list[Any] = []


def rebuild(blog_id: int, *more: Any, **named: Any) -> str:
    CALLS.append((blog_id, more, named))
    return "workers.index.START"  # no handoff: results are lost


def announce(blog_id: int, unique: bool = False) -> None:
    CALLS.append((blog_id, unique))


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_project(tmp_path, monkeypatch)
    CALLS.clear()


def handled(queue: str = "run/queue") -> Any:
    _, message = Queue(queue).pop()
    assert message is not None
    return Dispatcher(Router, [__name__]).dispatch(message)


def test_a_deferred_call_is_made_when_its_message_is_handled() -> None:
    deferred = task(rebuild)
    key = deferred.defer(7, ["é", None, 1.5], title="A\nB")
    assert CALLS == []
    assert key in Queue("run/queue").keys()  # noqa: SIM118
    assert handled() == (ACKED, f"{__name__}.rebuild")
    assert CALLS == [(7, (["é", None, 1.5],), {"title": "A\nB"})]


def test_a_task_is_still_the_function() -> None:
    deferred = task(rebuild)
    assert deferred(7) == "workers.index.START"
    assert (deferred.name, deferred.__doc__, deferred.__module__) == (f"{__name__}.rebuild", None, __name__)


def redefined(function: Any) -> None:
    """The module is loaded anew, and has another function of the name `move`."""
    Router.clear_routes()
    function.__name__ = function.__qualname__ = "move"
    task(function)


def move(src: str, dst: str) -> None:
    CALLS.append(f"{src} to {dst}")


def test_what_a_call_gives_by_name_is_bound_by_name_when_the_function_has_changed() -> None:
    def reordered(dst: str, src: str, mode: str = "") -> None:
        CALLS.append(f"{src} to {dst}")

    task(move).defer(src="a", dst="b")
    redefined(reordered)
    assert handled()[0] == ACKED
    assert CALLS == ["a to b"]


def test_a_call_with_a_name_that_the_function_no_longer_has_is_a_dead_letter_that_says_so() -> None:
    def renamed(src: str, target: str = "") -> None:
        CALLS.append("a call that nobody made")

    task(move).defer("a", dst="b")
    redefined(renamed)
    outcome = handled()[0]
    assert isinstance(outcome, Buried)
    assert "test_task.move does not take the arguments of this call: got an unexpected" in outcome.reason
    assert "'dst'" in outcome.reason
    assert CALLS == []


def test_a_call_of_an_earlier_version_which_has_positions_only_is_made() -> None:
    earlier = Call(task=f"{__name__}.move", args=["a", "b"], kwargs={})
    layout = Queue("run/queue").layout
    Pusher(layout, host="here").push(composed(earlier, task(move).address, layout.path, "here"))
    assert handled()[0] == ACKED
    assert CALLS == ["a to b"]


def test_the_names_of_a_call_are_signed() -> None:
    task(move).defer(src="a", dst="b")
    [path] = (
        Path(Queue("run/queue").layout.new) / name for name in os.listdir(Queue("run/queue").layout.new)
    )
    text = path.read_bytes()
    assert b'"args": [], "kwargs": {"src": "a", "dst": "b"}' in text
    path.write_bytes(text.replace(b'"src"', b'"tmp"').replace(b'"dst"', b'"src"').replace(b'"tmp"', b'"dst"'))
    assert isinstance(handled()[0], Buried)
    assert CALLS == []


def test_the_message_of_a_call_is_json() -> None:
    task(rebuild).defer(blog_id=7)
    _, message = Queue("run/queue").pop()
    assert message is not None
    assert message.base.content_encoding["Content-Type"][0] == "application/json"
    assert (message.From, message.To) == ("", f"{__name__}.rebuild@task.invalid".lower())


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        {1: 2},
        {"a": (1,)},
        bytearray(b"x"),
        object(),
        math.nan,
        math.inf,
        Colour.RED,
        {1},
        [Colour.RED],
    ],
    ids=lambda value: type(value).__name__,
)
def test_arguments_that_do_not_survive_json_are_refused(value: Any) -> None:
    with pytest.raises(ArgumentsRefused, match="rebuild"):
        task(rebuild).defer(value)
    assert Queue("run/queue").count() == 0


def test_arguments_without_end_are_refused() -> None:
    endless: Any = []
    endless.append(endless)
    with pytest.raises(ArgumentsRefused):
        task(rebuild).defer(endless)


def test_arguments_that_the_function_does_not_take_are_refused() -> None:
    with pytest.raises(ArgumentsRefused, match="blog_id"):
        task(rebuild).defer(title="x")  # type: ignore[call-overload]
    assert issubclass(ArgumentsRefused, TypeError)


def test_a_call_that_was_not_deferred_here_is_rejected() -> None:
    deferred = task(rebuild)
    deferred.defer(7)
    _, genuine = Queue("run/queue").pop()
    assert genuine is not None
    assert isinstance(genuine.Data, bytes)
    forged = genuine.Data.replace(b'"args": [7]', b'"args": [8]')
    unsigned = b"Subject: x\n\n" + forged.partition(b"\n\n")[2]
    for data in (forged, unsigned, b""):
        Queue("run/queue").push(data, sender="eve@x", recipient=deferred.address)
        assert isinstance(handled()[0], Buried)
    signature.ensure_secret(Queue("run/other").layout.path)
    Queue("run/other").push(genuine.Data, recipient=deferred.address)
    assert isinstance(handled("run/other")[0], Buried)
    assert CALLS == []


def test_names_that_differ_in_case_only_are_two_tasks() -> None:
    def Rebuild() -> None:
        CALLS.append("the other")

    Rebuild.__qualname__ = "Rebuild"
    task(rebuild)
    task(Rebuild).defer()
    assert handled()[0] == ACKED
    assert CALLS == ["the other"]


def test_a_signature_that_is_no_number_is_none() -> None:
    wanted = signature.signature(signature.ensure_secret(Queue("run/queue").layout.path), "key", b"text")
    assert signature.is_same(wanted, wanted)
    for given in ("zz", "abc", ""):
        assert not signature.is_same(given, wanted)


def test_what_a_task_raises_is_treated_as_a_handlers_exception() -> None:
    def later(seconds: float) -> None:
        raise Defer("not now", after=seconds)

    later.__qualname__ = "later"
    task(later).defer(60)
    assert handled()[0] == Deferred("not now", 60)


def test_calls_wait_in_the_queue_that_has_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = types.ModuleType("conf.settings")
    vars(settings)["queues"] = {"run/first": ["workers.front"], "run/mine": [__name__]}
    monkeypatch.setattr(settings_module, "_loaded", settings)
    task(rebuild).defer(1)
    assert (Queue("run/first").count(), Queue("run/mine").count()) == (0, 1)
    task(queue="run/mine")(rebuild).defer(1)
    assert Queue("run/mine").count() == 2


def test_a_task_for_a_queue_that_no_setting_lists_is_refused_where_it_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    early = task(queue="run/notfy")(rebuild)  # before settings are loaded, as a program may
    settings = types.ModuleType("conf.settings")
    vars(settings)["queues"] = {"run/first": ["workers.front"], "run/notify": [__name__], "run/kept": []}
    monkeypatch.setattr(settings_module, "_loaded", settings)
    for queue, why in (("run/notfy", "no setting lists"), ("run/first", "no handlers of that module")):
        with pytest.raises(ConfigurationError, match=rf"test_task\.py:\d+: @task on .*{why}"):
            task(queue=queue)(rebuild)
    with pytest.raises(ConfigurationError, match="no setting lists the queue run/notfy"):
        early.defer(1)
    assert not (tmp_path / "run" / "notfy").exists()
    task(queue="run/notify")(rebuild)
    task(queue="run/kept")(rebuild)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (__name__, rf"of that module, .*buried: add '{re.escape(__name__)}' in "),
        ("__main__", "of __main__, .*no worker imports: move the function to a module"),
    ],
)
def test_a_call_for_which_no_queue_has_handlers_is_refused_where_it_is_deferred(
    module: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = types.ModuleType("conf.settings")
    vars(settings)["queues"] = {"run/first": ["workers.front"], "run/kept": []}
    monkeypatch.setattr(settings_module, "_loaded", settings)
    monkeypatch.setattr(rebuild, "__module__", module)
    deferred = task(rebuild)  # where it is loaded it is no mistake: it may be called without a queue
    with pytest.raises(
        ConfigurationError, match=rf"test_task\.py:\d+: @task on .*: no queue has handlers {why}"
    ):
        deferred.defer(1)
    deferred(1)
    monkeypatch.delitem(vars(settings), "queues")
    deferred.defer(1)  # to a receiver's handlers, say, which no setting lists
    assert Queue("run/queue").count() == 1


def test_methods_and_generators_are_refused() -> None:
    async def never() -> AsyncIterator[None]:
        yield

    def yielding() -> Iterator[None]:
        yield

    class Blog:
        def rebuild(self) -> None: ...

    never.__qualname__, yielding.__qualname__ = "never", "yielding"
    for wrong in (Blog.rebuild, never, yielding):
        with pytest.raises(TypeError):
            task(wrong)


def test_a_partial_and_an_object_are_refused_by_what_they_are() -> None:
    class Rebuilder:
        def __call__(self) -> None: ...

    for wrong, name in (
        (functools.partial(rebuild, 7), r"functools\.partial\("),
        (Rebuilder(), "<.*Rebuilder"),
    ):
        for decorator in (task, task(queue="run/queue"), task(every="1h")):
            with pytest.raises(TypeError, match=rf"@task on {name}.*: it goes on plain functions"):
                decorator(wrong)
    with pytest.raises(TypeError, match="@task on None: it goes on plain functions"):
        task(every="1h")(None)  # type: ignore[arg-type]


def test_a_class_and_a_task_are_refused() -> None:
    class Rebuilder: ...

    Rebuilder.__qualname__ = "Rebuilder"
    for wrong, why in ((Rebuilder, "it goes on plain functions"), (task(rebuild), "it is a task already")):
        for decorator in (task, task(every="1h")):
            with pytest.raises(TypeError, match=f"@task on .*{why}"):
                decorator(wrong)


def test_a_decorator_that_hides_the_function_below_it_is_told_how_it_is_made() -> None:
    def hiding(function: Any) -> Any:
        def inner() -> None:
            function()

        return inner

    with pytest.raises(TypeError, match=r"inner: .* a decorator below it is made with functools\.wraps"):
        task(hiding(rebuild))


def test_a_task_is_shown_by_its_name_and_copied_as_it_is() -> None:
    made = task(rebuild)
    assert repr(made) == f"<task {__name__}.rebuild>"
    assert copy.copy(made).name == made.name


@pytest.mark.parametrize("word", ["delay", "apply_async", "schedule", "enqueue"])
def test_words_of_other_libraries_are_answered_with_defer(word: str) -> None:
    with pytest.raises(AttributeError, match=rf"rebuild has no {word}: \.defer\(…\) calls it later"):
        getattr(task(rebuild), word)
    any_task: Any = task
    with pytest.raises(TypeError, match=r"argument 'retries': give queue, .*; @retry, @timeout"):
        any_task(retries=3)


def test_a_schedule_that_is_none_is_refused_with_the_tasks_name() -> None:
    def digest() -> None: ...

    digest.__qualname__ = "digest"
    with pytest.raises(ValueError, match=r"@task on .*digest: .*two schedules"):
        task(every="1h", cron="15 3 * * *")(digest)
    with pytest.raises(ValueError, match=r"@task on .*digest: cron='0 0 30 2 \*'"):
        task(cron="0 0 30 2 *")(digest)
    for empty in ("", "  "):
        with pytest.raises(ValueError, match=r"@task on .*digest: cron='': give five fields"):
            task(cron=empty)(digest)
    with pytest.raises(ValueError, match=r"@task on .*digest: every='366d': give .* to a year \(365d\)"):
        task(every="366d")(digest)
    assert task(every="365d")(digest).periodic is not None
    with pytest.raises(TypeError, match=r"@task\('1h'\): name what it is: queue=, every= or cron="):
        task("1h")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"task\(\) got an unexpected keyword argument 'daily'"):
        task(daily=True)(digest)  # type: ignore[call-overload]


def test_a_function_that_needs_arguments_cannot_be_periodic() -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'blog_id': periodic calls have none"):
        task(every="1h")(rebuild)


def test_a_periodic_task_is_a_task_as_any_other() -> None:
    calls = []

    def digest(day: str = "today") -> None:
        calls.append(day)

    digest.__qualname__ = "digest"
    made = task(cron="15 3 * * *", tz="Europe/Berlin")(digest)
    made()
    made.defer("yesterday")
    assert handled()[0] == ACKED
    assert calls == ["today", "yesterday"]
    assert made.periodic is not None
    assert made.periodic.catch_up == "last"


def due_of_the_only_call() -> int | None:
    [name] = os.listdir(f"{Queue('run/queue').layout.path}/.later/new")
    return EntryName.parse(name).due


def test_a_call_is_made_later_on_request() -> None:
    key = task(rebuild).defer(7, after=3600)
    due = due_of_the_only_call()
    assert due is not None
    assert time.time() + 3590 < due < time.time() + 3610
    Queue("run/queue").reschedule(key, after=0)
    assert handled()[0] == ACKED
    assert CALLS == [(7, (), {})]


def test_a_call_is_made_at_a_time_on_request() -> None:
    task(rebuild).defer(7, at=datetime(2090, 1, 1, tzinfo=UTC))
    assert due_of_the_only_call() == 3786912000


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"priority": "urgent"}, ValueError),
        ({"after": -1}, ValueError),
        ({"after": "1"}, TypeError),
        ({"at": datetime(2090, 1, 1)}, ValueError),
    ],
)
def test_a_call_at_what_is_no_time_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="give"):
        task(rebuild).defer(7, **options)
    assert Queue("run/queue").count() == 0


def remind(user: str, at: str, after: int = 0) -> None:
    CALLS.append((user, at, after))


def test_a_functions_own_parameter_is_no_option() -> None:
    task(remind).defer("ann", at="noon", after=5)
    assert handled()[0] == ACKED
    assert CALLS == [("ann", "noon", 5)]


def test_options_can_be_given_beside_parameters_of_the_same_name() -> None:
    key = task(remind).options(after=3600).defer("ann", at="noon", after=5)
    assert due_of_the_only_call() is not None
    Queue("run/queue").reschedule(key, after=0)
    assert handled()[0] == ACKED
    assert CALLS == [("ann", "noon", 5)]
    with pytest.raises(TypeError, match="eta"):
        task(remind).options(eta=5)  # type: ignore[call-arg]


def test_a_call_of_a_task_that_is_gone_is_buried_and_told_as_one() -> None:
    def vanished() -> None: ...

    vanished.__qualname__ = "vanished"
    task(vanished).defer()
    Router.clear_routes()
    outcome = handled()[0]
    assert isinstance(outcome, Buried)
    assert outcome.reason.startswith(NO_ROUTE), "by which a pool knows of a deployment fault"
    assert "no module of this queue has the task" in outcome.reason
    assert "test_task.vanished" in outcome.reason


def test_a_second_call_with_a_unique_key_is_not_pushed_while_one_has_not_ended() -> None:
    deferred = task(rebuild)
    first = deferred.defer(7, unique="front page")
    second = deferred.defer(8, unique="front page", after=60)
    assert isinstance(first, PushedKey)
    assert isinstance(second, PushedKey)
    assert (first.is_new, second.is_new, second) == (True, False, first)
    assert handled() == (ACKED, f"{__name__}.rebuild")
    assert CALLS == [(7, (), {})]
    assert deferred.options(unique="front page").defer(9) != first


def test_unique_keys_of_different_tasks_are_different() -> None:
    keys = {task(function).defer(7, unique="front page") for function in (rebuild, announce)}
    assert len(keys) == 2


def test_a_parameter_of_the_function_named_unique_is_the_functions() -> None:
    deferred = task(announce)
    keys = {deferred.defer(7, unique=True), deferred.defer(7, unique=True)}
    assert len(keys) == 2
    assert len({deferred.options(unique="a").defer(7, unique=False) for _ in range(2)}) == 1


@pytest.mark.parametrize("unique", ["", "x" * (1 << 20)])
def test_an_empty_unique_key_and_one_of_a_megabyte_are_refused(unique: str) -> None:
    with pytest.raises(ValueError, match="the unique key"):
        task(rebuild).defer(7, unique=unique)
    assert Queue("run/queue").count() == 0


def test_a_call_has_a_priority() -> None:
    key = task(rebuild).defer(7, priority="high")
    assert ",p=high," in key
    assert handled() == (ACKED, f"{__name__}.rebuild")
    assert CALLS == [(7, (), {})]


def test_a_priority_of_the_functions_own_is_its_argument() -> None:
    deferred = task(queue="run/queue")(hurry)
    assert ",p=" not in deferred.defer(priority="mine")
    assert ",p=low," in deferred.options(priority="low").defer(priority="mine")


def hurry(priority: str) -> None: ...


def test_a_task_is_shown_by_its_name() -> None:
    assert repr(task(_named)) == f"<task {__name__}._named>"


def _named() -> None: ...
