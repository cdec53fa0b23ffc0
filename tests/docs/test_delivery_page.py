"""docs/delivery.md tells each limit, with its default."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from maildefer.intake.http import options as web
from maildefer.intake.limits import Limits

PAGE = (Path(__file__).parent.parent.parent / "docs/delivery.md").read_text()


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_each_limit_is_told_with_its_default() -> None:
    told = dict(re.findall(r"^\| `([a-z_]+)` \| ([^|]*?) ?\|", section("Limits"), re.MULTILINE))
    known = {
        field.name: f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
        for field in fields(Limits)
    }
    assert told == known


def test_the_port_of_the_web_front_end_is_told() -> None:
    assert f"http://127.0.0.1:{web.DEFAULT_PORT}" in PAGE


def test_each_limit_that_holds_by_http_is_named() -> None:
    assert [name for name in web.LIMITS if f"`{name}`" not in section("HTTP")] == []
