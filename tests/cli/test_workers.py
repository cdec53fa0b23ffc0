"""What `maildefer status` says of a worker."""

from __future__ import annotations

import pytest

from maildefer.cli.live.status_words import worker_row


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"state": "idle", "gathered": 0, "waits_for": None}, "idle"),
        ({"state": "idle", "gathered": 37, "waits_for": None}, "gathers 37"),
        ({"state": "idle", "gathered": 1, "waits_for": None}, "gathers 1"),
        ({"state": "busy", "gathered": 1, "waits_for": None}, "busy"),
        ({"state": "busy", "gathered": 2, "waits_for": None}, "gathers 2"),
        ({"state": "handling", "in_handlers": 37, "gathered": 37}, "handles 37"),
        ({"state": "handling", "gathered": 37, "waits_for": None}, "handling"),
        ({"state": "handling", "in_handlers": 37, "blocked_seconds": 75.0}, "blocked for 75 s"),
        ({"state": "handling", "gathered": 0, "waits_for": 4711}, "waits"),
    ],
)
def test_a_workers_state_is_told_in_a_word(facts: dict[str, object], said: str) -> None:
    assert worker_row(facts)[1] == said
