"""Numbers over the last hours, in memory of a fixed size."""

from __future__ import annotations

import math
from array import array
from collections import OrderedDict
from typing import Final

MOST_SERIES: Final = 64
_BRIDGED_SECONDS: Final = 20.0  # without a number; after longer, there is a gap


class Series:
    """The mean of a number in each of the last `length` steps; NaN where nothing was noted."""

    def __init__(self, step_seconds: float, length: int) -> None:
        self.step_seconds = step_seconds
        self._means = array("f", [math.nan]) * length
        self._step = -1  # of the newest mean
        self._noted, self._sum, self._count = 0.0, 0.0, 0  # when, and what it is the mean of

    def note(self, now: float, value: float) -> None:
        """Note the number at a time, which is never earlier than that of another call."""
        step = int(now / self.step_seconds)
        if step > self._step:
            bridges = self._count and now - self._noted <= _BRIDGED_SECONDS
            between = self._means[self._step % len(self._means)] if bridges else math.nan
            for missed in range(max(self._step + 1, step - len(self._means) + 1), step):
                self._means[missed % len(self._means)] = between
            self._step, self._sum, self._count = step, 0.0, 0
        self._noted, self._sum, self._count = now, self._sum + value, self._count + 1
        self._means[self._step % len(self._means)] = self._sum / self._count

    def means(self, now: float) -> list[float]:
        """The means up to now, the oldest first."""
        length, last = len(self._means), int(now / self.step_seconds)
        return [
            self._means[step % length] if self._step - length < step <= self._step else math.nan
            for step in range(last - length + 1, last + 1)
        ]


class History:
    """Series by name; of more than MOST_SERIES, those that were noted last."""

    def __init__(self, *, step_seconds: float, length: int) -> None:
        self.step_seconds = step_seconds
        self.length = length
        self._series: OrderedDict[str, Series] = OrderedDict()

    def note(self, now: float, name: str, value: float) -> None:
        if name not in self._series:
            self._series[name] = Series(self.step_seconds, self.length)
        self._series.move_to_end(name)
        self._series[name].note(now, value)
        if len(self._series) > MOST_SERIES:
            self._series.popitem(last=False)

    def means(self, now: float, name: str) -> list[float]:
        """The means of a series up to now; empty for one that is not known."""
        return self._series[name].means(now) if name in self._series else []
