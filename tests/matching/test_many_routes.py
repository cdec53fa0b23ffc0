"""Applications with very many routes, and with routes that never come to an end."""

from __future__ import annotations

import cProfile
import pstats
from concurrent.futures import ThreadPoolExecutor

import pytest

from maildefer.errors import RouteTooSlow, RouteUntried
from maildefer.handling import handler_marks
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.outcomes import ACKED, Buried, Deferred, Outcome
from maildefer.handling.routes import RoutingBase
from maildefer.mail import MailRequest
from maildefer.matching import index, process_client

ENDLESS = "^(a+)+@x$"
ENDLESS_ADDRESS = "a" * 60 + "@y"


def mail(to: str) -> MailRequest:
    return MailRequest("peer", "ann@example.org", to, b"")


def router(*regexes: str) -> tuple[RoutingBase, list[tuple[str, dict[str, str]]]]:
    """A stateless handler for each, and what they were called with."""
    made, called = RoutingBase(), []
    made.LOG_EXCEPTIONS = False
    for number, regex in enumerate(regexes):

        def handler(message: MailRequest, number: int = number, **groups: str) -> None:
            called.append((regexes[number], groups))

        handler.__module__, handler.__name__ = "app", f"HANDLER{number}"
        handler_marks.mark_stateless(handler)
        made.register_route(regex, handler)
    return made, called


@pytest.fixture
def many() -> list[str]:
    return [
        "^(?P<any>.+)@lists.example$",
        *(rf"^(?P<name>list{number})-(?P<op>[a-z]+)@(?P<host>.+)$" for number in range(500)),
        "^(?P<last>.+)-add@(.+)$",
    ]


@pytest.mark.parametrize("by", ["dispatcher", "router"])
def test_a_thousand_routes_run_in_their_order_with_their_captures(many: list[str], by: str) -> None:
    made, called = router(*many)
    if by == "router":
        made.deliver(mail("list7-add@lists.example"))
    else:
        assert Dispatcher(made).dispatch(mail("list7-add@lists.example"))[0] is ACKED
    assert called == [
        (many[0], {"any": "list7-add"}),
        (many[8], {"name": "list7", "op": "add", "host": "lists.example"}),
        (many[-1], {"last": "list7"}),
    ]


def calls(dispatcher: Dispatcher, to: str) -> int:
    """How many functions are called for one message."""
    profile = cProfile.Profile()
    outcome: tuple[Outcome, str] = profile.runcall(dispatcher.dispatch, mail(to))
    assert outcome[0] is ACKED
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


def test_the_work_for_a_message_does_not_grow_with_the_routes() -> None:
    of = {}
    for number in (20, 1000):
        made, _ = router(*(rf"^(?P<name>list{n})@(?P<host>.+)$" for n in range(number)))
        dispatcher = Dispatcher(made)
        dispatcher.dispatch(mail("list7@x"))  # the first one makes the table
        of[number] = calls(dispatcher, "list7@x")
    assert of[1000] <= of[20] + 60  # a handful of routes more has three characters in common with the address


def test_a_router_that_was_changed_by_hand_is_looked_at_anew() -> None:
    regexes = [f"^list{n}@x$" for n in range(30)]
    made, called = router(*regexes)
    made.deliver(mail("list7@x"))
    made.ORDER.remove("^list7@x$")
    made.deliver(mail("list7@x"))
    del made.ORDER[:]
    assert list(made.match("list8@x")) == []
    assert called == [("^list7@x$", {})]


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "LIMIT_SECONDS", 0.05)


@pytest.mark.usefixtures("_soon")
def test_a_route_that_backtracks_without_end_makes_a_dead_letter_that_names_it() -> None:
    dispatcher = Dispatcher(router(ENDLESS)[0])
    outcome, handler = dispatcher.dispatch(mail(ENDLESS_ADDRESS))
    assert isinstance(outcome, Buried)
    assert ENDLESS in outcome.reason
    assert ENDLESS_ADDRESS in outcome.reason
    assert handler == ""
    assert dispatcher.batch_for(mail(ENDLESS_ADDRESS)) is None
    assert dispatcher.dispatch(mail("aaaa@x"))[0] is ACKED


@pytest.mark.usefixtures("_soon")
def test_an_address_of_unreasonable_length_is_not_tried_without_end() -> None:
    outcome, _ = Dispatcher(router("^(?P<a>.+)-(?P<b>.+)-(?P<c>.+)@x$")[0]).dispatch(mail("-" * 60_000))
    assert isinstance(outcome, Buried)
    assert "more than 0.05 s" in outcome.reason


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize("where", ["main thread", "another thread"])
@pytest.mark.parametrize(
    ("regex", "address"), [(ENDLESS, ENDLESS_ADDRESS), ("^(?P<a>.+)-(?P<b>.+)-(?P<c>.+)@x$", "-" * 60_000)]
)
def test_a_bare_delivery_raises_what_is_wrong_with_the_route_before_any_handler_runs(
    where: str, regex: str, address: str
) -> None:
    made, called = router("^.+$", regex)
    if where == "main thread":
        with pytest.raises(RouteTooSlow):
            made.deliver(mail(address))
    else:
        with process_client.ended_afterwards(), ThreadPoolExecutor(1) as threads:
            assert isinstance(threads.submit(made.deliver, mail(address)).exception(), RouteTooSlow)
    assert called == []


class Faulty:
    """An expression that `re` itself fails on."""

    pattern = "^(a)|(b)|(c)$"

    def match(self, address: str) -> None:
        raise SystemError("the span of a capturing group is wrong")


@pytest.mark.parametrize("length", [1, index.LONGEST + 1])
def test_a_fault_of_re_s_own_is_the_message_s_and_nobody_dies_of_it(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = router("^x$")
    monkeypatch.setitem(made.REGISTERED, "^x$", (Faulty(), made.REGISTERED["^x$"][1]))
    dispatcher = Dispatcher(made)
    outcome, _ = dispatcher.dispatch(mail("a" * length))
    assert isinstance(outcome, Deferred)
    assert "the span of a capturing group is wrong" in outcome.reason
    assert dispatcher.batch_for(mail("a" * length)) is None
    with pytest.raises(RouteUntried):
        made.deliver(mail("a" * length))
