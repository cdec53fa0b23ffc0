"""The benchmark of other queues: that it measures what it says, and leaves out what is not installed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import filesystem
from benchmarks.figures import OURS
from benchmarks.peers import __main__ as page
from benchmarks.peers import contenders
from benchmarks.peers.measurements import Scale
from benchmarks.peers.picture import draw
from benchmarks.peers.run import (
    DRAIN,
    ENQUEUE,
    KILLED,
    MEMORY,
    NEVER,
    TWICE,
    UNSYNCED,
    WAKE,
    measure_peers,
)

SMALL = Scale(rounds=1, turns=1, drained_share=20, wakes=2, idle_seconds=0.2, killed=40, kills=1)
PEERS = {peer.module: peer for peer in contenders.PEERS}


@pytest.mark.slow
@pytest.mark.lifecycle
def test_a_pool_and_peers_without_a_server_run_all_jobs_and_lose_none_by_a_kill() -> None:
    with filesystem.tmpfs() as base:
        figures = measure_peers(base, SMALL, [PEERS["maildefer"], PEERS["dirq"], PEERS["huey"]])
        assert os.listdir(base) == []
    found = {(figure.case, figure.name): figure.samples for figure in figures}
    for case in (DRAIN, WAKE, MEMORY):
        assert found[case, OURS] > [0]
        assert found[case, "dirq"] > [0]
    assert found[ENQUEUE, OURS] > [0]
    assert found[UNSYNCED, "dirq"] > [0]
    killed = KILLED[False]
    assert found[f"{killed}: {NEVER}", OURS] == found[f"{killed}: {NEVER}", "dirq"] == [0]
    assert (f"{killed}: {TWICE}", OURS) in found


def test_peers_that_are_not_installed_are_left_out_and_it_is_said_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(contenders, "STAMP", tmp_path / "none")
    assert measure_peers(str(tmp_path), SMALL, [PEERS["huey"], PEERS["celery"]]) == []
    assert capsys.readouterr().out.splitlines() == [
        f"  {name} skipped: it is not installed: .ci/setup peers says why"
        for name in ("Huey, SQLite", "Celery, Redis")
    ]


def test_the_servers_of_peers_are_asked_for_by_their_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stamp").touch()
    monkeypatch.setattr(contenders, "STAMP", tmp_path / "stamp")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert measure_peers(str(tmp_path), SMALL, [PEERS["rq"]]) == []
    assert (
        "RQ skipped: redis-server is missing: as root, apt-get install redis-server"
        in capsys.readouterr().out
    )


def test_a_ratio_says_how_many_times_better_the_pool_is_round_by_round() -> None:
    samples = {
        (ENQUEUE, OURS): [100.0, 300.0, 100.0],
        (ENQUEUE, "RQ"): [50.0, 600.0, 100.0],
        (WAKE, OURS): [2.0, 2.0, 1.0],
        (WAKE, "RQ"): [20.0, 10.0, 0.5],
    }
    assert page.ratios(samples) == {
        ENQUEUE: {"RQ": page.Ratio(0.5, 1.0, 2.0)},
        WAKE: {"RQ": page.Ratio(0.5, 5.0, 10.0)},
    }


def test_the_newest_figures_make_the_table_and_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = f"{KILLED[False]}: {NEVER}"
    kept = [(ENQUEUE, OURS, [9.0]), (ENQUEUE, OURS, [100.0]), (ENQUEUE, "RQ", [50.0]), (lost, "RQ", [3.0])]
    lines = [json.dumps({"case": case, "name": name, "samples": samples}) for case, name, samples in kept]
    (tmp_path / "peers.jsonl").write_text("\n".join(lines))
    (tmp_path / "page.md").write_text("Before.\n<!-- peers -->\nold\n<!-- /peers -->\nAfter.\n")
    for name, path in (
        ("RESULTS", tmp_path),
        ("PAGE", tmp_path / "page.md"),
        ("PICTURE", tmp_path / "peers.svg"),
    ):
        monkeypatch.setattr(page, name, path)
    assert page.main() == 0
    text = (tmp_path / "page.md").read_text()
    assert text.startswith("Before.\n<!-- peers -->\n| |")
    assert text.endswith("|\n<!-- /peers -->\nAfter.\n")
    assert "| durable enqueue | | | | 2 (2–2) | | |" in text
    assert "old" not in text
    assert "| workers killed: never run | | | | | 3 | | |" in text
    ElementTree.parse(tmp_path / "peers.svg")


def test_the_picture_has_a_dot_for_each_peer_on_the_side_of_the_better_one() -> None:
    drawn = ElementTree.fromstring(draw({"drain": {"a": (2, 3, 4), "b<": (0.5, 0.6, 2)}}))
    dots = [part for part in drawn if part.tag.endswith("circle")]
    one = next(part for part in drawn if part.get("class") == "one")
    left, right = (float(dot.get("cx", "")) for dot in reversed(dots))
    assert left < float(one.get("x1", "")) < right
    assert [dot.get("class") for dot in dots] == ["better", "worse"]
