"""Decides when a deferred message is tried again, and when it is buried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from maildefer.backoff import backoff_seconds
from maildefer.handling.handler_marks import RetryTerms
from maildefer.handling.outcomes import Deferred


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Delays that double, with jitter, until a number of failures or an age is reached. Plain arithmetic, no clock.

    A failure is an attempt that ended in an exception or with the worker's death. Only failures count towards
    `max_attempts`; what a handler deferred itself does not.

    The jitter spreads messages that failed together, say because a database was down, by `jitter` of the delay to
    both sides.
    """

    max_attempts: int = 20  # that failed
    lifetime_seconds: float = 5 * 86400
    min_attempts: int = 5  # an entry that waited out its lifetime in a stopped pool still gets its tries
    first_seconds: float = 60
    cap_seconds: float = 4 * 3600
    jitter: float = 0.1

    def under(self, terms: RetryTerms | None) -> RetryPolicy:
        """The policy for the failures of a handler whose `@retry` says so."""
        if terms is None:
            return self
        return replace(self, **{name: value for name, value in terms._asdict().items() if value is not None})

    def next(self, failures: int, age_seconds: float, random: Callable[[], float]) -> float | None:
        """Seconds until the next try after so many failures, the last one included, or None: give up and bury.

        `random` gives numbers from 0 to 1, as `random.random` does.
        """
        if failures >= self.max_attempts or self._too_old(failures, age_seconds):
            return None
        return self._backoff(failures, random)

    def delay(
        self,
        outcome: Deferred,
        attempt: int,
        failures: int,
        age_seconds: float,
        random: Callable[[], float],
        now: float = 0.0,
    ) -> float | None:
        """Seconds until the next try after `outcome` of that attempt (1 is the first), or None: give up and bury.

        Where the handler says when to try again, neither number nor age ends it, only its `until`: what is to be sent
        in a week must not be buried before. Where it gives no time, the lifetime ends it; an exception is limited in
        number, too. `now` is the time to which the outcome's `at` and `until` are compared.
        """
        if outcome.error is not None:
            return self.next(failures, age_seconds, random)
        left = None if outcome.until is None else outcome.until - now
        asked = outcome.after_seconds if outcome.at is None else max(0.0, outcome.at - now)
        if left is None:
            if asked is None and self._too_old(attempt, age_seconds):
                return None
        elif left <= 0:
            return None
        wait = self._backoff(attempt, random) if asked is None else asked
        return wait if left is None else min(wait, left)

    def _too_old(self, tries: int, age_seconds: float) -> bool:
        return age_seconds >= self.lifetime_seconds and tries >= self.min_attempts

    def _backoff(self, tries: int, random: Callable[[], float]) -> float:
        base = backoff_seconds(
            max(tries, 1) - 1, first_seconds=self.first_seconds, longest_seconds=self.cap_seconds
        )
        return base * (1 + self.jitter * (2 * random() - 1))


def given_up(attempts: int, failures: int | None) -> str:
    """Say after how many attempts a message is given up, and how many of them failed, if that is another number."""
    some = f", {failures} of which failed" if failures is not None and failures < attempts else ""
    return f"given up after {attempts} attempt{'s' if attempts > 1 else ''}{some}"
