"""What an application's own mistakes end in: a clear error where it is loaded, a dead letter where it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from maildefer import view
from maildefer.errors import ConfigurationError
from maildefer.handling import handler_marks
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.outcomes import Buried, Deferred, Outcome
from maildefer.handling.project.module_loader import import_user_module
from maildefer.handling.retry import RetryPolicy
from maildefer.handling.routes import Router, RoutingBase
from maildefer.mail import MailRequest


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to load from; the process's router as it was afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, value in vars(RoutingBase()).items():
        monkeypatch.setattr(Router, name, value)
    yield tmp_path
    sys.modules.pop("broken_handlers", None)


def mail(to: str = "post@osb.example") -> MailRequest:
    return MailRequest("peer", "ann@example.org", to, b"Subject: x\n\nhi\n")


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("post@(osb", "missing ), unterminated subpattern"),
        ("(name)@osb+*", "multiple repeat"),
        ("(name)-(name)@osb", "redefinition of group name"),
        ("[z-a]@osb", "bad character range"),
    ],
)
def test_a_route_that_does_not_compile_is_an_error_at_load_with_its_line(
    project: Path, pattern: str, told: str
) -> None:
    (project / "broken_handlers.py").write_text(
        "from maildefer.routing import route\n\n\n"
        f"@route({pattern!r}, name='[a-z]+')\ndef START(message, name=None): pass\n"
    )
    with pytest.raises(ConfigurationError) as caught:
        import_user_module("broken_handlers", listed_in="the test")
    assert "broken_handlers.py:4" in str(caught.value)
    assert told in str(caught.value)
    assert "is no regular expression" in str(caught.value)


def outcome_of(handler: Callable[..., object], to: str = "post@osb.example") -> Outcome:
    router = RoutingBase()
    handler.__module__, handler.__name__ = "app", "START"
    handler_marks.mark_stateless(handler)
    router.register_route("^.*$", handler)
    return Dispatcher(router).dispatch(mail(to))[0]


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(view, "LOADER", view.jinja_loader(tmp_path))
    return tmp_path


def test_a_missing_template_is_named_and_the_message_is_tried_again(templates: Path) -> None:
    outcome = outcome_of(lambda message: view.respond({}, "nowhere.msg", To=message.From))
    assert isinstance(outcome, Deferred)
    assert "nowhere.msg" in outcome.reason
    assert outcome.detail is not None
    assert "test_bad_input.py" in outcome.detail


@pytest.mark.parametrize(
    ("template", "told"),
    [("{{ 1 / 0 }}", "ZeroDivisionError"), ("{% if %}", "TemplateSyntaxError"), ("{{ a.b.c }}", "undefined")],
)
def test_a_template_that_fails_says_why(templates: Path, template: str, told: str) -> None:
    (templates / "page.msg").write_text(template)
    outcome = outcome_of(lambda message: view.render({}, "page.msg"))
    assert isinstance(outcome, Deferred)
    assert told in outcome.reason


def test_a_header_that_asks_for_a_variable_that_is_not_there_says_which(templates: Path) -> None:
    (templates / "page.msg").write_text("x")
    outcome = outcome_of(lambda message: view.respond({}, "page.msg", Subject="for %(name)s"))
    assert isinstance(outcome, Deferred)
    assert "'name'" in outcome.reason


def test_a_failure_that_lasts_ends_in_the_dead_letters() -> None:
    policy = RetryPolicy()
    failed = Deferred("no such template", error="TemplateNotFound")
    assert policy.delay(failed, 1, 1, 0, lambda: 0.5) is not None
    assert policy.delay(failed, policy.max_attempts, policy.max_attempts, 0, lambda: 0.5) is None


def test_a_state_whose_function_is_gone_makes_a_dead_letter_that_tells_of_it() -> None:
    router = RoutingBase()

    def START(message: MailRequest) -> None: ...

    START.__module__ = "app"
    router.register_route("^.*$", START)
    router.set_state("app", mail(), "GONE_WITH_THE_LAST_RELEASE")
    outcome, _ = Dispatcher(router).dispatch(mail())
    assert isinstance(outcome, Buried)
    assert outcome.reason == "no handler in the sender's state"
    assert "app.START" in (outcome.detail or "")
    assert "GONE_WITH_THE_LAST_RELEASE" in (outcome.detail or "")
