"""How long it takes to find an address's handlers among 10, 100 and 1,000 routes, beside trying each route in turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from benchmarks.figures import OURS, Figure, Limit, compare, interleave
from maildefer.handling import handler_marks
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.patterns import compiled, regex_text
from maildefer.handling.routes import RoutingBase

EACH = "each in turn"
ADDRESSES = 2_000
CAPTURES = {"op": "[a-z0-9]+", "user": "[a-z0-9.-]+", "host": "[a-z0-9.-]+"}
# The address of a route has a number of its own, since what an address matches is kept.
SHAPES: dict[str, tuple[Callable[[int], str], Callable[[int, int], str]]] = {
    "a list each": (lambda n: f"list{n}-(op)@(host)", lambda n, i: f"list{n}-subscribe{i}@lists.example.org"),
    "a domain each": (lambda n: rf"(user)@shop{n}\.example", lambda n, i: f"ann.smith{i}@shop{n}.example"),
}
# A thousand are to cost no more than ten times ten: linear would be a hundred times as much.
LIMIT = Limit(bound=10, at_most=True)


def measure(quick: bool) -> list[Figure]:
    """Microseconds an address, each time of another route."""
    rounds = 3 if quick else 9
    figures: list[Figure] = []
    for shape, (pattern, address) in SHAPES.items():
        ten: list[float] = []
        for number in (10, 100, 1_000):
            regexes = [regex_text(pattern(n), CAPTURES) for n in range(number)]
            asked = [address(n * 7 % number, n) for n in range(ADDRESSES)]
            contenders = {name: partial(_microseconds, find, asked) for name, find in _finds(regexes).items()}
            samples = interleave(contenders, rounds, note=print)
            figures += compare("routes", f"{number:,} routes, {shape}", samples, "µs", {})
            ten = ten or samples[OURS]
        growth = [mine / first for mine, first in zip(samples[OURS], ten, strict=True)]
        figures.append(
            Figure(
                benchmark="routes",
                case=f"1,000 routes, {shape}",
                name="beside 10",
                unit="times",
                samples=growth,
                limit=LIMIT,
            )
        )
    return figures


def _finds(regexes: list[str]) -> dict[str, Callable[[str], int]]:
    """Each tells how many functions an address has."""
    router = RoutingBase()
    for number, regex in enumerate(regexes):

        def handler(message: object, **captures: str) -> None:
            pass

        handler.__module__, handler.__name__ = "app", f"HANDLER{number}"
        handler_marks.mark_stateless(handler)
        router.register_route(regex, handler)
    dispatcher = Dispatcher(router)
    dispatcher.matches("")  # makes its table
    patterns = [compiled(regex) for regex in regexes]
    return {
        OURS: lambda address: len(dispatcher.matches(address)),
        EACH: lambda address: len([1 for pattern in patterns if pattern.match(address)]),
    }


def _microseconds(find: Callable[[str], int], addresses: list[str]) -> float:
    began = time.process_time_ns()
    for address in addresses:
        if find(address) != 1:
            raise RuntimeError(f"{address} has not one route")
    return (time.process_time_ns() - began) / 1000 / len(addresses)
