"""What was read and not changed is written as it came, to the byte; what was changed, changes alone."""

from __future__ import annotations

import email
import email.policy
import warnings
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maildefer import encoding
from maildefer.encoding import MailBase, from_message, from_string, to_message, to_string
from maildefer.mail import MailRequest, MailResponse
from maildefer.message.mime.canonical import is_unchanged
from maildefer.message.mime.mail import decoded_body

WHOLE = (
    b"Return-Path:<ann@example.org>\r\n"
    b"received: from a\r\n\tby b\r\n   with c; today\r\n"
    b"Subject:   odd  spaces =?iso-8859-1?q?=E9?=\r\n =?utf-8?q?x?=\r\n"
    b"X-Raw: caf\xc3\xa9 and \xe9\r\n"
    b"MIME-Version: 1.0 (ours)\r\n"
    b'content-type: multipart/mixed; boundary="B b";\r\n\tx=y\r\n'
    b"\r\n"
    b"preamble\r\n"
    b"--B b  \r\n"
    b"Content-Type: text/plain; charset=iso-8859-1\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\n"
    b"sm\xf8rrebr\xf8d \r\n  indented\r\n\r\n"
    b"--B b\r\n"
    b"Content-Type: application/octet-stream; name=x.bin\r\n"
    b"Content-Transfer-Encoding: BASE64\r\n\r\n"
    b"/w==\r\n   AAAA\r\n"
    b"--B b\r\n\r\nplain with a very " + b"long " * 300 + b"line\r\n"
    b"--B b--   \r\n"
    b"epilogue\r\n"
)
NESTED = (
    b"Content-Type: multipart/alternative; boundary=outer\n\n"
    b"--outer\nContent-Type: multipart/related; boundary=inner\n\n"
    b"--inner\n\nfirst\n--inner\n\n\n--inner--\n\n"
    b"--outer\nContent-Type: message/rfc822\n\nSubject: in it\n\ntext\n"
    b"--outer\nContent-Type: multipart/digest; boundary=d\n\n--d\n\nSubject: one\n\nx\n--d\n\nSubject: two\n\n\n"
    b"--outer--"
)
REPORT = (
    b'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\n\n'
    b"--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; x\n\n"
    b"Action: failed\nStatus: 5.1.1\n\nstray text\n\n\n"
    b"\n--b\nContent-Type: message/rfc822\n\nSubject: inner\n\ntext\n--b--\n"
)
EXAMPLES = {"whole": WHOLE, "nested": NESTED, "report": REPORT}
BROKEN = {
    "nothing": b"",
    "no end of line": b"Subject: x",
    "no empty line": b"Subject: x\nnot a header\nmore\n",
    "no headers": b"\nbody\n",
    "text only": b"only a text\n",
    "a continuation first": b" odd\nSubject: x\n\nbody\n",
    "an mbox's line": b"From ann@x Mon Jan  1\nSubject: x\n\nbody\n",
    "an mbox's line in the middle": b"Subject: x\nFrom ann@x\nTo: y\n\nbody\n",
    "an mbox's line at the end": b"Subject: x\nFrom ann@x\n\nbody\n",
    "a colon first": b": x\nSubject: y\n\nbody\n",
    "no boundary told": b"Content-Type: multipart/mixed\n\n--b\n\nx\n--b--\n",
    "no boundary there": b"Content-Type: multipart/mixed; boundary=b\n\nx\n\n",
    "no boundary in a part": (
        b"Content-Type: multipart/mixed; boundary=o\n\n--o\n"
        b"Content-Type: multipart/mixed; boundary=b\n\nx\n\n--o--\n"
    ),
    "never closed": b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nx",
    "boundaries twice": b"Content-Type: multipart/mixed; boundary=b\n\n--b\n--b\n\nx\n--b\n--b--\n--b--\n\n\n",
    "empty parts": b"Content-Type: multipart/mixed; boundary=b\n\n--b\nX: y\n\n--b\n\n--b\n--b--\n",
    "lone carriage returns": b"Subject: x\rTo: y\r\rbody\r\rmore\r",
    "mixed line ends": b"Subject: x\r\nTo: y\n\rbody\r\n\nmore\r",
    "coded wrongly": b"Content-Transfer-Encoding: base64\nContent-Type: text/plain; charset=no-such\n\n!!\xff\n",
}


@pytest.mark.parametrize("data", [*EXAMPLES.values(), *BROKEN.values()], ids=[*EXAMPLES, *BROKEN])
def test_an_unchanged_message_is_written_as_it_came(data: bytes) -> None:
    mail = from_string(data)
    assert is_unchanged(mail)
    for _ in range(2):  # the first time writes the type back
        assert to_message(mail).as_bytes() == data
        assert to_string(mail).encode("utf-8", "surrogateescape") == data
    for part in (mail, *mail.walk()):
        assert part.body == decoded_body(part)
        part.body = part.body  # what is set to what it is, is not changed
        assert part.items() is not None
    assert to_message(mail).as_bytes() == data


@given(
    st.lists(
        st.sampled_from(
            [
                *(
                    "--b",
                    "--b--",
                    "--c",
                    "--c--",
                    "\n",
                    "\r\n",
                    "\r",
                    " ",
                    "x",
                    "é",
                    "From ann\n",
                    ":",
                    "\x0b",
                ),
                "Content-Type: multipart/mixed; boundary=b\n",
                "Content-Type: multipart/mixed; boundary=c\r\n\r\n",
                "Content-Type: multipart/digest; boundary=c\n\n",
                "Content-Type: message/rfc822\n\n",
                "Content-Type: message/delivery-status\n\n",
                "Content-Transfer-Encoding: base64\n",
                *("Subject: a\n b\n", "Action: failed\n", "\n--b\n", "\n--c\n", "\r\n--b\r\n"),
            ]
        ),
        max_size=40,
    )
)
def test_whatever_was_read_is_written_as_it_came(pieces: list[str]) -> None:
    for head in ("", "Content-Type: multipart/mixed; boundary=b\n\n--b\n"):
        data = (head + "".join(pieces)).encode("latin-1")
        mail = from_string(data)
        assert to_message(mail).as_bytes() == data
        assert to_message(mail).as_bytes() == data
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnicodeWarning)
            changed = from_string(data)
            changed["X-New"] = "new"
            for part in changed.walk():
                part["X-New"] = "new"
            assert isinstance(to_message(changed).as_bytes(), bytes)


def changed(data: bytes, change: Callable[[MailBase], object]) -> bytes:
    mail = from_string(data)
    change(mail)
    assert not is_unchanged(mail)
    first = to_message(mail).as_bytes()
    assert to_message(mail).as_bytes() == first
    return first


def test_a_header_changes_alone() -> None:
    line = b"Subject:   odd  spaces =?iso-8859-1?q?=E9?=\r\n =?utf-8?q?x?=\r\n"
    new = changed(WHOLE, lambda mail: mail.__setitem__("subject", "Grüße"))
    assert new == WHOLE.replace(line, b"").replace(
        b"\tx=y\r\n", b"\tx=y\r\nSubject: =?utf-8?b?R3LDvMOfZQ==?=\r\n"
    )
    assert changed(WHOLE, lambda mail: mail.__delitem__("Subject")) == WHOLE.replace(line, b"")


def test_a_part_changes_alone() -> None:
    def change(mail: MailBase) -> None:
        mail.parts[2].body = "short\n"

    start = WHOLE.index(b"plain with")
    end = WHOLE.index(b"\r\n--B b--")
    assert changed(WHOLE, change) == WHOLE[:start] + b"short\r\n" + WHOLE[end:]


def test_a_changed_text_keeps_its_charset_and_gets_a_coding() -> None:
    def change(mail: MailBase) -> None:
        mail.parts[0].body = "rød\n"

    old = WHOLE[WHOLE.index(b"Content-Transfer-Encoding: 8bit") : WHOLE.index(b"\r\n--B b\r\n")]
    new = WHOLE.replace(old, b"Content-Transfer-Encoding: base64\r\n\r\ncvhkCg==\r\n")
    assert changed(WHOLE, change) == new
    assert from_string(new).parts[0].body == "rød\n"


def test_a_part_that_is_added_or_taken_leaves_the_others() -> None:
    with_one = changed(WHOLE, lambda mail: mail.attach_text("added", "text/plain"))
    assert with_one.startswith(WHOLE[: WHOLE.index(b"\r\n--B b--")])
    assert [part.body for part in from_string(with_one).parts][3:] == ["added"]
    assert with_one.endswith(b"\r\n--B b--   \r\nepilogue\r\n")
    without = changed(WHOLE, lambda mail: mail.parts.pop(1))
    cut = slice(WHOLE.index(b"--B b\r\nContent-Type: app"), WHOLE.index(b"--B b\r\n\r\nplain"))
    assert without == WHOLE[: cut.start] + WHOLE[cut.stop :]


def test_a_part_with_the_boundary_in_it_gets_another() -> None:
    new = changed(NESTED, lambda mail: mail.attach_text("x\n--outer--\ny", "text/plain"))
    assert [part.body for part in from_string(new).parts][3:] == ["x\n--outer--\ny"]
    assert len(from_string(new).parts) == 4


def test_a_nested_message_changes_alone() -> None:
    new = changed(NESTED, lambda mail: mail.parts[1].parts[0].__setitem__("X-Seen", "yes"))
    assert new == NESTED.replace(b"Subject: in it\n", b"Subject: in it\nX-Seen: yes\n")


def test_a_group_of_a_report_changes_alone() -> None:
    new = changed(REPORT, lambda mail: mail.parts[0].parts[0].__setitem__("Arrival-Date", "today"))
    assert new == REPORT.replace(b"dns; x\n", b"dns; x\nArrival-Date: today\n")


def test_a_type_that_is_set_changes_alone_and_keeps_the_boundary() -> None:
    def change(mail: MailBase) -> None:
        mail.content_encoding["Content-Type"] = ("multipart/related", {"x": "y"})

    old = b'content-type: multipart/mixed; boundary="B b";\r\n\tx=y\r\n'
    new = changed(WHOLE, change)
    assert new == WHOLE.replace(old, b'Content-Type: multipart/related; x="y"; boundary="B b"\r\n')


@pytest.mark.parametrize("body", ["text", "a: b\nc", "", "\n"])
@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_broken_message_can_be_changed(data: bytes, body: str) -> None:
    mail = from_string(data)
    mail["X-New"] = "new"
    leaf = mail
    while leaf.parts:
        leaf = leaf.parts[-1]
    leaf.body = body
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnicodeWarning)
        again = from_string(to_message(mail).as_bytes())
    assert again["X-New"] == "new"
    while again.parts:
        again = again.parts[-1]
    text = again.body if isinstance(again.body, str) else again.body.decode()
    assert text.replace("\r\n", "\n").rstrip() == body.rstrip()


@pytest.mark.parametrize("data", EXAMPLES.values(), ids=EXAMPLES)
def test_what_the_email_package_has_read_keeps_what_it_has_kept(data: bytes) -> None:
    message = email.message_from_bytes(data)
    got = to_message(from_message(message)).as_bytes()
    kept = data.replace(b"Return-Path:<", b"Return-Path: <").replace(b":   odd", b": odd")
    kept = kept.replace(b"--B b  \r\n", b"--B b\r\n").replace(b"--B b--   ", b"--B b--")
    if data is NESTED:  # `email` does not tell that a multipart in it was never closed
        kept = kept.replace(b"Subject: two\n\n\n", b"Subject: two\n\n\n--d--\n").removesuffix(b"--outer--")
    assert got.startswith(kept)
    assert len(got) <= len(kept) + len(b"--outer--\n") or data is not NESTED


def test_crlf_8bit_and_folds_survive_the_email_package() -> None:
    data = b"Subject: a\r\n  folded\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xe9\r\n"
    assert to_message(from_message(email.message_from_bytes(data))).as_bytes() == data
    modern = email.message_from_bytes(data, policy=email.policy.default)
    assert to_message(from_message(modern)).get_payload(decode=True) == b"\xe9\r\n"


def test_a_message_that_a_program_made_is_written_in_canonical_form_where_it_must() -> None:
    made = email.message.Message()
    made["Subject"] = "Grüße"
    made.set_payload("漢字")
    got = to_message(from_message(made))
    assert got["Subject"] == "=?utf-8?b?R3LDvMOfZQ==?="
    assert (got["Content-Transfer-Encoding"], got.get_content_charset()) == ("base64", "utf-8")


def test_an_email_message_can_be_changed_after_it_was_made() -> None:
    message = to_message(from_string(WHOLE))
    del message["Subject"]
    message["X-New"] = "new"
    got = message.as_bytes()
    assert b"Subject" not in got
    assert got.endswith(WHOLE[WHOLE.index(b"\r\n\r\npreamble") :])
    assert b"\r\nX-New: new\r\n" in got
    message.attach(email.message_from_string("Subject: x\n\ny"))
    assert b"X-New: new" in message.as_bytes()


def test_a_requests_addresses_from_the_envelope_are_no_change() -> None:
    data = b"Subject: x\r\n\r\nbody\r\n"
    request = MailRequest("peer", "ann@x", "bob@x", data)
    assert (request["From"], request["To"]) == ("ann@x", "bob@x")
    assert request.to_message().as_bytes() == request.to_bytes() == data
    assert str(request) == data.decode()
    request["X-New"] = "new"
    assert request.to_bytes() == b"Subject: x\r\nX-New: new\r\n\r\nbody\r\n"
    request["From"] = "carol@x"
    assert request.to_bytes() == b"Subject: x\r\nX-New: new\r\nFrom: carol@x\r\n\r\nbody\r\n"


def test_parts_that_are_sent_on_are_as_they_came() -> None:
    response = MailResponse(To="a@x", From="b@x", Subject="on", Body="See below.")
    response.attach_all_parts(MailRequest("peer", None, None, WHOLE))
    got = response.to_bytes()
    first = WHOLE[WHOLE.index(b"Content-Type: text/plain") : WHOLE.index(b"\r\n--B b\r\n")]
    assert first in got
    assert [part.body for part in from_string(got).parts] == ["See below.", *_bodies(WHOLE)]


def _bodies(data: bytes) -> list[object]:
    return [part.body for part in from_string(data).parts]


def test_all_of_it_can_be_written_anew() -> None:
    text = to_string(from_string(WHOLE), anew=True)
    assert text.isascii()
    assert "\r" not in text
    assert [part.body for part in encoding.from_string(text).parts] == [
        str(body).replace("\r\n", "\n") if isinstance(body, str) else body for body in _bodies(WHOLE)
    ]
