"""The header fields of a push: what each takes, and what it refuses by its name."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from maildefer.intake.http.push_headers import (
    AFTER,
    AT,
    DSN,
    KEY,
    NOTHING,
    PushHeaders,
    fingerprint,
    parse,
    request_name,
)
from maildefer.intake.writer.protocol import Message

MESSAGE = Message("a@x.org", ("b@x.org", "c@x.org"), (), "HTTP", "", True)


def parsed(*fields: tuple[str, str]) -> PushHeaders:
    return parse(CIMultiDict(fields))


def refusal(*fields: tuple[str, str]) -> str:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # its text is looked at by the caller
        parsed(*fields)
    return str(refused.value)


def test_a_request_without_them_asks_for_nothing() -> None:
    assert parsed(("Content-Type", "message/rfc822")) is NOTHING


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ('"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (' "two words" ', "two words"),
        (r'"a \"b\" \\ c"', r'a "b" \ c'),
        ("order:17/2,x;y=z", "order:17/2,x;y=z"),
        ("k" * 255, "k" * 255),
        ('"' + "k" * 255 + '"', "k" * 255),
    ],
)
def test_a_key_is_a_string_of_the_draft_or_the_same_without_its_quotes(text: str, key: str) -> None:
    assert parsed((KEY, text)).idempotency_key == key


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ('""', "is empty"),
        ("k" * 256, "more than 255"),
        ('"' + "k" * 256 + '"', "more than 255"),
        ("k" * 7000, "more than 255"),
        ("two words", "in quotes"),
        ('"open', "in quotes"),
        ('"a"b"', "in quotes"),
        (r'"a\b"', "in quotes"),
        ('"a"; b', "in quotes"),
        ("schlüssel", "printable ASCII"),
        ("a\tb", "printable ASCII"),
        ("a\x7f", "printable ASCII"),
        ('"a\x00"', "printable ASCII"),
        ("\udcff", "printable ASCII"),
    ],
)
def test_any_other_key_is_refused_by_its_name(text: str, why: str) -> None:
    told = refusal((KEY, text))
    assert told.startswith("Idempotency-Key")
    assert why in told


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("60", 60), ("1.5", 1.5), (" 90 ", 90), ("15m", 900), ("2d", 172800)]
)
def test_after_is_in_seconds_or_with_a_unit(text: str, seconds: float) -> None:
    assert parsed((AFTER, text)).after_seconds == seconds


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+60", "1e3", "nan", "inf", "0x10", "60 s", "soon", "٣", "9" * 400, "1,5", "PT60S", "-5m"],
)
def test_any_other_time_after_is_refused_by_its_name(text: str) -> None:
    assert refusal((AFTER, text)).startswith("Maildefer-After takes")


@pytest.mark.parametrize(
    "text",
    ["2027-01-31T08:00:00+01:00", "2027-01-31T07:00:00Z", "2027-01-31 07:00+00:00", "2027-01-31t07:00:00z"],
)
def test_at_is_a_time_with_its_zone_and_the_same_in_each(text: str) -> None:
    assert parsed((AT, text)).at == "2027-01-31T07:00:00+00:00"


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_a_time_at_either_end_of_the_calendar_is_left_to_be_refused_as_past_or_too_late(text: str) -> None:
    assert parsed((AT, text)).at == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2027-01-31T08:00:00",
        "2027-01-31",
        "1801234567",
        "tomorrow",
        "2027-02-30T00:00:00Z",
        "9" * 500,
        "\udcff",
    ],
)
def test_any_other_moment_is_refused_by_its_name(text: str) -> None:
    assert refusal((AT, text)).startswith("Maildefer-At takes")


@pytest.mark.parametrize(
    "name", ["Maildefer-Aftr", "maildefer-unique", "MAILDEFER-PRIORITY", "Maildefer-", "Maildefer-After-"]
)
def test_a_field_of_ours_that_is_unknown_is_refused_and_the_known_ones_are_named(name: str) -> None:
    told = f"no such field {name}: give Maildefer-After or Maildefer-At, Maildefer-DSN, and Idempotency-Key"
    assert refusal((name, "5")) == told
    assert refusal((AFTER, "5"), (KEY, "k"), (name, "")) == told


def test_a_long_name_is_cut_and_one_that_cannot_be_shown_is_not() -> None:
    assert len(refusal(("Maildefer-" + "x" * 9000, "5"))) < 120
    assert refusal(("Maildefer-\udcff", "5")).startswith("no such field: give ")


def test_known_fields_in_any_case_and_those_of_others_are_taken() -> None:
    assert parsed((AFTER.upper(), "5")).after_seconds == 5
    assert parsed(("X-Maildefer-Unique", "5"), ("Maildeferred", "5")) is NOTHING


def test_one_of_each_is_given_and_of_both_times_one() -> None:
    assert refusal((AFTER, "1"), (AFTER, "1")) == "Maildefer-After is given 2 times"
    assert refusal((KEY, "a"), (KEY.lower(), "b")) == "Idempotency-Key is given 2 times"
    assert (
        refusal((AFTER, "1"), (AT, "2027-01-31T08:00:00Z"))
        == "give Maildefer-After or Maildefer-At, not both"
    )


def test_a_request_is_known_by_its_key_and_by_whose_token_it_has() -> None:
    names = {
        request_name(token, key) for token in (b"tok", b"toke") for key in ("key", "nkey", "ekey", '"key"')
    }
    assert len(names) == 8
    assert {len(name) for name in names} == {32}
    assert not any("tok" in name for name in names)


def test_another_envelope_time_or_body_is_another_request_and_its_way_here_is_not() -> None:
    def of(body: bytes = b"", **other: object) -> str:
        digest = fingerprint(MESSAGE._replace(**other))  # type: ignore[arg-type]
        digest.update(body)
        return digest.hexdigest()

    others = [
        of(),
        of(b"x"),
        of(sender=""),
        of(sender="a@y.org"),
        of(recipients=("b@x.org",)),
        of(recipients=("c@x.org", "b@x.org")),
        of(after_seconds=60.0),
        of(after_seconds=0.0),
        of(at="2027-01-31T08:00:00Z"),
    ]
    assert len(set(others)) == len(others)
    assert of(client="([127.0.0.2])", pieces=(b"x",), draft=3) == of()


def test_what_is_asked_of_reports_is_checked_as_by_smtp_and_another_is_another_request() -> None:
    asked = parsed((DSN, "notify=never RET=HDRS")).dsn
    assert asked == "RET=HDRS NOTIFY=NEVER"
    assert DSN in refusal((DSN, "NOTIFY=SOMETIMES"))
    with_dsn = MESSAGE._replace(dsn=dict.fromkeys(MESSAGE.recipients, asked))
    assert fingerprint(with_dsn).digest() != fingerprint(MESSAGE).digest()
