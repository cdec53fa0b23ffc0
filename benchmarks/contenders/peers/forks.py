"""Worker processes for the peers that have no command for several: forked once all is imported."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def fork_workers(count: int, work: Callable[[], object]) -> None:
    """Runs `work` in `count` processes until all have ended; terminates them when it is terminated itself."""
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            work()
            os._exit(0)
        children.append(child)

    def end(signum: int, frame: object) -> None:
        for child in children:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    for child in children:
        os.waitpid(child, 0)
