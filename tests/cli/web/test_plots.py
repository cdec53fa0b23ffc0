from __future__ import annotations

import math
import re

from maildefer.cli.web.plots import plot


def test_a_plot_says_in_words_what_it_shows() -> None:
    svg = str(plot([1.0, 4.0, 2.0], 3600.0, "entries <waiting>"))
    assert 'aria-label="entries &lt;waiting&gt;, of the last 3.0 h: now 2, most 4"' in svg


def test_where_there_was_nothing_the_most_is_nothing() -> None:
    assert "now 0, most 0" in str(plot([0.0, 0.0], 60.0, "x"))


def test_a_gap_divides_the_line() -> None:
    svg = str(plot([1.0, math.nan, 2.0, 3.0], 60.0, "x"))
    assert len(re.findall("<polyline", svg)) == 2


def test_without_any_number_there_is_no_plot() -> None:
    assert plot([], 60.0, "x") == plot([math.nan] * 3, 60.0, "x") == ""
