"""Sets of cases that each start processes: one of them among the fast tests, the others among the slow ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest


def one_fast(
    names: str | Sequence[str],
    cases: Iterable[Any],
    *,
    ids: Callable[[Any], str] | Sequence[str] | None = None,
) -> pytest.MarkDecorator:
    """`pytest.mark.parametrize`, with all cases but the first marked `slow`."""
    several = not isinstance(names, str)
    marked = [
        pytest.param(*(case if several else (case,)), marks=[pytest.mark.slow] * (number > 0))
        for number, case in enumerate(cases)
    ]
    return pytest.mark.parametrize(names, marked, ids=ids)
