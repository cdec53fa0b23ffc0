"""The screens of `top`, as lines of a terminal. All text from entries and other hosts is untrusted, and cleaned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from maildefer.cli import output
from maildefer.cli.live.history import History
from maildefer.cli.live.letters import EntryPage, FolderPage
from maildefer.cli.live.overview import Overview
from maildefer.cli.live.watch import RATE

_BARS: Final = "▁▂▃▄▅▆▇█"
_SPARK: Final = 8
_MOST_PROBLEMS: Final = 3
_MOST_HANDLERS: Final = 5


@dataclass(slots=True, kw_only=True)
class View:
    """Where a reader is: in a list, the line that is chosen; in a text, the first that is shown."""

    title: str
    keys: str
    chosen: int = 0
    lines: list[Text] = field(default_factory=list)
    items: list[str] = field(default_factory=list)  # what each line stands for, where one can be chosen

    def move(self, by: int) -> None:
        self.chosen = max(0, min(self.chosen + by, len(self.lines) - 1))

    @property
    def item(self) -> str | None:
        return self.items[self.chosen] if self.chosen < len(self.items) else None


def rendered(parts: Sequence[RenderableType], width: int) -> list[str]:
    """The lines of what rich renders, none wider than the terminal."""
    console = Console(
        file=StringIO(), force_terminal=True, width=width, markup=False, highlight=False, emoji=False
    )
    with console.capture() as capture:
        for part in parts:
            console.print(part, no_wrap=True, overflow="ellipsis", crop=True)
    return capture.get().rstrip("\n").split("\n")


def overview_lines(view: View, seen: Overview, history: History, width: int, height: int) -> list[str]:
    """All at a glance, in as many lines as there are."""
    rates = [pool.rate for pool in seen.pools if pool.rate is not None]
    busy, workers = sum(pool.busy for pool in seen.pools), len(seen.workers)
    rate = f"{sum(rates):.1f}/s" if rates else "rate not known"
    head = f"{rate} {spark(history.means(seen.at, RATE))}  {busy} of {workers} workers busy"
    parts: list[RenderableType] = [_text(head, "bold"), *(_text(one, "red") for one in _problems(seen))]
    queues = _table("queue", "waiting", "lately", "rate", "oldest", "claimed", "deferred", "dead", "notes")
    for number, row in enumerate(seen.queues):
        counts = row.counts
        cells: list[object] = ["?", *[""] * 6]
        if counts is not None:
            oldest = output.duration(counts.oldest_seconds) if counts.oldest_seconds is not None else ""
            recent = spark(history.means(seen.at, f"waiting {row.path}"))
            speed = spark(history.means(seen.at, f"{RATE} {row.path}"))
            cells = [counts.waiting, recent, speed, oldest, counts.claimed, counts.deferred, counts.dead]
        style = "reverse" if number == view.chosen else ""
        _add(queues, [row.name, *cells, "; ".join(row.notes)], style)
    view.items = [row.path for row in seen.queues]
    view.lines = [Text()] * len(view.items)
    pools = _table("host", "process", "state", "rate", "busy")
    for pool in seen.pools:
        speed = f"{pool.rate:.1f}/s" if pool.rate is not None else ""
        share = f"{pool.busy} of {len(pool.workers)}" if pool.workers else ""
        _add(pools, [pool.host, f"{pool.kind} {pool.pid}", pool.state, speed, share])
    handlers = _table("handler", "workers", "longest", "attempts", "mean")
    for one in seen.handlers[:_MOST_HANDLERS]:
        mean = "" if one.mean_seconds is None else output.duration(one.mean_seconds)
        longest = output.duration(one.longest_seconds) if one.busy else ""
        _add(handlers, [one.handler, one.busy, longest, "" if one.attempts is None else one.attempts, mean])
    table = _table("worker", "host", "state", "for", "handled", "failed", "handler", "entry")
    for worker in sorted(seen.workers, key=lambda one: one.seconds or 0.0, reverse=True):
        seconds = output.duration(worker.seconds) if worker.seconds is not None else ""
        facts = [worker.pid, worker.host, worker.state, seconds, worker.handled, worker.failed]
        _add(table, [*facts, worker.handler, worker.entry])
    for one_table in (queues, pools, handlers, table):
        if one_table.row_count:
            parts += [Text(), one_table]
    return rendered(parts, width)[: height - 1]


def list_view(name: str, folder: str, found: FolderPage) -> View:
    """The entries of a folder, to choose one from."""
    view = View(
        title=f"{name}: {folder}, {found.of}", keys="enter: show it  d, w, l: dead, waiting, later  esc: back"
    )
    for text, number, _ in found.reasons[:_MOST_PROBLEMS]:
        view.title += f"; {number} × {text}"
    for line in found.lines:
        view.lines.append(_text(f"{line.age:>7}  {line.people}  {line.note}"))
        view.items.append(line.key)
    return view


def entry_view(key: str, found: EntryPage) -> View:
    """One entry, with the commands for it."""
    view = View(title=key, keys="esc: back")
    view.lines += [_text(line, "bold") for line in found.commands] + [Text()]
    view.lines += [_text(f"{word}: {one}") for word, value in found.facts for one in value.split("\n")]
    view.lines += [Text(), *map(_text, found.text.split("\n"))]
    if found.left_out_bytes:
        view.lines.append(_text(f"{output.size(found.left_out_bytes)} more are not shown", "dim"))
    return view


def view_lines(view: View, width: int, height: int) -> list[str]:
    """The part of a view that fits, with the chosen line in it."""
    room = max(1, height - 2)
    first = max(0, view.chosen - room + 1) if view.items else view.chosen
    shown = view.lines[first : first + room] or [_text("nothing here", "dim")]
    if view.items:
        shown = [line.copy() for line in shown]
        shown[view.chosen - first].stylize("reverse")
    return rendered([_text(view.title, "bold"), *shown], width)


def footer(text: str, width: int) -> str:
    return rendered([_text(text, "reverse")], width)[0]


def spark(means: Sequence[float]) -> str:
    """The last numbers as bars; a space where there is none."""
    recent = list(means[-_SPARK:])
    top = max((mean for mean in recent if not math.isnan(mean)), default=0.0)
    return "".join(" " if math.isnan(mean) else _BARS[round(7 * mean / top) if top else 0] for mean in recent)


def _problems(seen: Overview) -> list[str]:
    more = len(seen.problems) - _MOST_PROBLEMS
    return [*seen.problems[:_MOST_PROBLEMS], *([f"and {more} more: `maildefer status`"] if more > 0 else [])]


def _table(*head: str) -> Table:
    """A table whose last column is cut first where there is too little room."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for word in head:
        table.add_column(word, no_wrap=word != head[-1], overflow="ellipsis")
    return table


def _add(table: Table, cells: Sequence[Any], style: str = "") -> None:
    table.add_row(*map(_text, cells), style=style)


def _text(value: object, style: str = "") -> Text:
    return Text(output.clean(value), style=style, no_wrap=True, overflow="ellipsis")
