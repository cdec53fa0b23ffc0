from __future__ import annotations

import resource

import pytest

from maildefer.host.linux.rlimits import allow_descriptors


class Limits:
    """A process's, in place of the kernel's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> None:
        self.now = (soft, hard)
        monkeypatch.setattr(resource, "getrlimit", lambda what: self.now)
        monkeypatch.setattr(resource, "setrlimit", self._set)

    def _set(self, what: int, limits: tuple[int, int]) -> None:
        assert what == resource.RLIMIT_NOFILE
        self.now = limits


@pytest.mark.parametrize(
    ("soft", "hard", "asked", "allowed", "after"),
    [
        (1024, 4096, 700, 700, 1024),
        (1024, 4096, 3000, 3000, 3000),
        (1024, 4096, 9000, 4096, 4096),
        (1024, 1024, 9000, 1024, 1024),
        (1024, resource.RLIM_INFINITY, 9000, 9000, 9000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 9000, 9000, resource.RLIM_INFINITY),
    ],
)
def test_the_soft_limit_is_raised_as_far_as_needed_and_as_the_hard_one_lets_us(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, asked: int, allowed: int, after: int
) -> None:
    limits = Limits(monkeypatch, soft, hard)
    assert allow_descriptors(asked) == allowed
    assert limits.now == (after, hard)
