"""The alert rules: promtool takes them, each is tried on made-up series, and the manual says what to do about each."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.front_end import ROOT

RULES = ROOT / "conf" / "deploy" / "alerts.yml"
SERIES = Path(__file__).with_name("alerts_test.yml")
ALERTS = re.findall(r"alert: (\w+)", RULES.read_text())

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed: .ci/setup test"
)


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_the_rules_are_rules() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", RULES)


@needs_promtool
def test_each_rule_says_what_it_is_to_say_of_made_up_series(tmp_path: Path) -> None:
    for file in (RULES, SERIES):
        shutil.copy(file, tmp_path)
    assert "SUCCESS" in promtool("test", "rules", tmp_path / SERIES.name)


def test_each_rule_is_tried() -> None:
    assert set(re.findall(r"alertname: (\w+)", SERIES.read_text())) == set(ALERTS)


def test_each_rule_is_in_the_manual_with_what_to_do() -> None:
    manual = (ROOT / "docs" / "monitoring.md").read_text()
    assert re.findall(r"^### (Maildefer\w+)", manual, re.MULTILINE) == ALERTS
    anchors = re.findall(r"runbook: \"docs/monitoring.md#(\w+)\"", RULES.read_text())
    assert anchors == [name.lower() for name in ALERTS]


def test_each_metric_of_a_rule_is_one_of_ours() -> None:
    manual = set(
        re.findall(r"^\| `(maildefer_\w+)", (ROOT / "docs" / "monitoring.md").read_text(), re.MULTILINE)
    )
    used = set(re.findall(r"maildefer_\w+", RULES.read_text()))
    assert used <= manual
