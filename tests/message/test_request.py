"""MailRequest: the envelope first, headers when there is none, nothing parsed before it is asked for."""

from __future__ import annotations

import email
import email.parser
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maildefer import mail
from maildefer.mail import MailRequest
from maildefer.message import envelope
from maildefer.message.request import received

STEM = "1712345678.M123456P1234Q7Rdeadbeef.mx-0a1b2c"
KEY = STEM + ",S=1234"
TEXT = b"From: Z S <Zed@X.example>\nTo: A <a@y.example>, b@y.example\nSubject: =?utf-8?q?=C3=A9?=\n\nhello\n"
PARTS = (
    b"From: a@b\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n"
    b"--x\n\nfirst\n--x\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n\n/9j/\n--x--\n"
)


def entry(sender: str, recipient: str, data: bytes) -> bytes:
    return envelope.block(STEM, sender, recipient, host="mx", when=0, via="push") + data


def test_a_received_request_has_the_envelope_and_the_bytes_below_it() -> None:
    request = received(entry("S@X.example", "Post@Y.example", TEXT), KEY, 2, "run/queue", "peer")
    assert (request.From, request.To, request.Data) == ("s@x.example", "post@y.example", TEXT)
    assert (request.key, request.attempt, request.queue, request.Peer) == (KEY, 2, "run/queue", "peer")


@pytest.mark.invariant(9)
@given(data=st.binary())
def test_a_handler_sees_the_bytes_that_were_pushed(data: bytes) -> None:
    request = received(entry("s@x", "r@y", data), KEY, 1, "q", None)
    assert request.Data == data
    assert request.to_bytes() == data
    assert isinstance(str(request), str)
    assert request.From == "s@x"


def test_the_null_sender_is_not_replaced_by_a_header() -> None:
    assert received(entry("", "r@y", TEXT), KEY, 1, "q", None).From == ""
    assert MailRequest("p", "", "r@y", TEXT).From == ""


def test_another_writers_trace_lines_are_the_envelope_and_stay_in_the_data() -> None:
    data = b"Return-Path: <S@x>\nDelivered-To: R@y\n" + TEXT
    request = received(data, "foreign", 1, "q", None)
    assert (request.From, request.To, request.Data) == ("s@x", "r@y", data)


def test_what_another_writer_does_not_tell_comes_from_the_headers() -> None:
    request = received(b"Delivered-To: r@y\n" + TEXT, "foreign", 1, "q", None)
    assert (request.From, request.To) == ("zed@x.example", "r@y")


def test_with_no_envelope_headers_are_parsed_and_the_first_recipient_counts() -> None:
    request = MailRequest("p", None, None, TEXT)
    assert (request.From, request.To) == ("zed@x.example", "a@y.example")


def test_a_list_of_none_is_no_envelope() -> None:
    request = MailRequest("p", [None], [None], TEXT)
    assert (request.From, request.To) == ("zed@x.example", "a@y.example")


def test_without_any_address_both_are_empty() -> None:
    request = MailRequest("p", None, None, b"no headers at all")
    assert (request.From, request.To) == ("", "")


@pytest.mark.parametrize(
    ("given_address", "bare"),
    [
        ("A@B.example", "a@b.example"),
        (b"<A@b.example>", "a@b.example"),
        ('"S, Zed" <z@x>', "z@x"),
        (["X <x@y>", "z@z"], "x@y"),
        ([b"a@b"], "a@b"),
        ("nobody, real@x", "real@x"),
        ("=?utf-8?q?a=40b?=", "a@b"),
        ("=?utf-8?q?D=C3=A9=2C_x?= <a@b>", "a@b"),
        ("undisclosed-recipients:;", ""),
        ('"x"\r\n <a@b>', "a@b"),
    ],
)
def test_addresses_are_bare_and_lower_case(given_address: str, bare: str) -> None:
    request = MailRequest("p", given_address, given_address, b"")
    assert (request.From, request.To) == (bare, bare)


def test_the_routable_header_is_set_on_the_public_module(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mail.ROUTABLE_TO_HEADER == "to"
    monkeypatch.setattr(mail, "ROUTABLE_TO_HEADER", "X-For")
    assert MailRequest("p", None, None, b"To: a@b\nX-For: Real <c@d>\n\n").To == "c@d"


def test_missing_address_headers_are_filled_in_from_the_envelope() -> None:
    request = MailRequest("p", "s@x", "r@y", b"Subject: x\n\nhello")
    assert (request["from"], request["TO"]) == ("s@x", "r@y")
    assert request.keys() == ["Subject", "From", "To"]


def test_headers_are_read_decoded_in_any_case_and_set_last() -> None:
    request = MailRequest("p", None, None, TEXT)
    assert request["SUBJECT"] == "é"
    assert request["X-None"] is None
    assert "subject" in request
    request["subject"] = "ü"
    assert request.items()[-1] == ("Subject", "ü")
    del request["subject"]
    assert "Subject" not in request


def test_body_parts_and_walk() -> None:
    assert MailRequest("p", None, None, TEXT).body() == "hello\n"
    assert MailRequest("p", None, None, TEXT).all_parts() == []
    request = MailRequest("p", None, None, PARTS)
    assert request.body() == "first"
    assert [part.body for part in request.all_parts()] == ["first", b"\xff\xd8\xff"]
    assert list(request.walk()) == request.all_parts()


def test_lines_of_a_body_end_alike_by_whichever_door_it_came_and_its_bytes_stay() -> None:
    """SMTP stores LF, HTTP what was sent."""
    crlf = b"Subject: x\r\nContent-Transfer-Encoding: base64\r\n\r\nYQ0KYgo=\r\n"
    for data in (b"Subject: x\r\n\r\na\r\nb\n", crlf):
        request = received(data, "key", 1, "q", "p")
        assert request.body() == "a\nb\n"
        assert request.Data == data
        assert request.to_bytes() == data
    assert received(b"Content-Type: image/x\r\n\r\na\r\n", "key", 1, "q", "p").body() in (b"a\r\n", b"a\n")


def test_text_is_taken_as_data_too() -> None:
    request = MailRequest("p", None, None, "From: é <a@b>\n\nü")
    assert (request.body(), request["From"], request.From) == ("ü", "é <a@b>", "a@b")


def test_a_look_does_not_change_what_is_sent_and_a_change_does() -> None:
    data = b"Subject:   odd   spacing\nX: =?iso-8859-1?q?=E9?=\nTo: a@b\n\n\xe9 8-bit\n"
    request = MailRequest("p", "s@x", "r@y", data)
    assert request["x"] == "é"
    assert request.to_bytes() == data
    request["X"] = "new"
    assert request.to_bytes() == b"Subject:   odd   spacing\nTo: a@b\nX: new\n\n\xe9 8-bit\n"


def test_handlers_may_put_facts_of_their_own_on_a_request() -> None:
    request = received(entry("s@x", "r@y", TEXT), KEY, 1, "q", None)
    request.blog = 7  # type: ignore[attr-defined]
    assert request.blog == 7  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="nothing"):
        request.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_the_old_name_of_data_warns() -> None:
    with pytest.warns(DeprecationWarning, match="Data"):
        assert MailRequest("p", None, None, TEXT).original == TEXT


def test_making_a_request_does_not_import_the_email_package() -> None:
    code = (
        "import sys\n"
        "from maildefer.message.request import received\n"
        "import maildefer.mail\n"
        f"r = received({entry('s@x', 'r@y', TEXT)!r}, {KEY!r}, 1, 'q', None)\n"
        "assert r.To == 'r@y' and not [m for m in sys.modules if m.partition('.')[0] == 'email'], sys.modules\n"
        "assert r['subject'] == '\\xe9' and 'email' in sys.modules\n"
        "assert not {'maildefer.message.authentication', 'maildefer.message.automatic'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@given(
    st.lists(
        st.sampled_from([*"ab:\r\n \t", "\r\n", "A: b", "Subject", "From x", "é", "\x0b", "\n\n", "\x85"]),
        max_size=30,
    )
)
def test_headers_read_alone_are_those_of_the_whole_message(pieces: list[str]) -> None:
    text = "".join(pieces)
    for data in (text, text.encode("latin-1")):
        alone, whole = (MailRequest("peer", "ann@x", "bob@x", data) for _ in range(2))
        assert whole.base is not None
        assert (alone.items(), alone.keys(), "subject" in alone) == (
            whole.items(),
            whole.keys(),
            "subject" in whole,
        )
        assert (alone["a"], alone["subject"]) == (whole["a"], whole["subject"])
        assert alone.base.items() == whole.items()


def test_a_look_at_headers_parses_no_body(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    parsebytes = email.parser.BytesHeaderParser.parsebytes
    monkeypatch.setattr(
        email.parser.BytesHeaderParser,
        "parsebytes",
        lambda self, data, *rest: parsed.append(len(data)) or parsebytes(self, data, *rest),
    )
    monkeypatch.setattr(email, "message_from_bytes", lambda *_: pytest.fail("all of it was parsed"))
    head = b"From: ann@example.org\nTo: bob@example.org\nSubject: a title\nX-A: 1\n\n"
    request = MailRequest("peer", None, None, head + b"x" * 1_000_000)
    assert (request["subject"], request["x-a"], "x-b" in request) == ("a title", "1", False)
    assert (request.From, request.To, len(request.items()), request.keys()[0]) == (
        "ann@example.org",
        "bob@example.org",
        4,
        "From",
    )
    assert request.to_bytes() == request.Data
    assert parsed == [len(head)]


def test_what_is_set_after_a_look_at_the_headers_is_seen_and_sent() -> None:
    request = MailRequest("peer", "ann@x", "bob@x", "Subject: old\nFrom: ann@x\nTo: bob@x\n\ntext\n")
    assert request["Subject"] == "old"
    request["Subject"] = "new"
    assert request["Subject"] == "new"
    assert b"Subject: new" in request.to_bytes()
    assert request.body() == "text\n"
