"""`doctor` where it sets how many syncs a push takes."""

from __future__ import annotations

import os

import pytest

from maildefer.maildir import durable


def test_one_sync_for_a_push_is_chosen_and_given_up(
    maildefer, queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "keeps_order", lambda device: True)
    chosen = maildefer("doctor", queue.path, "--one-sync")
    assert (chosen.code, chosen.out) == (0, "")
    assert "takes one sync" in chosen.err
    pushed = maildefer("push", queue.path, stdin=b"Subject: x\n\nx\n")
    assert os.listdir(queue.new) == [pushed.out.strip()]
    given_up = maildefer("doctor", queue.path, "--two-syncs")
    assert (given_up.code, given_up.err) == (0, f"a push into {queue.path} takes two syncs\n")
    assert not os.path.exists(queue.synced)


def test_one_sync_is_refused_with_the_reason(maildefer, queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "keeps_order", lambda device: False)
    refused = maildefer("doctor", queue.path, "--one-sync")
    assert refused.code == 1
    assert "keep the order of changes" in refused.err
    assert maildefer("doctor", queue.path, "--one-sync", "--two-syncs").code == 2
    assert not os.path.exists(queue.synced)
