"""A failing schedule made small, and told in a page."""

from __future__ import annotations

import re

from tests.simulation.faults import simpler
from tests.simulation.schedule import Result, run

_LINES = 60
_KEY = re.compile(r"[0-9]{8,12}\.M[0-9]+P[0-9]+Q[0-9]+R[0-9a-f]+\.[a-z]-0{5}[0-9],S=[0-9]+")
_LEASE = re.compile(r"[a-z]-0{5}[0-9]-[0-9]+-[0-9a-f]+")


def shrink(result: Result) -> Result:
    """Take away one trouble after the other, as long as the same invariant fails."""
    kind = result.failure.partition(":")[0]
    again = True
    while again:
        again = False
        for fault_rates in simpler(result.fault_rates):
            smaller = run(result.seed, fault_rates)
            if smaller.failure.partition(":")[0] == kind:
                result, again = smaller, True
                break
    return result


def history(result: Result) -> str:
    """The last events that tell of the keys and leases in the failure, under short names."""
    wanted = {*_KEY.findall(result.failure), *_LEASE.findall(result.failure)}
    names: dict[str, str] = {}

    def named(text: str) -> str:
        for pattern, prefix in ((_KEY, "K"), (_LEASE, "L")):
            text = pattern.sub(lambda found: names.setdefault(found[0], f"{prefix}{len(names)}"), text)  # noqa: B023
        return text

    lines = []
    for when, who, what in result.trace:
        text = str(what)
        told = not wanted or any(name in text for name in wanted)
        if (
            told
            or who in ("server", "power")
            or any(word in text for word in ("dies", "frozen", "partitioned"))
        ):
            lines.append(f"{when:9.3f}  {who:<18} {named(text)}")
    return "\n".join([*lines[-_LINES:], f"           {named(result.failure)}"])
