"""The envelope block: what is written is what is read, and nobody else can write it."""

from __future__ import annotations

import email
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maildefer.errors import AddressRefused
from maildefer.message import envelope
from maildefer.message.envelope import Envelope

STEM = "1712345678.M123456P1234Q7Rdeadbeef.mx-0a1b2c"
KEY = STEM + ",S=1234"


def block(sender: str = "s@x.example", recipient: str = "r@y.example", **more: str) -> bytes:
    return envelope.block(
        STEM, sender, recipient, host="mx-0a1b2c", when=1712345678.5, via=more.pop("via", "ESMTP"), **more
    )


addresses = st.from_regex(r"\A[a-zA-Z0-9!#$%&'*+/=?^_`{|}~.é漢-]{1,64}@[a-z0-9.ü-]{1,100}\Z") | st.from_regex(
    r'\A"([ -!#-\[\]-~]|\\[ -~]){0,40}"@[a-z0-9.]{1,40}\Z'
)


def test_the_block_has_exactly_these_three_lines_in_this_order() -> None:
    assert block().decode() == (
        "Return-Path: <s@x.example>\n"
        "Delivered-To: r@y.example\n"
        f"Received: by mx-0a1b2c (maildefer) with ESMTP id {STEM}; Fri, 05 Apr 2024 19:34:38 +0000\n"
    )


@pytest.mark.invariant(9)
@given(data=st.binary(), sender=st.just("") | addresses, recipient=addresses)
@pytest.mark.slow
def test_any_bytes_below_the_block_come_back_untouched(data: bytes, sender: str, recipient: str) -> None:
    stored = block(sender, recipient) + data
    found, offset = envelope.split(stored, KEY)
    assert (found, stored[offset:]) == (Envelope(sender, recipient), data)
    assert envelope.strip(stored) == data


@pytest.mark.invariant(9)
def test_a_message_that_is_itself_a_block_stays_below_the_one_on_top() -> None:
    inner = block("evil@x.example", "root@y.example")
    stored = block() + inner
    found, offset = envelope.split(stored, KEY)
    assert found == Envelope("s@x.example", "r@y.example")
    assert stored[offset:] == inner


@given(data=st.binary() | st.binary().map(lambda tail: block()[: len(tail) * 7] + tail))
def test_split_takes_any_bytes(data: bytes) -> None:
    _, offset = envelope.split(data)
    assert 0 <= offset <= len(data)
    assert envelope.hops(data) >= 0


@given(text=st.text() | st.text(alphabet='ab<>"\\ \r\n\0@\udcff\x85\u2028'))
def test_no_address_can_forge_a_line(text: str) -> None:
    try:
        made = block(text, "r@y.example") + b"body"
    except AddressRefused:
        return
    assert made.count(b"\n") == 3
    assert made.splitlines()[1] == b"Delivered-To: r@y.example"
    found, offset = envelope.split(made, KEY)
    assert found is not None
    assert made[offset:] == b"body"
    # As other readers see it.
    seen = email.message_from_bytes(made)
    assert seen.keys() == ["Return-Path", "Delivered-To", "Received"]


@pytest.mark.parametrize(
    "address",
    [
        "a@b\nBcc: x@y",
        "a@b\r\nX: y",
        "a\0@b",
        "a b@c",
        "a>b@c",
        "<a@b",
        '"a@b',
        "a\x85@b",
        "a\u2028@b",
        "a\udcc2\udc85@b",
        "a\ud800@b",
        "a" * 900 + "@b",
    ],
)
def test_an_address_that_could_be_misread_is_refused_by_name(address: str) -> None:
    with pytest.raises(AddressRefused, match="is refused"):
        block(recipient=address)


def test_an_empty_recipient_is_refused_and_an_empty_sender_is_the_null_sender() -> None:
    with pytest.raises(AddressRefused, match="empty"):
        block(recipient="")
    assert envelope.split(block(sender="") + b"x") == (Envelope("", "r@y.example"), len(block(sender="")))


def test_brackets_around_an_address_are_taken_off() -> None:
    assert block("<s@x.example>", "<r@y.example>") == block()


def test_addresses_beyond_ascii_and_quoted_ones_survive() -> None:
    for address in ("grüße@bücher.example", '"a > b"@x', '"a\\"b"@x', "raw\udcff@x"):
        assert envelope.split(block(address, address) + b"x")[0] == Envelope(address, address)


def test_words_of_the_received_line_cannot_hold_spaces() -> None:
    with pytest.raises(ValueError, match="Received"):
        block(via="ESMTP id x")
    with pytest.raises(ValueError, match="Received"):
        envelope.block("a\nb", "", "r@y", host="h", when=0, via="push")


def test_a_client_name_cannot_forge_the_id() -> None:
    made = block(client="x (maildefer) with ESMTP id other; y\nz")
    assert made.count(b"\n") == 3
    assert envelope.split(made, KEY) == (Envelope("s@x.example", "r@y.example"), len(made))


def test_a_block_counts_only_in_the_entry_that_it_was_made_for() -> None:
    stored = block() + b"text"
    assert envelope.split(stored, KEY)[1] == len(block())
    assert envelope.split(stored, STEM)[1] == len(block())
    for other in ("1712345678.V1.host,S=9", STEM + "x,S=1234", STEM[:-1]):
        assert envelope.split(stored, other)[1] == 0


@pytest.mark.parametrize("cut", [0, 5, 14, 27, 40, 55, 70, 150])
def test_a_truncated_block_is_no_block(cut: int) -> None:
    assert envelope.split(block()[:cut])[1] == 0


def test_a_block_with_crlf_is_read_as_another_writers() -> None:
    stored = block().replace(b"\n", b"\r\n") + b"x"
    assert envelope.split(stored) == (Envelope("s@x.example", "r@y.example"), 0)


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        (b"Return-Path: <a@b>\nDelivered-To: c@d\nReceived: from z by y (Postfix)\n", ("a@b", "c@d")),
        (b"Return-Path: <a@b>\r\nX-Original-To: e@f\r\nDelivered-To: c@d\r\n", ("a@b", "c@d")),
        (b"Delivered-To: c@d\nReturn-Path: <>\n", ("", "c@d")),
        (b"delivered-to:\n  <c@d>\nSubject: x\nReturn-Path: <late@x>\n", (None, "c@d")),
        (b"Return-path: <a@b>\nEnvelope-to: e@f\nDelivery-date: x\nReceived: y\n", ("a@b", None)),
        (b"Delivered-To: c@d\nDelivered-To: older@d\n", (None, "c@d")),
        (b"From: x\nReturn-Path: <a@b>\nDelivered-To: c@d\n", (None, None)),
        (b"Return-Path: <cut@off", (None, None)),
        (b"", (None, None)),
    ],
)
def test_other_writers_topmost_lines_are_read(top: bytes, expected: tuple[str | None, str | None]) -> None:
    assert envelope.trace(top) == expected
    assert envelope.split(top)[1] == 0


def test_hops_are_the_received_lines_below_our_block() -> None:
    message = b"Received: a\nRECEIVED: b\nX-Received: no\nSubject: x\n\nReceived: in the body\n"
    assert envelope.hops(message) == 2
    assert envelope.hops(block() + message) == 2
    assert envelope.hops(message.replace(b"\n", b"\r\n")) == 2
    assert envelope.hops(block()) == 0
    assert envelope.hops(b"Received :\n x\n\nReceived: y\n") == 1


def test_a_huge_line_costs_no_time() -> None:
    huge = b"Return-Path: <" + b"(maildefer) with x id " * 500_000
    assert timeit.timeit(lambda: envelope.split(huge), number=10) < 1


def test_a_block_longer_than_any_that_we_write_is_not_ours() -> None:
    assert envelope.split(block(recipient="r" * 800 + "@y") + b"x", KEY)[1] > 800
    assert envelope.split(block().replace(b"s@x", b"s" * 5000 + b"@x"))[1] == 0
