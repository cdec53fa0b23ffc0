"""The markers of one queue, on filesystems of both kinds, and a process that dies at a chosen call."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from maildefer.maildir import durable
from maildefer.maildir.layout import Layout
from maildefer.maildir.markers.markers import Markers
from tests.support.queues import LABEL, TRACKED, World


class Killed(BaseException):
    """What a process that was killed does from then on: nothing."""


@pytest.fixture(autouse=True, params=[False, True], ids=["each folder synced", "order kept"])
def order_kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the filesystem is one that keeps the order of changes."""
    monkeypatch.setattr(durable, "keeps_order", lambda device: request.param)
    return bool(request.param)


@pytest.fixture
def markers(layout: Layout, world: World) -> Markers:
    return Markers(layout, host=LABEL, system=world.system)


def die_at(world: World, number: int) -> None:
    """Let the process that uses this world be killed before its call of that number, counted from here on."""
    asked = len(world.calls)

    def die() -> None:
        if len(world.calls) - asked >= number:
            world.close_all()
            raise Killed

    for what in TRACKED:
        world.before(what, die, times=10_000)


def refuse_call(world: World, number: int, fault: int) -> None:
    """Let the call of that number fail, counted from the first."""

    def refuse() -> None:
        if len(world.calls) == number:
            raise OSError(fault, os.strerror(fault))

    for what in TRACKED:
        if what != "close":
            world.before(what, refuse, times=10_000)


def survives(call: Callable[[], object]) -> bool:
    """Whether the process is still there after that call."""
    try:
        call()
    except Killed:
        return False
    return True
