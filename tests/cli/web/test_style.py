from __future__ import annotations

import re
from pathlib import Path

import pytest

import maildefer.cli.web as package

STYLE = (Path(package.__file__).parent / "files/style.css").read_text()
PAIRS = (("text", "back"), ("soft", "back"), ("link", "back"), ("bad", "back"), ("bad", "badback"))
MORE = (("text", "badback"), ("text", "code"), ("link", "code"))


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize(("front", "back"), PAIRS + MORE)
def test_text_differs_enough_from_what_is_behind_it_in_light_and_dark(
    scheme: int, front: str, back: str
) -> None:
    colours = dict(
        re.findall(r"--(\w+): (#[0-9a-f]{6});", re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[scheme])
    )
    light, dark = sorted((luminance(colours[front]), luminance(colours[back])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5, (front, back)


def test_nothing_is_loaded_from_elsewhere() -> None:
    for path in Path(package.__file__).parent.glob("files/*"):
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|url\(|@import|//\w+\.", text), path.name
        assert not re.search(r"<script>|<style|\sstyle=|\son\w+=", text), path.name
