"""A picture of ratios: a row for each peer, a dot at the median, a line from the least to the most, on one axis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

LEFT, RIGHT, WIDTH = 150, 24, 760
ROW, HEAD, TOP, FOOT = 18, 30, 44, 20
_STYLE = """
  text { font: 12px sans-serif; fill: #24292f }
  .head { font-weight: bold } .small { font-size: 11px } .end { text-anchor: end } .middle { text-anchor: middle }
  .grid { stroke: #d0d7de } .one { stroke: #57606a; stroke-width: 1.5 }
  .better { stroke: #0969da; fill: #0969da } .worse { stroke: #bc4c00; fill: #bc4c00 } .range { stroke-width: 3 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .grid { stroke: #30363d } .one { stroke: #8b949e }
    .better { stroke: #58a6ff; fill: #58a6ff } .worse { stroke: #f0883e; fill: #f0883e }
  }"""


def draw(groups: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> str:
    """An SVG with each group's peers: least, median and most, to the right of 1 where maildefer is better."""
    ratios = [value for peers in groups.values() for ratio in peers.values() for value in ratio]
    low = min(-1, math.floor(math.log10(min(ratios))))
    high = max(1, math.ceil(math.log10(max(ratios))))

    def across(value: float) -> float:
        return round(LEFT + (math.log10(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    parts, y = [], TOP
    for title, peers in groups.items():
        y += HEAD
        parts.append(_text("head", 8, y - 8, title))
        for name, (least, median, most) in peers.items():
            kind, middle = "better" if median >= 1 else "worse", y + ROW // 2
            parts += [
                _text("small end", LEFT - 10, middle + 4, name),
                _line(f"range {kind}", across(least), middle, across(most), middle),
                f'<circle class="{kind}" cx="{across(median)}" cy="{middle}" r="4.5"/>',
            ]
            y += ROW
    grid = []
    for power in range(low, high + 1):
        x = across(10.0**power)
        grid += [_line("grid" if power else "one", x, TOP, x, y + 4)]
        grid += [_text("small middle", x, TOP - 6, f"{10.0**power:g}")]
    grid += [_text("small end", across(1) - 12, 16, "← the peer is better")]
    grid += [_text("small", across(1) + 12, 16, "maildefer is better, times →")]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + FOOT}" role="img">'
    title = "<title>maildefer beside other queues</title>"
    return "\n".join([head, title, f"<style>{_STYLE}\n</style>", *grid, *parts, "</svg>\n"])


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(text)}</text>'


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'
