"""RET, ENVID, NOTIFY and ORCPT: what RFC 3461 allows, and what comes of anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maildefer.mail import MailRequest
from maildefer.message.dsn.asked import passed_on
from maildefer.message.dsn.parameters import (
    OF_MESSAGE,
    OF_RECIPIENT,
    DsnParameters,
    ParameterRefused,
    checked,
    parsed,
    taken,
)
from maildefer.message.envelope import block, split
from maildefer.message.request import bytes_of, compose_of, envelope_of, received

ALL = "RET=HDRS ENVID=QQ+20314 NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;ann+2Bnews@osb.example"
STEM = "1712345678.M123456P1234Q7Rdeadbeef.mx-0a1b2c"


def block_with(dsn: str, **changes: str) -> bytes:
    facts = {"sender": "Ann@osb.example", "recipient": "bob@osb.example", **changes}
    return block(STEM, facts["sender"], facts["recipient"], host="h", when=0, via="ESMTP", dsn=dsn)


@pytest.mark.parametrize(
    "value",
    [
        "RET=BOTH",
        "RET=",
        "ENVID=",
        "ENVID=a+b",
        "ENVID=a+2",
        "ENVID=a+2b",
        "ENVID=a=b",
        "ENVID=+0D+0AX-Evil:1",
        "ENVID=a+00",
        "ENVID=a+FF",
        "ENVID=" + "x" * 101,
        "ENVID=" + "x" * 10_000,
        "NOTIFY=",
        "NOTIFY=NEVER,FAILURE",
        "NOTIFY=NEVER,NEVER",
        "NOTIFY=SUCCESS,",
        "NOTIFY=ALWAYS",
        "ORCPT=",
        "ORCPT=ann@osb.example",
        "ORCPT=;ann@osb.example",
        "ORCPT=rfc822;",
        "ORCPT=rfc822;ann+0D+0ARCPT+20TO",
        "ORCPT=rfc822;ann+E4@osb.example",
        "ORCPT=utf-8;änn+0A@osb.example",
        "ORCPT=rf c;x",
        "ORCPT=rfc822;" + "x" * 494,
        "ORCPT=rfc822;" + "x" * 10_000,
        "FROM=a",
    ],
)
def test_what_rfc_3461_does_not_allow_is_refused_and_left_out_where_it_stands_already(value: str) -> None:
    with pytest.raises(ParameterRefused):
        checked(value.replace(" ", "\u00a0"))
    assert parsed(value) == DsnParameters()


def test_what_is_given_is_kept_as_it_came_in_one_order() -> None:
    said = {"ENVID": "QQ+20314", "RET": "hdrs", "SIZE": "3"}
    assert taken(said, OF_MESSAGE) == "RET=HDRS ENVID=QQ+20314"
    assert said == {"SIZE": "3"}
    said = {"ORCPT": "rfc822;ann+2Bnews@osb.example", "NOTIFY": "success,failure,success"}
    assert taken(said, OF_RECIPIENT) == "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;ann+2Bnews@osb.example"
    assert checked("ret=full notify=never") == "RET=FULL NOTIFY=NEVER"
    assert checked("ORCPT=utf-8;jörg@osb.example") == "ORCPT=utf-8;j\\x{F6}rg@osb.example"
    for by_postfix in ("ORCPT=rfc822;jörg@osb.example", "ORCPT=rfc822;j+C3+B6rg@osb.example"):
        assert checked(by_postfix) == "ORCPT=utf-8;j\\x{F6}rg@osb.example"
    with pytest.raises(ParameterRefused, match="once"):
        checked("RET=FULL RET=HDRS")


def test_the_longest_parameters_fit_into_the_block() -> None:
    longest = f"RET=FULL ENVID={'x' * 100} NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;{'y' * 493}"
    assert checked(longest) == longest
    top = block_with(longest)
    assert max(map(len, top.split(b"\n"))) < 998
    envelope = split(top, STEM)[0]
    assert envelope == ("Ann@osb.example", "bob@osb.example")
    assert envelope.dsn == longest


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_no_text_can_forge_a_line_of_the_block(text: str) -> None:
    try:
        top = block_with(text)
    except ValueError:
        return
    assert top.count(b"\n") == 3 + bool(text)
    envelope, offset = split(top + b"Subject: x\n\n", STEM)
    assert envelope is not None
    assert (envelope.dsn, offset) == (text, len(top))


def test_a_message_cannot_bring_parameters_of_its_own() -> None:
    for data in (block_with(""), b"Return-Path: <x@y>\nDelivered-To: b@osb.example\n"):
        message = received(data + b"Maildefer-DSN: NOTIFY=NEVER\n\nhi\n", STEM, 1, "q", None)
        assert message.dsn == DsnParameters()


def test_a_handler_sees_what_the_sender_asks_decoded() -> None:
    message = received(block_with(ALL) + b"Subject: x\n\nhi\n", STEM, 1, "q", None)
    assert message.Data == b"Subject: x\n\nhi\n"
    assert message.dsn == DsnParameters(
        ret="HDRS",
        envid="QQ 314",
        notify=frozenset({"SUCCESS", "FAILURE"}),
        orcpt="rfc822;ann+news@osb.example",
    )
    assert [message.dsn.wants(event) for event in ("SUCCESS", "FAILURE", "DELAY")] == [True, True, False]
    assert not parsed("NOTIFY=NEVER").wants("FAILURE")
    assert parsed("").wants("FAILURE")
    assert MailRequest("peer", "a@b", "c@d", b"x").dsn == DsnParameters()


def test_a_message_that_is_pushed_on_keeps_them_unless_another_sender_answers_for_it() -> None:
    message = received(block_with(ALL) + b"\nhi\n", STEM, 1, "q", None)
    assert envelope_of(message) == ("ann@osb.example", "bob@osb.example")
    assert envelope_of(message).dsn == ALL

    def kept(sender: str | None = None, recipient: str | None = None) -> str:
        pushed = b"".join(compose_of(message, sender, recipient, host="h")(STEM))
        assert pushed.endswith(b"\n\nhi\n")
        envelope = split(pushed, STEM)[0]
        assert envelope is not None
        return envelope.dsn

    assert kept() == kept(recipient="carl@other.example") == kept(sender="ANN@osb.example") == ALL
    assert kept(sender="list-bounces@osb.example") == kept(sender="") == ""
    message.From = "list-bounces@osb.example"
    assert kept() == passed_on(message, message.From) == passed_on(bytes_of(message), "") == ""
