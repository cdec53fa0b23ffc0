"""Bounces: what real ones say, and what hostile ones may not do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.corpus import CorpusMissing, messages
from maildefer.message import bounce
from maildefer.message.request import MailRequest

# flufl.bounce calls it permanent, since its action is `failed`; its status is 4.4.7, which is what Salmon goes by.
SOFT_BY_STATUS = {"dsn_02", "mail_malformed_2"}
# Spam whose text looks like a bounce to flufl.bounce; nothing about its sender or subject does.
NO_BOUNCES = {"mail_test_15"}

# Their Final-Recipient, which Salmon goes by, is not the address that the mail was sent to.
OTHER_NAMES = {"dsn_01", "dsn_02", "dsn_04", "dsn_09", "dsn_17"}


@pytest.fixture(scope="module")
def corpus() -> list[tuple[str, bytes]]:
    try:
        return list(messages())
    except CorpusMissing as why:
        pytest.skip(str(why))


def verdicts(corpus: list[tuple[str, bytes]]) -> Iterator[tuple[str, Any, bool, bool]]:
    """Each message with what flufl.bounce says of it: a temporary failure, a permanent one."""
    import email

    from flufl.bounce import all_failures  # type: ignore[import-untyped,unused-ignore]

    for name, data in corpus:
        temporary, permanent = all_failures(email.message_from_bytes(data))
        yield name, MailRequest("peer", None, None, data), bool(temporary), bool(permanent)


@pytest.mark.slow
def test_the_verdicts_on_real_bounces_are_those_of_flufl_bounce(corpus):
    found = 0
    for name, message, temporary, permanent in verdicts(corpus):
        if not (temporary or permanent) or name in NO_BOUNCES:
            continue
        found += 1
        assert message.is_bounce(), name
        hard = permanent and name not in SOFT_BY_STATUS
        assert (message.bounce.is_hard(), message.bounce.is_soft()) == (hard, not hard), name
    assert found == 113


@pytest.mark.slow
def test_who_was_not_reached_is_whom_flufl_bounce_names(corpus):
    from flufl.bounce import all_failures

    found = 0
    for name, message, temporary, permanent in verdicts(corpus):
        if not (temporary or permanent) or name in NO_BOUNCES | OTHER_NAMES:
            continue
        found += 1
        named = {str(one.decode()).lower() for part in all_failures(message.base.mime_part) for one in part}
        assert message.is_bounce(), name
        ours = message.bounce.failed_recipients[0] | message.bounce.failed_recipients[1]
        ours |= {message.bounce.final_recipient or ""}
        assert {one.strip("<>").lower() for one in ours} & named, name
    assert found == 108


@pytest.mark.slow
def test_real_mail_that_is_no_bounce_is_none(corpus):
    for name, message, temporary, permanent in verdicts(corpus):
        if not (temporary or permanent) or name in NO_BOUNCES:
            assert not message.is_bounce(), name


def test_a_text_that_names_who_was_not_reached_counts_from_a_daemon_only():
    text = "Subject: x\n\nHi. This is the qmail-send program at x.\n\n<bob@example.com>:\nno such user\n\n"
    by_daemon = MailRequest("peer", "", "ann@x", f"From: MAILER-DAEMON@x\n{text}")
    by_ann = MailRequest("peer", "ann@x", "ann@x", f"From: ann@x\n{text}")
    assert by_daemon.is_bounce()
    assert by_daemon.bounce is not None
    assert by_daemon.bounce.is_hard()
    assert by_daemon.bounce.failed_recipients == (frozenset(), frozenset({"bob@example.com"}))
    assert "bob@example.com" in by_daemon.bounce.error_for_humans()
    assert not by_ann.is_bounce()


def test_without_flufl_bounce_the_score_alone_counts(monkeypatch):
    monkeypatch.setitem(sys.modules, "flufl.bounce", None)
    text = "Hi. This is the qmail-send program at x.\n\n<bob@example.com>:\nno such user\n"
    assert not MailRequest("peer", "", "ann@x", f"From: MAILER-DAEMON@x\n\n{text}").is_bounce()


def test_detectors_that_fail_make_no_bounce(monkeypatch):
    import flufl.bounce

    def fail(message: object) -> None:
        raise ValueError

    monkeypatch.setattr(flufl.bounce, "all_failures", fail)
    assert not MailRequest("peer", "", "ann@x", "Subject: x\n\n").is_bounce()


def test_only_the_beginning_of_a_long_message_is_searched(monkeypatch):
    import flufl.bounce

    seen: list[int] = []

    def look(message: Any) -> tuple[set[bytes], set[bytes]]:
        seen.append(len(message.as_bytes()))
        return set(), set()

    monkeypatch.setattr(flufl.bounce, "all_failures", look)
    for length in (1000, 1 << 20):
        MailRequest("peer", "", "ann@x", b"Subject: x\n\n" + b"a line\n" * (length // 7)).is_bounce()
    assert seen[0] > 900
    assert seen[1] <= 128 << 10


@pytest.mark.parametrize("status", ["5.1", "5.1.", "9999.1.1", "", "=?x?", "5.1.1" * 1000])
def test_a_hostile_status_is_an_unknown_one(status):
    data = f"Content-Type: multipart/x; boundary=B\n\n--B\nStatus: {status}\n\n--B--\n"
    found = bounce.detect(MailRequest("peer", "a@x", "b@x", data))
    assert found.primary_status in ((None, None), (5, "Permanent Failure"))
    assert found.error_for_humans()


def test_handlers_that_route_bounces_load_no_mail_parser():
    code = "import sys, maildefer.bounce; print('email' in sys.modules, 'flufl.bounce' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
