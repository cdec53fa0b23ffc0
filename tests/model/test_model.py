"""The models in the test run, and that the search sees what it has to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import SECTION
from tests.model.__main__ import explored
from tests.model.explore import Step, Violation, explore


@pytest.mark.slow
def test_the_protocol_holds_and_each_planted_weakness_is_found(record_property: object) -> None:
    found = list(explored(processes=1))
    assert callable(record_property)
    record_property(SECTION, "models\n" + "\n".join(f"{what}: {result}" for what, result, _ in found))
    assert [(what, str(result), *result.trace) for what, result, is_right in found if not is_right] == []


class Counter:
    """From 0 on by one, or by a fault of two; `bad` must not be reached; from `stuck` nothing goes on."""

    initial = 0

    def __init__(self, *, bad: int = -1, stuck: int = -1) -> None:
        self._bad, self._stuck = bad, stuck

    def is_over(self, state: int) -> bool:
        return state in (self._stuck, 9)

    def is_end(self, state: int) -> bool:
        return state == 9

    def steps(self, state: int) -> Iterator[Step]:
        for size, is_fault in ((1, False), (2, True)):
            if state + size == self._bad:
                raise Violation("bad")
            goes_round = state + size == self._stuck and not is_fault
            yield Step(9 if goes_round else min(state + size, 9), ("adds", size), is_fault)


def test_a_search_sees_every_state() -> None:
    result = explore(Counter())
    assert (result.states, result.violation) == (10, "")


def test_a_violation_is_told_by_the_shortest_way_to_it() -> None:
    result = explore(Counter(bad=5))
    assert (result.violation, result.trace) == ("bad", ("adds 1", "adds 2"))


def test_a_state_from_which_no_end_is_in_reach_is_found() -> None:
    result = explore(Counter(stuck=6))
    assert result.violation.startswith("L:")
    assert result.trace == ("adds 2", "adds 2", "adds 2")


def test_a_model_of_too_many_states_is_not_taken_for_explored() -> None:
    with pytest.raises(RuntimeError, match="more than 5"):
        explore(Counter(), most=5)
