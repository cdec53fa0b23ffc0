"""Rolling a pool over to new code: one worker more, and when it is ready, one old worker less, until all are new."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from maildefer.maildir.system import boottime
from maildefer.pool.workforce import Workforce

_LOOK_SECONDS = 1.0


class Roll:
    """One roll under way."""

    def __init__(self, generation: int) -> None:
        self._generation = generation

    def step(self, workforce: Workforce, fork: Callable[[], bool], wanted: int) -> bool:
        """Do what can be done now; True when only new workers are left."""
        staying = workforce.staying()
        old = [child for child in staying if child.generation < self._generation]
        new = [child for child in staying if child.generation >= self._generation]
        starting = [child for child in new if not workforce.is_ready(child)]
        if not old and len(new) >= wanted:
            return True
        if starting or workforce.throttle.wait(boottime()):
            return False
        if old and len(staying) > wanted:
            workforce.retire(old[0], "retired")
        else:
            fork()
        return False


class FileWatch:
    """With `Router.RELOAD`, a look at the application's source files once a second; without, none at all."""

    def __init__(self, probed: Mapping[str, Any]) -> None:
        self._files: list[str] = list(probed.get("files") or ()) if probed.get("reload") else []
        self._times = self._look()
        self._next = boottime() + _LOOK_SECONDS

    def changed(self) -> bool:
        if not self._files or boottime() < self._next:
            return False
        self._next = boottime() + _LOOK_SECONDS
        before, self._times = self._times, self._look()
        return before != self._times

    def _look(self) -> list[float]:
        return [self._time(path) for path in self._files]

    @staticmethod
    def _time(path: str) -> float:
        try:
            return os.stat(path).st_mtime
        except OSError:  # being replaced by an editor
            return 0.0
