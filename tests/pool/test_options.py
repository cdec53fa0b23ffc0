from __future__ import annotations

from typing import Any

import pytest

from maildefer.errors import ConfigurationError
from maildefer.handling.project.settings import PoolSettings
from maildefer.pool.options import PoolOptions
from maildefer.pool.probe import ProbeReport

SETTINGS: dict[str, Any] = {"project": "/", "module": "conf.settings", "queues": {}, "router_defaults": {}}


def settings(of_project: dict[str, Any], **options: int) -> PoolSettings:
    """What a pool of that project runs with, started with these options."""
    report = ProbeReport(settings=PoolSettings(**SETTINGS, **of_project), routes=(), files=(), reload=False)
    return PoolOptions(project="/", pidfile="", **options).settings(report)  # type: ignore[arg-type]


def test_the_command_line_comes_before_the_settings() -> None:
    found = settings({"workers": 3, "concurrency": 30})
    assert (found.workers, found.concurrency) == (3, 30)
    found = settings({"workers": 3, "concurrency": 30}, concurrency=70)
    assert (found.workers, found.concurrency) == (3, 70)
    assert settings({}).concurrency == 10


@pytest.mark.parametrize(("name", "number"), [("workers", 4097), ("concurrency", 1001)])
def test_more_than_any_host_has_use_for_is_refused(name: str, number: int) -> None:
    settings({name: number - 1})
    with pytest.raises(ConfigurationError, match=f"{name}={number}: at most {number - 1} "):
        settings({name: number})
