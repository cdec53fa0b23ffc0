"""Every row of the routing tables: patterns and captures, order and selection, results, errors, reload."""

from __future__ import annotations

import importlib
import logging
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from maildefer import routing
from maildefer.handling import handler_marks
from maildefer.mail import MailRequest
from maildefer.message.smtp_error import SMTPError
from maildefer.routing import (
    DEFAULT_STATE_KEY,
    MemoryStorage,
    Router,
    RoutingBase,
    nolocking,
    route,
    route_like,
    state_key_generator,
    stateless,
)

ME = __name__


@pytest.fixture(autouse=True)
def clean_router(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process-wide router as it is at its making, for the length of a test."""
    for name, value in vars(RoutingBase()).items():
        monkeypatch.setattr(Router, name, value)
    monkeypatch.setattr(Router, "LOG_EXCEPTIONS", False)


@pytest.fixture
def ran() -> list[str]:
    return []


class Undeliverable:
    def __init__(self) -> None:
        self.messages: list[Any] = []

    def push(self, message: Any) -> None:
        self.messages.append(message)


def mail(to: str = "post@osb.example", sender: str = "ann@example.org") -> MailRequest:
    return MailRequest("peer", sender, to, "Subject: x\n\nhi\n")


def handler(
    name: str, action: Callable[..., object] = lambda message, **groups: None, module: str = ME
) -> Callable[..., Any]:
    """A handler function of that name, as if it stood in that module."""

    def function(message: MailRequest, **groups: str) -> object:
        return action(message, **groups)

    function.__name__ = name
    function.__qualname__ = name
    function.__module__ = module
    return function


def noting(ran: list[str], name: str, result: object = None, module: str = ME) -> Callable[..., Any]:
    def action(message: MailRequest, **groups: str) -> object:
        ran.append(name)
        return result

    return handler(name, action, module)


def failing(name: str, error: BaseException, module: str = ME) -> Callable[..., Any]:
    def action(message: MailRequest, **groups: str) -> object:
        raise error

    return handler(name, action, module)


# Patterns and captures


def test_defaults_and_captures_become_groups_that_reach_the_handler_by_keyword() -> None:
    got: list[dict[str, str]] = []
    Router.defaults(host=r"osb\.example", name="[0-9]+")
    route("(name)@(host)", name="[a-z]+")(
        stateless(handler("START", lambda message, **groups: got.append(groups)))
    )
    Router.deliver(mail("post@osb.example"))
    assert got == [{"name": "post", "host": "osb.example"}]
    assert Router.DEFAULT_CAPTURES == {"host": r"osb\.example", "name": "[0-9]+"}


def test_defaults_count_from_the_moment_they_are_set() -> None:
    route("(name)@x")(handler("START"))
    Router.defaults(name="[a-z]+")
    assert Router.ORDER == ["^(name)@x$"]


def test_the_message_is_the_only_positional_argument_and_unnamed_groups_are_left_out() -> None:
    got: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def START(*args: Any, **kwargs: Any) -> None:
        got.append((args, kwargs))

    route("(post|page)@(host)", host=".+")(stateless(START))
    message = mail("page@x")
    Router.deliver(message)
    assert got == [((message,), {"host": "x"})]


def test_match_gives_functions_and_groups_in_order() -> None:
    first, second = handler("A"), handler("B")
    route("(n)@x", n="[a-z]+")(first)
    route(".*")(second)
    assert list(Router.match("a@x")) == [([first], {"n": "a"}), ([second], {})]
    assert list(Router.match("1@x")) == [([second], {})]


def test_the_same_regex_has_one_place_and_a_list_of_functions() -> None:
    first, second, third = handler("A"), handler("B"), handler("C")
    Router.register_route("^a$", first)
    Router.register_route("^b$", second)
    Router.register_route("^a$", third)
    assert Router.ORDER == ["^a$", "^b$"]
    pattern, functions = Router.REGISTERED["^a$"]
    assert pattern.match("A")
    assert functions == [first, third]


# Decorators


def test_route_leaves_the_function_callable_as_it_is() -> None:
    @route("a@b")
    def START(message: str) -> str:
        return f"got {message}"

    assert START("it") == "got it"


def test_a_method_cannot_be_a_handler() -> None:
    class Handlers:
        @route("a@b")
        def START(self, message: object = None) -> None: ...

    with pytest.raises(TypeError, match="is a method"):
        Handlers().START(mail())
    with pytest.raises(TypeError):
        Router.deliver(MailRequest("p", "s@x", "a@b", ""))


def test_route_like_shares_regex_and_captures() -> None:
    START = route("(n)@x", n="[a-z]+")(handler("START"))
    END = route_like(START)(handler("END", module="elsewhere"))
    assert Router.REGISTERED["^(?P<n>[a-z]+)@x$"][1] == [START, END]


def test_route_like_needs_a_function_with_a_route() -> None:
    with pytest.raises(TypeError, match="no route"):
        route_like(handler("START"))(handler("END"))


def test_stateless_above_its_route_is_refused_and_the_route_stays() -> None:
    function = route("a@b")(handler("START"))
    with pytest.raises(TypeError, match="put it below"):
        stateless(function)
    assert Router.ORDER == ["^a@b$"]


def test_nolocking_runs_outside_the_lock_and_others_inside() -> None:
    held: dict[str, bool] = {}

    def is_held() -> bool:
        """Whether another thread would have to wait."""
        free: list[bool] = []

        def try_it() -> None:
            if Router.lock.acquire(blocking=False):
                Router.lock.release()
                free.append(True)

        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
        return not free

    route("a@b")(stateless(nolocking(handler("FREE", lambda message: held.update(free=is_held())))))
    route("a@b")(stateless(handler("LOCKED", lambda message: held.update(locked=is_held()))))
    Router.deliver(mail("a@b"))
    assert held == {"free": False, "locked": True}


def test_the_lock_is_reentrant_so_that_a_handler_may_deliver(ran: list[str]) -> None:
    route("a@b")(stateless(handler("OUTER", lambda message: Router.deliver(mail("c@d")))))
    route("c@d")(stateless(noting(ran, "INNER")))
    Router.deliver(mail("a@b"))
    assert ran == ["INNER"]


def test_state_key_generator_replaces_the_modules_name_in_the_state_key() -> None:
    @state_key_generator
    def key(module_name: str, message: MailRequest) -> str:
        return f"{module_name}:{message.To}"

    assert Router.HANDLERS[ME] is key
    message = mail("list@x", "ann@example.org")
    assert Router.state_key(ME, message) == f"{ME}:list@x"
    assert Router.state_key("other", message) == "other"
    Router.set_state(ME, message, "ONE")
    assert Router.get_state(ME, mail("list@x")) == "ONE"
    assert Router.get_state(ME, mail("other@x")) == "START"


# Order and selection


def test_every_matching_stateless_handler_runs_and_one_stateful(ran: list[str]) -> None:
    route("a@b")(stateless(noting(ran, "ONE")))
    route(".*")(noting(ran, "START"))
    route("(x)@b", x="a")(stateless(noting(ran, "TWO")))
    route("a@.*")(noting(ran, "START", module="second"))
    Router.deliver(mail("a@b"))
    assert ran == ["ONE", "START", "TWO"]


def test_of_stateful_handlers_the_first_in_its_modules_state_runs(ran: list[str]) -> None:
    route("a@b")(noting(ran, "START"))
    route("a@b")(noting(ran, "NEXT"))
    Router.set_state(ME, mail("a@b"), "NEXT")
    Router.deliver(mail("a@b"))
    assert ran == ["NEXT"]


def test_a_later_stateful_handler_sees_what_an_earlier_stateless_one_set(ran: list[str]) -> None:
    route("a@b")(stateless(handler("MOVE", lambda message: Router.set_state(ME, message, "LATER"))))
    route("a@b")(noting(ran, "LATER"))
    Router.deliver(mail("a@b"))
    assert ran == ["LATER"]


def test_states_belong_to_the_sender(ran: list[str]) -> None:
    START, NEXT = noting(ran, "START"), noting(ran, "NEXT")
    route("a@b")(START)
    route("a@b")(NEXT)
    Router.set_state(ME, mail("a@b", "ann@example.org"), "NEXT")
    assert Router.in_state(NEXT, mail("a@b", "ann@example.org"))
    assert Router.in_state(START, mail("a@b", "bob@example.org"))


def test_a_message_that_no_handler_takes_goes_to_the_undeliverable_queue() -> None:
    Router.UNDELIVERABLE_QUEUE = queue = Undeliverable()
    message = mail("nobody@x")
    Router.deliver(message)
    assert queue.messages == [message]


def test_without_an_undeliverable_queue_it_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="routing"):
        Router.deliver(mail("nobody@x"))
    assert "nobody@x" in caplog.text


# Results


def test_a_falsy_result_keeps_the_state(ran: list[str]) -> None:
    route("a@b")(noting(ran, "START", result=None))
    Router.deliver(mail("a@b"))
    assert Router.get_state(ME, mail()) == "START"


def test_a_function_is_the_next_state_of_its_own_module() -> None:
    NEXT = handler("NEXT")
    route("a@b")(handler("START", lambda message: NEXT))
    Router.deliver(mail("a@b"))
    assert Router.get_state(ME, mail()) == "NEXT"


def test_a_function_of_another_module_moves_that_modules_state_alone(ran: list[str]) -> None:
    FOREIGN = noting(ran, "FOREIGN", module="elsewhere")
    route("a@b")(handler("START", lambda message: FOREIGN))
    Router.deliver(mail("a@b"))
    assert Router.get_state("elsewhere", mail()) == "FOREIGN"
    assert Router.get_state(ME, mail()) == "START"
    assert ran == []


@pytest.mark.parametrize("result", [handler("NEXT"), "done", 42, object()])
def test_what_a_stateless_handler_returns_is_ignored(result: object) -> None:
    route("a@b")(stateless(handler("START", lambda message: result)))
    Router.deliver(mail("a@b"))
    assert Router.get_state(ME, mail()) == "START"


@pytest.mark.parametrize("result", ["done", 42, "unknown.module.START"])
def test_a_result_that_means_nothing_is_an_exception_of_the_handler(result: object) -> None:
    route("a@b")(handler("START", lambda message: result))
    with pytest.raises(Exception, match=r"returned|no handler"):
        Router.deliver(mail("a@b"))
    assert Router.get_state(ME, mail()) == "ERROR"


def test_a_handoff_outside_a_pool_goes_on_at_once_in_the_named_handler(ran: list[str]) -> None:
    Router.defaults(n="[a-z]+")
    got: list[dict[str, str]] = []
    LATER = handler("LATER", lambda message, **groups: got.append(groups), module="elsewhere")
    route("(n)@b")(LATER)
    route("a@b")(handler("START", lambda message: "elsewhere.LATER"))
    Router.deliver(mail("a@b"))
    assert got == [{"n": "a"}]
    assert Router.get_state("elsewhere", mail()) == "LATER"


def test_a_handoff_to_a_handler_that_ran_anyway_does_not_run_it_twice(ran: list[str]) -> None:
    route("a@b")(stateless(noting(ran, "START", result="elsewhere.INDEX")))
    route("a@b")(stateless(noting(ran, "INDEX", module="elsewhere")))
    Router.deliver(mail("a@b"))
    assert ran == ["START", "INDEX"]


def test_an_smtp_error_passes_through_and_changes_nothing() -> None:
    Router.LOG_EXCEPTIONS = True
    Router.UNDELIVERABLE_QUEUE = queue = Undeliverable()
    route("a@b")(failing("START", SMTPError(450, "not now")))
    with pytest.raises(SMTPError):
        Router.deliver(mail("a@b"))
    assert Router.get_state(ME, mail()) == "START"
    assert queue.messages == []


@pytest.mark.parametrize("decorate", [lambda function: function, stateless])
def test_an_exception_moves_to_error_and_pushes_once_and_is_logged(
    decorate: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    Router.LOG_EXCEPTIONS = True
    Router.UNDELIVERABLE_QUEUE = queue = Undeliverable()
    route("a@b")(decorate(failing("START", RuntimeError("boom"))))
    message = mail("a@b")
    Router.deliver(message)
    assert Router.get_state(ME, message) == "ERROR"
    assert Router.in_error(handler("ANY"), message)
    assert queue.messages == [message]
    assert "boom" in caplog.text


def test_with_log_exceptions_false_the_exception_is_raised() -> None:
    Router.UNDELIVERABLE_QUEUE = queue = Undeliverable()
    route("a@b")(failing("START", RuntimeError("boom")))
    with pytest.raises(RuntimeError, match="boom"):
        Router.deliver(mail("a@b"))
    assert Router.get_state(ME, mail()) == "ERROR"
    assert len(queue.messages) == 1


def test_the_error_function_gets_the_next_messages_not_the_failed_one(ran: list[str]) -> None:
    Router.LOG_EXCEPTIONS = True
    START = failing("START", RuntimeError("boom"))
    route("a@b")(START)
    route("a@b")(noting(ran, "ERROR", result=handler("START")))
    Router.deliver(mail("a@b"))
    assert ran == []
    Router.deliver(mail("a@b"))
    assert ran == ["ERROR"]
    assert Router.get_state(ME, mail()) == "START"


def test_call_safely_runs_one_handler_with_the_error_rules() -> None:
    Router.LOG_EXCEPTIONS = True
    Router.call_safely(handler("START", lambda message, n: handler("NEXT")), mail(), {"n": "1"})
    assert Router.get_state(ME, mail()) == "NEXT"
    Router.call_safely(failing("NEXT", RuntimeError("boom")), mail(), {})
    assert Router.get_state(ME, mail()) == "ERROR"


# The router's own things


def test_a_new_router_has_salmons_defaults() -> None:
    router = RoutingBase()
    assert (router.REGISTERED, router.ORDER, router.DEFAULT_CAPTURES, router.HANDLERS) == ({}, [], {}, {})
    assert (router.RELOAD, router.LOG_EXCEPTIONS, router.UNDELIVERABLE_QUEUE) == (False, True, None)
    assert type(router.STATE_STORE) is MemoryStorage
    assert routing.ROUTE_FIRST_STATE == "START"
    assert DEFAULT_STATE_KEY("module", mail()) == "module"
    assert routing.LOG.name == "routing"


def test_two_routers_share_nothing() -> None:
    one, other = RoutingBase(), RoutingBase()
    one.register_route("^a$", handler("START"))
    one.defaults(a="b")
    one.set_state(ME, mail(), "X")
    assert (other.ORDER, other.DEFAULT_CAPTURES, other.get_state(ME, mail())) == ([], {}, "START")


def test_clear_routes_and_clear_states_forget_each_its_own() -> None:
    route("a@b")(handler("START"))
    Router.set_state(ME, mail(), "X")
    Router.clear_routes()
    assert (Router.ORDER, Router.REGISTERED, Router.get_state(ME, mail())) == ([], {}, "X")
    Router.clear_states()
    assert Router.get_state(ME, mail()) == "START"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty package `reloadable` on the import path; what it holds is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a source changed within a second counts
    (tmp_path / "reloadable").mkdir()
    (tmp_path / "reloadable" / "__init__.py").touch()
    yield tmp_path / "reloadable"
    for name in [name for name in sys.modules if name.split(".")[0] == "reloadable"]:
        del sys.modules[name]


def write(package: Path, module: str, pattern: str, name: str = "START") -> None:
    (package / f"{module}.py").write_text(
        f"from maildefer.routing import route, stateless\n"
        f"RAN = []\n"
        f"@route({pattern!r})\n@stateless\ndef {name}(message):\n    RAN.append(message.To)\n"
    )
    importlib.invalidate_caches()


def test_load_imports_and_records_and_twice_is_harmless(package: Path) -> None:
    write(package, "one", "a@b")
    Router.load(["reloadable.one"])
    Router.load(["reloadable.one"])
    assert Router.HANDLERS == {"reloadable.one": DEFAULT_STATE_KEY}
    assert len(Router.REGISTERED["^a@b$"][1]) == 1


def test_load_keeps_the_modules_own_state_key(package: Path) -> None:
    (package / "keyed.py").write_text(
        "from maildefer.routing import state_key_generator\n"
        "@state_key_generator\ndef key(module_name, message):\n    return 'mine'\n"
    )
    Router.load(["reloadable.keyed"])
    assert Router.state_key("reloadable.keyed", mail()) == "mine"


def test_load_logs_or_raises_import_errors_alone(package: Path, caplog: pytest.LogCaptureFixture) -> None:
    (package / "broken.py").write_text("1 / 0\n")
    with pytest.raises(ImportError):
        Router.load(["reloadable.missing"])
    Router.LOG_EXCEPTIONS = True
    Router.load(["reloadable.missing"])
    assert "reloadable.missing" in caplog.text
    assert Router.HANDLERS == {}
    with pytest.raises(ZeroDivisionError):
        Router.load(["reloadable.broken"])


def test_reload_takes_the_new_source_and_keeps_order_and_states(package: Path) -> None:
    write(package, "zwei", "a@b")
    write(package, "eins", "c@d")
    Router.load(["reloadable.zwei", "reloadable.eins"])
    Router.set_state("reloadable.eins", mail(), "X")
    write(package, "zwei", "new@b")
    Router.reload()
    assert Router.ORDER == ["^new@b$", "^c@d$"]
    assert Router.get_state("reloadable.eins", mail()) == "X"


def test_with_reload_true_each_delivery_reloads_first(package: Path) -> None:
    write(package, "one", "a@b")
    Router.load(["reloadable.one"])
    Router.RELOAD = True
    write(package, "one", "new@b")
    Router.deliver(mail("new@b"))
    assert sys.modules["reloadable.one"].RAN == ["new@b"]


def test_reload_logs_or_raises_what_a_module_has_become(
    package: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(package, "one", "a@b")
    write(package, "two", "c@d")
    Router.load(["reloadable.one", "reloadable.two"])
    (package / "one.py").write_text("undefined_name_of_some_length = another_undefined_name\n")
    with pytest.raises(NameError):
        Router.reload()
    Router.LOG_EXCEPTIONS = True
    Router.reload()
    assert "reloadable.one" in caplog.text


@pytest.mark.parametrize(
    "source", ["def half_saved(\n", "undefined_name\n", "import no_such_module_anywhere\n"]
)
def test_a_broken_module_leaves_the_old_routes_in_place(package: Path, source: str) -> None:
    write(package, "one", "a@b")
    Router.load(["reloadable.one"])
    (package / "one.py").write_text(source)
    with pytest.raises((SyntaxError, NameError, ImportError)):
        Router.reload()
    assert Router.ORDER == ["^a@b$"]


def test_a_broken_module_that_is_only_logged_leaves_the_old_routes_too(package: Path) -> None:
    Router.LOG_EXCEPTIONS = True
    write(package, "one", "a@b")
    write(package, "two", "c@d")
    Router.load(["reloadable.one", "reloadable.two"])
    (package / "one.py").write_text("undefined_name\n")
    Router.reload()
    assert Router.ORDER == ["^a@b$", "^c@d$"]


def test_while_one_thread_reloads_others_deliver_by_the_old_table(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(package, "one", "a@b")
    Router.load(["reloadable.one"])
    seen: list[list[str]] = []
    real = importlib.reload

    def reload(module: types.ModuleType) -> types.ModuleType:
        again = real(module)
        seen.append(list(Router.ORDER))
        return again

    write(package, "one", "new@b")
    monkeypatch.setattr(importlib, "reload", reload)
    Router.reload()
    assert seen == [["^a@b$"]]
    assert Router.ORDER == ["^new@b$"]


def test_marks_survive_a_wrapper_between_route_and_stateless() -> None:
    import functools

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return inner

    function = route("a@b")(wrapped(stateless(handler("START"))))
    assert handler_marks.is_stateless(function)
