"""Loop detection in the front end."""

from __future__ import annotations

import pytest

from maildefer.intake.options import FrontEndOptions
from maildefer.intake.smtp.mail_loops import Trace
from maildefer.message.envelope import block

LIMITS = FrontEndOptions(max_hops=3)
RECEIVED = b"Received: from a by b; now\n"


def loops(data: bytes, *recipients: str, limits: FrontEndOptions = LIMITS, part_bytes: int = 1 << 20) -> str:
    """Why it is a loop; empty when it is none."""
    trace = Trace(limits)
    for at in range(0, len(data) or 1, part_bytes):
        trace.feed(data[at : at + part_bytes])
    return " ".join(trace.loops(recipients or ("c@d",)).values())


@pytest.mark.parametrize("part_bytes", [1 << 20, 4096, 17, 3, 1])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (RECEIVED * 3 + b"\nbody\n", "3 Received lines"),
        (RECEIVED * 2 + b"\nbody\n", ""),
        (RECEIVED * 2 + b"rEcEiVeD: x\n\nbody\n", "3 Received lines"),
        (RECEIVED * 2 + b"\n" + RECEIVED, ""),  # in the body
        (RECEIVED * 2 + b"\r\n" + RECEIVED, ""),
        (b"\n" + RECEIVED * 9, ""),  # no header section at all
        (RECEIVED * 2 + b"X: y\n Received: folded\n\n", ""),
        (RECEIVED * 2 + b"X-Received: y\n\n", ""),
        (b"Delivered-To: c@d\n\n", "delivered to it before"),
        (b"Subject: x\ndelivered-to:  <C@D> \n\n", "delivered to it before"),
        (b"Delivered-To : c@d\n\n", "delivered to it before"),
        (b"Delivered-To:\n\t<c@d>\n\n", "delivered to it before"),
        (b"Delivered-To: <c@d>\n (by b)\nTo: x\n\n", "delivered to it before"),
        (b'Delivered-To: (a quote " in a comment) c@d (and ")\n\n', "delivered to it before"),
        (b'Delivered-To: "c@d (\\" "@e (")\n\n', ""),
        (b"Delivered-To: (to (c\\) and) c) c @ d (once)\n\n", "delivered to it before"),
        (b"Delivered-To: (c@d) e@f\n\n", ""),
        (b"Delivered-To: c@d\n", "delivered to it before"),  # and nothing else
        (b"Delivered-To-Whom: c@d\n\n", ""),
        (b"Delivered-To: " + b"x" * 3000 + b"\nDelivered-To: c@d\n\n", "delivered to it before"),
        (b"Delivered-To:" + b" x\n" * 1000 + b" \n delivered-to: c@d\n\n", ""),
        (RECEIVED * 2 + b"Received : x\n\n", "3 Received lines"),
        (RECEIVED * 2 + b"Received:\n x\n (y)\n\n", "3 Received lines"),
        (RECEIVED * 2 + b"Received-SPF: none\nReceived\n\n", ""),
        (b"Delivered-To: c@d.example\n\n", ""),
        (b"Subject: x\n\nDelivered-To: c@d\n", ""),
        (b"", ""),
    ],
)
def test_a_message_that_comes_again_is_a_loop_however_it_is_cut(
    data: bytes, expected: str, part_bytes: int
) -> None:
    if part_bytes < 4096:  # a block of our own is looked for in the first part, which is never so small
        data = b"X-First: " + b"x" * 20 + b"\n" + data if data[:1] not in (b"\n", b"") else data
    assert loops(data, part_bytes=part_bytes) == expected


def test_it_is_a_loop_for_the_recipient_that_had_it() -> None:
    trace = Trace(LIMITS)
    trace.feed(b"Delivered-To: e@f\n\n")
    assert list(trace.loops(["c@d", "e@f"])) == ["e@f"]
    trace = Trace(FrontEndOptions(max_hops=1))
    trace.feed(RECEIVED)
    assert list(trace.loops(["c@d", "e@f"])) == ["c@d", "e@f"]


def test_a_block_of_our_own_on_top_does_not_count() -> None:
    top = block("stem", "a@b", "c@d", host="mx", when=0, via="push")
    assert loops(top + RECEIVED * 2 + b"\n") == ""
    assert loops(top + top + RECEIVED + b"\n") == "delivered to it before"


def test_deliveries_may_be_left_unlooked_at() -> None:
    assert loops(b"Delivered-To: c@d\n" * 5 + b"\n", limits=FrontEndOptions(max_deliveries=0)) == ""


def test_a_line_without_end_costs_no_memory() -> None:
    trace = Trace(LIMITS)
    for _ in range(100):
        trace.feed(b"x" * 10_000)
    assert len(trace._rest or b"") < 4096


def test_a_header_section_is_read_for_a_mebibyte_only() -> None:
    assert loops(b"X: y\n" * 300_000 + RECEIVED * 9, part_bytes=65536) == ""
