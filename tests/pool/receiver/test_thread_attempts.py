"""A receiver's threads: what they say of handlers whose limits only pools keep."""

from __future__ import annotations

from typing import Any

import pytest

from maildefer import events
from maildefer.handling.routes import RoutingBase
from maildefer.pool.receiver import thread_attempts
from maildefer.routing import concurrency, rate


def test_a_receiver_says_at_its_start_which_limits_it_does_not_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    router, told = RoutingBase(), list[dict[str, Any]]()

    def send(message: Any) -> None: ...

    send.__qualname__ = "send"
    router.register_route("one", rate("5/s")(concurrency(2)(send)))
    router.register_route("two", send)
    router.register_route("three", lambda message: None)
    monkeypatch.setattr(thread_attempts, "Router", router)
    monkeypatch.setattr(events, "emit", lambda event, **facts: told.append({"event": event, **facts}))
    thread_attempts.ThreadAttempts("run/queue", lambda claim: False, None)
    assert told == [
        {
            "event": "limit.unkept",
            "queue": "run/queue",
            "handler": f"{__name__}.send",
            "limit": "2 at a time; 5 in 1s",
        }
    ]
