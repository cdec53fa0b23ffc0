"""`python -m benchmarks.peers`: the table and the picture of docs/performance.md, from the newest figures kept.

A ratio says how many times better maildefer's figure is than a peer's in the same round: below 1 the peer's is better.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Mapping
from typing import NamedTuple

from benchmarks.figures import OURS
from benchmarks.peers.contenders import PEERS
from benchmarks.peers.picture import draw
from benchmarks.peers.run import (
    BENCHMARK,
    CPU,
    DRAIN,
    ENQUEUE,
    KILLED,
    MEMORY,
    NEVER,
    RELAXED,
    TWICE,
    UNSYNCED,
    WAKE,
)
from benchmarks.places import RESULTS, ROOT

PAGE, PICTURE = ROOT / "docs/performance.md", ROOT / "docs/images/peers.svg"
COLUMNS = {
    ENQUEUE: "durable enqueue",
    RELAXED[ENQUEUE]: "enqueue, Redis syncing each second",
    UNSYNCED: "enqueue, never synced",
    DRAIN: "drain",
    RELAXED[DRAIN]: "drain, Redis syncing each second",
    WAKE: "wake-up",
    MEMORY: "idle memory",
    CPU: "idle processor time",
}
_BLOCK = re.compile(r"(?<=<!-- peers -->\n).*?(?=<!-- /peers -->)", re.DOTALL)

Samples = dict[tuple[str, str], list[float]]  # of a case and a peer


class Ratio(NamedTuple):
    least: float
    median: float
    most: float

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.least)}–{_short(self.most)})"


def _short(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"


def newest() -> Samples:
    """The samples that were kept last."""
    lines = (RESULTS / f"{BENCHMARK}.jsonl").read_text().splitlines()
    return {(kept["case"], kept["name"]): kept["samples"] for kept in map(json.loads, lines)}


def ratios(samples: Samples) -> dict[str, dict[str, Ratio]]:
    """Of each case, of each peer that has it."""
    found: dict[str, dict[str, Ratio]] = {}
    for case in COLUMNS:
        ours = samples.get((case, OURS), [])
        for peer in PEERS[1:]:
            if theirs := samples.get((case, peer.name)):
                pairs = list(zip(ours, theirs, strict=True))
                is_rate = case.startswith((ENQUEUE, DRAIN))
                better = [mine / other if is_rate else other / mine for mine, other in pairs]
                ratio = Ratio(min(better), statistics.median(better), max(better))
                found.setdefault(case, {})[peer.name] = ratio
    return found


def table(samples: Samples, found: Mapping[str, Mapping[str, Ratio]]) -> str:
    """Two tables: the ratios, and what was lost."""
    names = [peer.name for peer in PEERS]
    lines = [_row("", *names[1:]), _row(*["---"] * len(names))]
    lines += [
        _row(title, *(str(found[case].get(name, "")) for name in names[1:]))
        for case, title in COLUMNS.items()
        if case in found
    ]
    lines += ["", _row("", *names), _row(*["---"] * (len(names) + 1))]
    for killed in KILLED.values():
        for what in (NEVER, TWICE):
            case = f"{killed}: {what}"
            lines.append(_row(case, *(_counts(samples.get((case, name), [])) for name in names)))
    return "\n".join(lines) + "\n"


def _counts(samples: list[float]) -> str:
    return ", ".join(f"{count:.0f}" for count in samples)


def _row(*cells: str) -> str:
    return f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in cells)}|"


def main() -> int:
    samples = newest()
    found = ratios(samples)
    text = PAGE.read_text()
    if not _BLOCK.search(text):
        print(f"{PAGE} has no place for the table")
        return 1
    PAGE.write_text(_BLOCK.sub(lambda match: table(samples, found), text))
    PICTURE.write_text(draw({COLUMNS[case]: by_peer for case, by_peer in found.items()}))
    print(f"written: the table in {PAGE}, and {PICTURE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
