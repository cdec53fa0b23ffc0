"""A report's bytes: what mail programs, bounce parsers and maildefer itself read in them (RFC 3464, RFC 6522)."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage

import pytest
from flufl.bounce import all_failures
from hypothesis import given
from hypothesis import strategies as st

from maildefer.mail import MailRequest
from maildefer.message.dsn.parameters import parsed
from maildefer.message.notices.report import MOST_RETURNED_BYTES, Reported, report_of

MESSAGE = b"From: Ann <ann@home.example>\nSubject: Hello\n\nFrom here, the text: \xc3\xa4\n"
ASKED = "RET=FULL ENVID=QQ+20314 NOTIFY=FAILURE ORCPT=rfc822;Bob+2Bnews@osb.example"


def report(
    message: bytes = MESSAGE,
    dsn: str = "",
    *,
    sender: str = "Ann@home.example",
    recipient: str = "bob@osb.example",
    words: str = "550 5.1.1 user unknown",
    code: int = 550,
    server: str = "mx.osb.example",
) -> bytes:
    failed = Reported(
        sender=sender,
        recipient=recipient,
        words=words,
        status="5.1.1",
        code=code,
        server=server,
        dsn=parsed(dsn),
        pushed_at=1_700_000_000.0,
    )
    return report_of(
        failed,
        message,
        host="mail.us.example",
        author="postmaster@us.example",
        name="f00d",
        now=1_700_000_060.0,
    )


def read(data: bytes) -> tuple[EmailMessage, list[EmailMessage]]:
    found = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    parts = list(found.iter_parts())
    assert not found.defects
    return found, parts  # type: ignore[return-value]  # its parts are EmailMessage, too


def fields_of(part: EmailMessage) -> list[dict[str, str]]:
    blocks = part.get_payload()
    assert isinstance(blocks, list)
    return [
        {name: str(value) for name, value in block.items()} for block in blocks if not isinstance(block, str)
    ]


def test_control_characters_of_a_servers_words_are_in_no_part() -> None:
    data = report(words="550 5.1.1 no \x1b[31m user\x07", recipient="bob\x1b@osb.example")
    assert b"\x1b" not in data
    assert b"\x07" not in data


def test_it_is_a_delivery_report_that_says_it_is_automatic() -> None:
    whole, parts = read(report(dsn=ASKED))
    assert whole.get_content_type() == "multipart/report"
    assert whole.get_param("report-type") == "delivery-status"
    assert [part.get_content_type() for part in parts] == [
        "text/plain",
        "message/delivery-status",
        "message/rfc822",
    ]
    assert (whole["To"], whole["Auto-Submitted"], whole["Message-ID"]) == (
        "Ann@home.example",
        "auto-replied",
        "<f00d@us.example>",
    )
    assert "<bob@osb.example>: 550 5.1.1 user unknown" in parts[0].get_content()


def test_programs_find_who_failed_where_and_what_the_sender_has_named_it() -> None:
    of_message, of_recipient = fields_of(read(report(dsn=ASKED))[1][1])
    assert of_message == {
        "Original-Envelope-Id": "QQ 314",
        "Reporting-MTA": "dns; mail.us.example",
        "Arrival-Date": "Tue, 14 Nov 2023 22:13:20 +0000",
    }
    assert of_recipient == {
        "Original-Recipient": "rfc822;Bob+news@osb.example",
        "Final-Recipient": "rfc822; bob@osb.example",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.osb.example",
        "Diagnostic-Code": "smtp; 550 5.1.1 user unknown",
        "Last-Attempt-Date": "Tue, 14 Nov 2023 22:14:20 +0000",
    }
    plain = fields_of(read(report(words="no such list", code=0, server=""))[1][1])
    assert not {"Original-Envelope-Id", "Original-Recipient", "Remote-MTA"} & (
        plain[0].keys() | plain[1].keys()
    )
    assert plain[1]["Diagnostic-Code"] == "x-maildefer; no such list"


def test_bounce_parsers_and_we_ourselves_know_it_for_what_it_is() -> None:
    temporary, permanent = all_failures(email.message_from_bytes(report()))
    assert (set(temporary), set(permanent)) == (set(), {b"bob@osb.example"})
    again = MailRequest("peer", "", "ann@home.example", report())
    assert again.is_automatic
    assert again.is_bounce()
    assert again.bounce is not None
    assert again.bounce.final_recipient == "bob@osb.example"
    assert MailRequest("peer", "ann@x", "b@x", report()).is_automatic


@pytest.mark.parametrize(
    ("dsn", "message", "kind", "body"),
    [
        ("RET=FULL", MESSAGE, "message/rfc822", MESSAGE),
        ("RET=HDRS", MESSAGE, "text/rfc822-headers", MESSAGE[: MESSAGE.index(b"\n\n") + 1]),
        ("", MESSAGE, "text/rfc822-headers", MESSAGE[: MESSAGE.index(b"\n\n") + 1]),
        ("RET=FULL", MESSAGE + b"x" * MOST_RETURNED_BYTES, "text/rfc822-headers", None),
        ("", b"A: b\r\nC: d\r\n\r\nx", "text/rfc822-headers", b"A: b\r\nC: d\r\n"),
        ("", b"\nno header", "text/rfc822-headers", b"\n"),
        ("", b"", "text/rfc822-headers", b""),
        ("", b"A: b", "text/rfc822-headers", b"A: b"),
        ("", b"A: b\n" * 20_000, "text/rfc822-headers", b"A: b\n" * 10_000),
    ],
)
def test_the_message_comes_back_as_far_as_the_sender_wants_and_it_is_not_large(
    dsn: str, message: bytes, kind: str, body: bytes | None
) -> None:
    data = report(message, dsn)
    assert read(data)[1][2].get_content_type() == kind
    assert len(data) < MOST_RETURNED_BYTES + 4000
    if body is not None:
        assert b"\n\n" + body + b"\n--=f00d=" in data


def test_a_message_with_the_boundary_in_it_does_not_end_the_report() -> None:
    data = report(b"A: b\n\n--=f00d=--\nmore\n--=f00d==\n", "RET=FULL")
    parts = read(data)[1]
    assert len(parts) == 3
    assert "more" in parts[2].as_string()


def test_an_address_beyond_ascii_is_named_in_ascii() -> None:
    data = report(recipient="jörg@osb.example", sender="ängel@home.example")
    assert fields_of(read(data)[1][1])[1]["Final-Recipient"] == "utf-8; j\\x{F6}rg@osb.example"
    assert "jörg@osb.example" in read(data)[1][0].get_content()


@given(text=st.text(max_size=3000), message=st.binary(max_size=300))
@pytest.mark.slow
def test_no_words_add_a_field_and_no_message_breaks_it(text: str, message: bytes) -> None:
    words = text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    data = report(
        message, "RET=FULL", words=words, server=words, recipient=f"{words}@x" if words.isascii() else "b@x"
    )
    parts = read(data)[1]
    assert len(parts) == 3
    assert all(len(line) <= 998 for line in data[: data.index(b"delivery-status\n")].split(b"\n"))
    of_message, of_recipient = fields_of(parts[1])
    assert set(of_message) == {"Reporting-MTA", "Arrival-Date"}
    assert set(of_recipient) <= {
        *("Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date")
    }
