"""The pytest plugin: the fixture `maildefer_queue`. It imports nothing of the application until a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from maildefer.simulated_pool import SimulatedPool

__all__ = ["maildefer_queue"]


@pytest.fixture
def maildefer_queue() -> Iterator[SimulatedPool]:
    """The project's queues in the tests' store, handled in this process by a clock that the test advances."""
    from maildefer.simulated_pool import SimulatedPool  # its import makes the process a test process

    pool = SimulatedPool()
    with pool.installed():
        yield pool
