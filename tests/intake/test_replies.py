"""From what became of a message to the replies for it."""

from __future__ import annotations

import pytest

from maildefer.intake import replies
from maildefer.intake.http.push_endpoint import refused_push
from maildefer.intake.outcomes import Refusal, Stored
from maildefer.intake.replies import Progress, Reply
from maildefer.intake.writer.protocol import LENGTH_BYTES, WriterAnswer, pack_answers, unpack_answers


@pytest.mark.parametrize("refusal", Refusal)
def test_smtp_and_http_agree_whether_sending_again_may_help(refusal: Refusal) -> None:
    reply, answer = replies.refused(refusal), refused_push(refusal, "why")
    assert reply.failed
    assert reply.permanent is (answer.status < 500)
    assert answer.reason == "why"
    assert answer.detail == reply.text or refusal in {Refusal.DUE_REFUSED, Refusal.KEY_REUSED}  # HTTP's own


@pytest.mark.parametrize("refusal", [None, *Refusal])
def test_an_outcome_comes_from_the_writer_as_it_is(refusal: Refusal | None) -> None:
    answers = [WriterAnswer(7, [Stored("" if refusal else "key", refusal, "why"), Stored("other")], "")]
    assert unpack_answers(pack_answers(3, answers)[LENGTH_BYTES:]) == (3, answers)


def test_smtps_one_reply_is_a_4yz_where_one_recipient_may_be_tried_again() -> None:
    stored, loop = Stored("key"), Stored("", Refusal.MAIL_LOOP)
    assert replies.for_all([stored, loop, Stored("", Refusal.QUEUE_FULL)]) == replies.FULL
    assert replies.for_all([loop, stored]) == replies.LOOP


def test_a_reply_names_three_keys_at_most() -> None:
    assert str(replies.for_all([Stored("a"), Stored("b")])) == "250 2.0.0 queued as a b"
    assert str(replies.for_all(list(map(Stored, "abcd")))) == "250 2.0.0 queued as a b c ..."


def test_lmtp_has_a_reply_for_each_recipient() -> None:
    assert replies.for_each([Stored("a"), Stored("", Refusal.MAIL_LOOP), Stored("b")]) == (
        replies.queued(["a"]),
        replies.LOOP,
        replies.queued(["b"]),
    )


def test_a_reply_of_several_lines_has_its_code_on_each() -> None:
    assert str(replies.lines("host", "SIZE 5", "SMTPUTF8")) == "250-host\r\n250-SIZE 5\r\n250 SMTPUTF8"


@pytest.mark.parametrize("text", ["450 4.2.0 greylisted", "554 no", "554 5.7.1", "550 2.1.0 strange"])
def test_a_reply_that_a_policy_has_written_is_sent_as_it_is(text: str) -> None:
    assert str(replies.written(text)) == text


@pytest.mark.parametrize(
    "text", ["250 2.0.0 ok", "450", "450 ", "450 a\r\n250 b", "450 ä", "450 " + "x" * 501]
)
def test_what_is_no_refusal_is_no_policys_reply(text: str) -> None:
    assert replies.written(text) is None


def test_an_empty_chunk_brings_no_message_on() -> None:
    assert replies.chunk_received(0).progress is Progress.NONE
    assert replies.chunk_received(1) == Reply(250, "2.0.0", "1 octets", Progress.ONWARD)
