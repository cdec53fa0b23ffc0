"""docs/delivery.md tells each limit as the options of the front end do."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from maildefer.intake.options import FrontEndOptions, setting_names
from maildefer.intake.settings import DEFAULT_HTTP_PORT

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = (DOCS / "delivery.md").read_text()
LIMITS = [each for each in fields(FrontEndOptions) if "limit" in each.metadata]


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def row(name: str, default: object, text: str) -> str:
    shown = f"{default:g}" if isinstance(default, float) else str(default)
    return f"| `{name}` | {shown} | {text} |".replace("|  |", "| |")


def test_each_limit_is_told_with_its_default() -> None:
    told = [line for line in section("Limits").splitlines() if line.startswith("| `")]
    assert told == [row(each.name, each.default, each.metadata["help"]) for each in LIMITS]


def test_each_setting_of_the_front_end_is_told() -> None:
    pages = PAGE + (DOCS / "operating.md").read_text()
    assert [name for name in sorted(setting_names()) if f"`{name}`" not in pages] == []


def test_the_port_of_the_web_front_end_is_told() -> None:
    assert f"http://127.0.0.1:{DEFAULT_HTTP_PORT}" in PAGE


def test_each_limit_that_holds_by_http_is_named() -> None:
    by_http = [each.name for each in LIMITS if each.metadata["http"]]
    assert [name for name in by_http if f"`{name}`" not in section("HTTP")] == []
