from __future__ import annotations

from collections.abc import Callable

import pytest

from maildefer.handling.outcomes import ACKED, Deferred, Outcome
from maildefer.pool.worker.bisect import bisect

FAILED = Deferred("it broke", error="RuntimeError: it broke", detail="Traceback", module="workers.index")
SHARED = Deferred("it broke")


class Handler:
    """Fails on every list in which one of `bad` is; counts its calls."""

    def __init__(self, bad: set[int]) -> None:
        self.bad = bad
        self.calls: list[list[int]] = []

    def __call__(self, items: list[int]) -> list[Outcome] | Deferred:
        self.calls.append(items)
        return FAILED if self.bad & set(items) else [ACKED] * len(items)


def sifted(
    handler: Handler, count: int, choose: Callable[[int], int] = lambda count: count - 1
) -> dict[int, Outcome]:
    found: dict[int, Outcome] = {}
    for items, outcomes in bisect(list(range(count)), handler, choose=choose):
        assert not found.keys() & set(items), "no item comes twice"
        found.update(zip(items, outcomes, strict=True))
    assert sorted(found) == list(range(count)), "none is forgotten"
    return found


def test_a_batch_that_succeeds_is_called_once() -> None:
    handler = Handler(set())
    assert set(sifted(handler, 500).values()) == {ACKED}
    assert len(handler.calls) == 1


def test_outcomes_are_each_items_own() -> None:
    said: list[Outcome] = [ACKED, Deferred("later"), ACKED]
    assert list(bisect([1, 2, 3], lambda items: said)) == [([1, 2, 3], said)]


@pytest.mark.parametrize("bad", [{0}, {299}, {499}])
def test_one_bad_item_of_500_is_found_in_19_calls_and_its_failure_is_its_own(bad: set[int]) -> None:
    handler = Handler(bad)
    found = sifted(handler, 500)
    assert {item for item, outcome in found.items() if outcome == FAILED} == bad
    assert all(outcome is ACKED for item, outcome in found.items() if item not in bad)
    assert len(handler.calls) <= 19


@pytest.mark.parametrize("bad", [{3, 4}, {3, 4, 5, 6}, {0, 1, 499}])
def test_bad_items_beside_each_other_are_no_general_failure(bad: set[int]) -> None:
    handler = Handler(bad)
    found = sifted(handler, 500, choose=lambda count: count // 2)
    assert {item for item, outcome in found.items() if outcome is not ACKED} == bad
    assert len(handler.calls) < 60


def test_a_failure_on_everything_ends_the_search_and_is_no_attempt_of_those_not_tried_alone() -> None:
    handler = Handler(set(range(500)))
    found = sifted(handler, 500)
    assert len(handler.calls) == 12
    assert [outcome for outcome in found.values() if outcome == FAILED] == [FAILED] * 3
    assert [outcome for outcome in found.values() if outcome == SHARED] == [SHARED] * 497


def test_every_item_can_be_the_one_that_is_tried_in_doubt() -> None:
    for chosen in range(30):
        handler = Handler({0, 1})
        found = sifted(handler, 32, choose=lambda count, chosen=chosen: chosen)  # type: ignore[misc]
        assert {item for item, outcome in found.items() if outcome is not ACKED} == {0, 1}
        assert [chosen + 2] in handler.calls


def test_without_time_nothing_more_is_called() -> None:
    handler = Handler({7})
    [(items, outcomes)] = bisect(list(range(9)), handler, lambda: False)
    assert (items, outcomes) == (list(range(9)), [SHARED] * 9)
    assert len(handler.calls) == 1


def test_when_time_ends_in_the_search_the_rest_is_deferred() -> None:
    handler = Handler({0})
    ended = list(bisect(list(range(8)), handler, lambda: len(handler.calls) < 2))
    assert ended == [([0, 1, 2, 3], [SHARED] * 4), ([4, 5, 6, 7], [SHARED] * 4)]
    assert len(handler.calls) == 2
