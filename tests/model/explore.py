"""The search: every state that steps lead to, breadth first, so that a counterexample is a shortest one."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)


class Violation(Exception):
    """A property does not hold in the step that is being made."""


class Step(NamedTuple):
    """One step: the state after it, what it was, in parts that are put together when it is told."""

    state: Hashable
    told: tuple[object, ...]
    is_fault: bool = False


class Model(Protocol[S]):
    @property
    def initial(self) -> S: ...

    def steps(self, state: S) -> Iterator[Step]:
        """Make each possible step. Raises Violation."""

    def is_over(self, state: S) -> bool:
        """Whether nothing more is to be seen from here on."""

    def is_end(self, state: S) -> bool:
        """Whether it is one of the ends of which one has to stay in reach, without further faults."""


@dataclass(frozen=True, slots=True)
class Result:
    states: int
    steps: int
    violation: str = ""
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        found = f"VIOLATION {self.violation}" if self.violation else "holds"
        return f"{found}; {self.states:,} states, {self.steps:,} steps"


def explore(model: Model[S], *, most: int = 2_000_000) -> Result:
    """Explore a model in full. Raises RuntimeError if it has more than so many states.

    Properties of safety are the steps' to raise. Liveness: from each state an end has to be in reach over steps that
    are no faults.
    """
    numbers: dict[S, int] = {model.initial: 0}
    reached: list[S] = [model.initial]
    parents, ends = array("l", [-1]), bytearray([0])
    sources, targets = array("l"), array("l")
    made = 0

    def trace(number: int) -> tuple[str, ...]:
        lines: list[str] = []
        while (parent := parents[number]) >= 0:
            steps = model.steps(reached[parent])
            step = next(step for step in steps if step.state == reached[number])
            lines.append(" ".join(map(str, step.told)))
            number = parent
        return tuple(reversed(lines))

    for number, state in enumerate(reached):  # which grows meanwhile
        ends[number] = model.is_end(state)
        if model.is_over(state):
            continue
        try:
            for step in model.steps(state):
                made += 1
                following: S = step.state  # type: ignore[assignment]
                known = numbers.setdefault(following, len(reached))
                if known == len(reached):
                    reached.append(following)
                    parents.append(number)
                    ends.append(0)
                if not step.is_fault and known != number:
                    sources.append(number)
                    targets.append(known)
        except Violation as violation:
            return Result(len(reached), made, str(violation), trace(number))
        if len(reached) > most:
            raise RuntimeError(f"more than {most:,} states")
    if (stuck := _first_without(ends, sources, targets)) is not None:
        return Result(len(reached), made, "L: no end is in reach without further faults", trace(stuck))
    return Result(len(reached), made)


def _first_without(ends: bytearray, sources: array[int], targets: array[int]) -> int | None:
    """Return the first state from which no end is in reach, by going back from the ends."""
    before: list[list[int]] = [[] for _ in ends]
    for source, target in zip(sources, targets, strict=True):
        before[target].append(source)
    todo = [number for number, is_end in enumerate(ends) if is_end]
    while todo:
        for source in before[todo.pop()]:
            if not ends[source]:
                ends[source] = 1
                todo.append(source)
    return next((number for number, is_in_reach in enumerate(ends) if not is_in_reach), None)
