"""Limits around handlers: taken before any runs, released after, and by the key of each message."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from maildefer.errors import MountFault
from maildefer.handling import handler_marks
from maildefer.handling.calls.step import step_of
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.limits.limit import Limit, LimitUse
from maildefer.handling.outcomes import ACKED, Buried, Deferred, Postponed, Reject
from maildefer.handling.routes import RoutingBase
from maildefer.mail import MailRequest

FULL = Postponed(7.0, "no slot", limit=1)


class Slots:
    """Notes what is taken and released."""

    def __init__(self, ran: list[str]) -> None:
        self.ran = ran
        self.full: Postponed | None = None
        self.uses: list[tuple[LimitUse, ...]] = []

    def take_slots(self, uses: Sequence[LimitUse], key: str | None) -> Postponed | None:
        self.uses.append(tuple(uses))
        self.ran.append("full" if self.full else "take")
        return self.full

    def release_slots(self, outcome: object) -> None:
        self.ran.append("release")


class Tokens:
    def __init__(self, ran: list[str]) -> None:
        self.ran = ran

    def take_token(self, conversation: str) -> bool:
        self.ran.append("take token")
        return True

    def release_token(self, conversation: str) -> None:
        self.ran.append("release token")


class Stage:
    def __init__(self) -> None:
        self.router = RoutingBase()
        self.ran: list[str] = []
        self.slots = Slots(self.ran)

    def add(
        self,
        name: str,
        *limits: Limit,
        action: Callable[..., object] = lambda message, **captures: None,
        is_stateless: bool = True,
        regex: str = "(?P<user>.*)@(?P<domain>.*)",
    ) -> Any:
        module, _, state = name.rpartition(".")

        def function(message: Any, **captures: str) -> object:
            self.ran.append(state)
            return action(message, **captures)

        function.__module__, function.__name__ = module, state
        if is_stateless:
            handler_marks.mark_stateless(function)
        if limits:
            setattr(function, handler_marks.LIMITS, limits)
        self.router.register_route(regex, function)
        return function

    def dispatch(self, to: str = "ann@Example.ORG") -> Any:
        message = MailRequest("peer", "ann@example.org", to, b"Subject: x\n\nhi\n")
        message.key = "KEY1"
        dispatcher = Dispatcher(self.router, tokens=Tokens(self.ran), limits=self.slots)
        return dispatcher.dispatch(message)[0]


@pytest.fixture
def stage() -> Stage:
    return Stage()


def by(key: Any) -> Limit:
    return Limit(2, key=key, label="by")


def test_who_has_no_limit_takes_nothing(stage: Stage) -> None:
    stage.add("m.send")
    assert stage.dispatch() is ACKED
    assert stage.ran == ["send"]


def test_slots_are_taken_before_any_handler_and_released_after_all(stage: Stage) -> None:
    stage.add("m.first")
    stage.add("m.send", Limit(2))
    assert stage.dispatch() is ACKED
    assert stage.ran == ["take", "first", "send", "release"]


def test_without_a_slot_nothing_runs(stage: Stage) -> None:
    stage.add("m.first")
    stage.add("m.send", Limit(2))
    stage.slots.full = FULL
    assert stage.dispatch() is FULL
    assert stage.ran == ["full"]


def test_they_are_taken_after_the_tokens_of_conversations_and_released_before(stage: Stage) -> None:
    stage.add("m.START", Limit(2), is_stateless=False)
    assert stage.dispatch() is ACKED
    assert stage.ran == ["take token", "take", "START", "release", "release token"]
    stage.slots.full = FULL
    assert stage.dispatch() is FULL
    assert stage.ran[-3:] == ["take token", "full", "release token"]


def test_a_state_in_which_the_sender_is_not_takes_nothing(stage: Stage) -> None:
    stage.add("m.START", is_stateless=False)
    stage.add("m.OTHER", Limit(2), is_stateless=False)
    assert stage.dispatch() is ACKED
    assert stage.ran == ["take token", "START", "release token"]


def test_a_failure_releases_them_too(stage: Stage) -> None:
    def fail(message: Any, **captures: str) -> None:
        raise ValueError("boom")

    stage.add("m.send", Limit(2), action=fail)
    assert isinstance(stage.dispatch(), Deferred)
    assert stage.ran == ["take", "send", "release"]


def test_the_key_is_the_captures_value_in_any_case(stage: Stage) -> None:
    stage.add("m.send", by("domain"))
    stage.dispatch("ann@Example.ORG")
    stage.dispatch("bob@example.org")
    stage.dispatch("bob@example.net")
    names = [uses[0].name for uses in stage.slots.uses]
    assert names[0] == names[1] != names[2]
    assert stage.slots.uses[0][0].shown_key == "example.org"


def test_the_key_may_be_what_a_function_says(stage: Stage) -> None:
    stage.add("m.send", by(lambda message, user, domain: domain.rpartition(".")[2]))
    stage.dispatch("ann@example.org")
    stage.dispatch("bob@elsewhere.org")
    assert stage.slots.uses[0] == stage.slots.uses[1]


def test_limits_of_one_function_and_of_others_are_others(stage: Stage) -> None:
    send = step_of(stage.add("m.send", Limit(2), by("domain"), Limit(3, 60.0)))
    more = step_of(stage.add("m.more", Limit(2)))
    names = {LimitUse(limit, step.name, "a").name for step in (send, more) for limit in step.limits}
    assert len(names) == 3, "a rate and a number of the same function lie in folders of their own"


@pytest.mark.parametrize("value", ["", None, 17, "x" * 1_000_000, "\ud800", "a\0b\nc", b"\xff", ["a"]])
def test_any_value_is_a_key(value: Any, stage: Stage) -> None:
    stage.add("m.send", by(lambda message, **captures: value))
    assert stage.dispatch() is ACKED
    [[use]] = stage.slots.uses
    use.name.encode()
    assert len(use.shown_key or "") <= 200


def test_a_key_that_fails_is_a_failure_of_its_handler_and_rejects_as_one(stage: Stage) -> None:
    def key(message: Any, user: str, domain: str) -> str:
        if user == "bad":
            raise Reject("no such user")
        return {"example.org": "a"}[domain]

    stage.add("m.send", by(key))
    outcome = stage.dispatch("ann@example.net")
    assert isinstance(outcome, Deferred)
    assert outcome.error == "KeyError: 'example.net'"
    assert stage.dispatch("bad@example.net") == Buried("no such user")
    assert stage.ran == []


async def later(message: Any, **captures: str) -> str:
    return "a"


def one_by_one(message: Any, **captures: str) -> Iterator[str]:
    yield "a"


@pytest.mark.parametrize("key", [later, one_by_one])
def test_a_key_whose_body_has_not_run_is_a_failure_and_no_key(key: Any, stage: Stage) -> None:
    stage.add("m.send", by(key))
    outcome = stage.dispatch("ann@example.net")
    assert isinstance(outcome, Deferred)
    assert outcome.error is not None
    assert f"{key.__name__} returned a" in outcome.error
    assert (stage.ran, stage.slots.uses) == ([], [])


def test_a_fault_of_the_mount_is_raised_and_nothing_runs(stage: Stage) -> None:
    def refuse(uses: Sequence[LimitUse], key: str | None) -> None:
        raise MountFault("limits", OSError(5, "I/O error"))

    stage.add("m.send", Limit(2))
    stage.slots.take_slots = refuse  # type: ignore[method-assign,assignment]
    with pytest.raises(MountFault):
        stage.dispatch()
    assert stage.ran == []


def test_a_batch_takes_a_slot_for_each_call(stage: Stage) -> None:
    function = stage.add("m.send", Limit(2), action=lambda messages: None)
    handler_marks.mark_batch(function, handler_marks.BatchTerms(10, 0.0))
    dispatcher = Dispatcher(stage.router, limits=stage.slots)
    messages = [MailRequest("peer", "a@b", "c@d", b"\n") for _ in range(3)]
    assert dispatcher.dispatch_batch(step_of(function), messages) == [ACKED] * 3
    assert stage.ran == ["take", "send", "release"]
    stage.slots.full = FULL
    assert dispatcher.dispatch_batch(step_of(function), messages) == [FULL] * 3
