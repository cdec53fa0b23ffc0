"""Arguments of tasks of other types than JSON has."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.outcomes import ACKED, Buried, Defer, Deferred, Outcome
from maildefer.handling.routes import Router
from maildefer.handling.tasks import arguments
from maildefer.handling.tasks.call import Call, UnsignedMessage
from maildefer.queue import Queue
from maildefer.tasks import ArgumentsRefused, register_type, task
from tests.support.in_project import enter_project

CALLS: list[Any] = []
LAST_SUMMER_HOUR = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
LOOKS_LIKE_ONE = {"__type__": ["date", "2026-11-28"]}


def rebuild(given: Any, /, *more: Any, when: Any = None) -> None:
    CALLS.append((given, *more) if when is None else (given, *more, when))


@dataclass(frozen=True)
class Money:
    amount: Decimal
    currency: str

    @classmethod
    def of(cls, parts: list[Any]) -> Money:
        amount, currency = parts
        return cls(amount, currency)


@pytest.fixture(autouse=True)
def alone(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_project(tmp_path, monkeypatch)
    monkeypatch.setattr(arguments, "_by_name", dict(arguments._by_name))
    monkeypatch.setattr(arguments, "_by_class", {})
    CALLS.clear()


@pytest.fixture
def money() -> None:
    register_type(Money, "money", encode=lambda one: [one.amount, one.currency], decode=Money.of)


def handled() -> Outcome:
    _, message = Queue("run/queue").pop()
    assert message is not None
    return Dispatcher(Router, [__name__]).dispatch(message)[0]


def came_back(value: Any) -> Any:
    task(rebuild).defer(value)
    assert handled() == ACKED
    [[found]] = CALLS
    return found


def text_of(*given: Any) -> bytes:
    return UnsignedMessage.of(Call(task="rebuild", args=list(given), kwargs={}), "rebuild@task.invalid").text


@pytest.mark.parametrize(
    "value",
    [
        date(2026, 11, 28),
        datetime(2026, 11, 28, 12, 30, 1, 5, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
        time(23, 59, 59, 999999),
        time(1, tzinfo=UTC),
        timedelta(days=-1, microseconds=1),
        timedelta.max,
        UUID("12345678-1234-5678-1234-567812345678"),
        Decimal("-0.10"),
        Decimal("Infinity"),
        b"",
        bytes(range(256)),
        [date.min, {"a": [b"x", None, LOOKS_LIKE_ONE]}],
        [b"", {"__type__": ["dict", {}]}],
        [b"", {"__type__": 1, "more": b""}],
        LOOKS_LIKE_ONE,
    ],
    ids=repr,
)
def test_a_value_comes_out_of_a_call_as_it_went_in(value: Any) -> None:
    found = came_back(value)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("fold", [0, 1])
def test_an_instant_comes_out_the_same_and_with_its_offset(fold: int) -> None:
    given = LAST_SUMMER_HOUR.replace(fold=fold)
    found = came_back(given)
    assert (found.timestamp(), found.utcoffset()) == (given.timestamp(), given.utcoffset())


def test_a_call_with_plain_values_is_written_as_by_every_version() -> None:
    given = [1, {"a": [None]}, LOOKS_LIKE_ONE]
    wanted = {"task": "rebuild", "args": given, "kwargs": {}}
    assert text_of(*given) == json.dumps(wanted).encode()


def test_a_call_of_an_earlier_version_with_what_looks_like_a_type_is_read_as_it_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = json.dumps({"task": f"{__name__}.rebuild", "args": [LOOKS_LIKE_ONE], "kwargs": {}}).encode()
    monkeypatch.setattr("maildefer.handling.tasks.call._encoded", lambda call, names: text)
    assert came_back(0) == LOOKS_LIKE_ONE


def test_a_type_of_ones_own_may_be_made_of_others(money: None) -> None:
    given = [Money(Decimal("9.90"), "EUR")]
    assert came_back(given) == given
    assert b'{"__type__": ["money", [{"__type__": ["decimal", "9.90"]}, "EUR"]]}' in text_of(*given)


@pytest.mark.parametrize(
    ("given", "named", "why"),
    [
        ([(1,)], {}, r"given is of tuple: give a list"),
        (
            [1, 2],
            {"when": [{"a": object()}]},
            r"when\[0\]\['a'\] is of object: give plain values, or register",
        ),
        ([1, {1: 2}], {}, r"argument 2 has the key 1: give texts"),
        ([datetime(2026, 1, 1)], {}, r"given can't be encoded as datetime: .*no time zone: give one"),
        (
            [time(12, tzinfo=ZoneInfo("Europe/Berlin"))],
            {},
            r"given can't be encoded as time: .*give a datetime",
        ),
        ([float("nan")], {}, "given is nan, which is no number of JSON"),
        ([Money(Decimal(1), "EUR")], {}, rf"given is of {__name__}\.Money: .*register"),
    ],
    ids=range(7),
)
def test_an_argument_that_cannot_be_written_is_named_where_it_is_deferred(
    given: list[Any], named: dict[str, Any], why: str
) -> None:
    with pytest.raises(ArgumentsRefused, match=rf"{__name__}\.rebuild: {why}"):
        task(rebuild).defer(*given, **named)
    assert Queue("run/queue").count() == 0


def test_an_argument_that_holds_itself_is_named() -> None:
    endless: list[Any] = []
    endless.append({"a": endless})
    with pytest.raises(ArgumentsRefused, match="rebuild: when is nested too deep, or holds itself"):
        task(rebuild).defer(1, when=endless)


def fails(*_: object) -> Any:
    raise OSError("no database")


def endless(value: Money) -> Any:
    return [value]


@pytest.mark.parametrize(
    ("encode", "decode", "why"),
    [
        (fails, Money.of, "given can't be encoded as money: OSError: no database"),
        (endless, Money.of, "rebuild: given is nested too deep, or holds itself, or its type is encoded"),
        (lambda one: {one}, Money.of, "given is of set"),
        (
            lambda one: one.currency,
            Money.of,
            r"rebuild: given can't be read again, ValueError.*: make the decode.*'EUR'\]}$",
        ),
        (lambda one: one.currency, str, "given would not come out of JSON as it is: 'EUR'"),
    ],
    ids=range(5),
)
def test_a_type_that_does_not_come_back_is_refused_where_it_is_deferred(
    encode: Callable[[Money], Any], decode: Callable[[Any], Any], why: str
) -> None:
    register_type(Money, "money", encode=encode, decode=decode)
    with pytest.raises(ArgumentsRefused, match=why):
        task(rebuild).defer(Money(Decimal(1), "EUR"))
    assert Queue("run/queue").count() == 0


def test_a_type_that_is_registered_no_more_is_a_dead_letter_that_names_it(
    money: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    task(rebuild).defer(Money(Decimal(1), "EUR"))
    monkeypatch.delitem(arguments._by_name, "money")
    outcome = handled()
    assert isinstance(outcome, Buried)
    assert re.search("of the type 'money', which nothing here registers.*requeue the call", outcome.reason)
    assert CALLS == []


def test_a_value_that_its_type_reads_no_more_is_a_dead_letter_that_shows_it(money: None) -> None:
    task(rebuild).defer(Money(Decimal(1), "EUR"))
    register_type(Money, "money", encode=str, decode=lambda parts: Money(parts["amount"], "EUR"))
    outcome = handled()
    assert isinstance(outcome, Buried)
    assert "'money' can't be read: TypeError" in outcome.reason
    assert "'EUR'" in outcome.reason


@pytest.mark.parametrize("fault", [OSError("no database"), Defer("no database")], ids=repr)
def test_what_else_a_decode_raises_is_as_if_the_handler_had_raised_it(money: None, fault: Exception) -> None:
    def decode(parts: Any) -> Any:
        raise fault

    task(rebuild).defer(Money(Decimal(1), "EUR"))
    register_type(Money, "money", encode=str, decode=decode)
    assert isinstance(outcome := handled(), Deferred)
    assert "no database" in outcome.reason


@pytest.mark.parametrize("typed", ["1", "false", '"x"', 'true, "more": 1'])
def test_a_form_of_calls_that_is_not_known_is_a_dead_letter(
    typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f'{{"task": "{__name__}.rebuild", "args": [1], "kwargs": {{}}, "typed": {typed}}}'.encode()
    monkeypatch.setattr("maildefer.handling.tasks.call._encoded", lambda call, names: text)
    task(rebuild).defer(1)
    assert handled() == Buried("a call of a task without its name and arguments")


@pytest.mark.parametrize("stands", ['["date"]', '"date"', '["date", "2026-11-28"], "more": 1', '["dict", 1]'])
def test_what_stands_for_no_value_is_a_dead_letter(stands: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = f'{{"__type__": {stands}}}'
    text = f'{{"task": "{__name__}.rebuild", "args": [{value}], "kwargs": {{}}, "typed": true}}'.encode()
    monkeypatch.setattr("maildefer.handling.tasks.call._encoded", lambda call, names: text)
    task(rebuild).defer(1)
    outcome = handled()
    assert isinstance(outcome, Buried)
    assert re.search("stands for no value|nothing here registers", outcome.reason)


class Other:
    pass


WRONG: list[tuple[Any, Any, Any, Any, str]] = [
    (Money(Decimal(1), "EUR"), "money", str, str, "give a class first"),
    (Money, "", str, str, "give a name of 1 to 100 printable"),
    (Money, "a\nb", str, str, "give a name"),
    (Money, "x" * 101, str, str, "give a name"),
    (Money, None, str, str, "give a name"),
    (Money, "money", "str", str, "encode and decode have to be functions"),
    (Money, "money", str, None, "encode and decode have to be functions"),
    (Money, "date", str, str, "datetime.date has the name 'date'"),
    (Money, "dict", str, str, "'dict' has a meaning already"),
    (date, "day", str, str, "may be of this class without it"),
    (dict, "mapping", str, str, "may be of this class without it"),
    (Other, "other", str, str, r"Other has the name 'another'"),
    (Money, "another", str, str, r"Other has the name 'another'"),
]


@pytest.mark.parametrize(("kind", "name", "encode", "decode", "why"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_registration_is_refused_by_its_name(
    kind: Any, name: Any, encode: Any, decode: Any, why: str
) -> None:
    register_type(Other, "another", encode=str, decode=lambda text: Other())
    with pytest.raises(
        (TypeError, ValueError), match=rf"register_type\(.*{re.escape(repr(name))}.*: {why}|{why}"
    ):
        register_type(kind, name, encode=encode, decode=decode)


def test_a_module_that_is_loaded_anew_registers_its_class_anew(money: None) -> None:
    again = type("Money", (), {"__qualname__": "Money", "__module__": __name__})
    register_type(again, "money", encode=lambda one: None, decode=lambda none: again())
    assert type(came_back(again())) is again
