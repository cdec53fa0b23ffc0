"""The soak of `make soak`, short; and that its rule sees what it is to see."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.soak import MIX, SAMPLES, Series, Soak, bars


def series(memory: list[float], descriptors: list[float] | None = None) -> list[str]:
    return Series("worker 1", memory, descriptors or [20.0] * len(memory)).faults()


def test_memory_that_settles_after_the_first_quarter_is_flat() -> None:
    assert series([5e6 + n * 1e5 for n in range(60)] + [11e6] * 180) == []


def test_memory_that_goes_on_growing_is_not_flat() -> None:
    [found] = series([10e6 + n * 2e4 for n in range(240)])
    assert "memory grew" in found


def test_a_peak_is_no_growth() -> None:
    assert series([10e6] * 230 + [90e6] * 10) == []


def test_a_descriptor_more_is_none_and_two_are_a_leak() -> None:
    flat = [10e6] * 240
    assert series(flat, [20.0] * 120 + [21.0] * 120) == []
    [found] = series(flat, [20.0] * 120 + [22.0] * 120)
    assert "descriptors grew" in found


def test_a_process_that_was_not_there_is_no_flat_one() -> None:
    assert series([]) == ["worker 1: too few samples"]


def test_a_plot_goes_from_the_least_to_the_most() -> None:
    assert bars([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) == "▁▂▃▄▅▆▇█"
    assert len(bars([float(n) for n in range(240)])) == 60
    assert set(bars([3.0] * 240)) == {"▁"}


@pytest.mark.lifecycle
@pytest.mark.slow
def test_a_mixed_load_for_a_few_seconds_loses_nothing_and_every_process_is_plotted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is flat can't be told in so short a time."""
    monkeypatch.delitem(MIX, "fail")  # which is tried again after a minute
    soak = Soak(tmp_path, seconds=8, rate=40, workers=2)
    try:
        faults = soak.run()
    finally:
        soak.end()
    assert [fault for fault in faults if "grew" not in fault] == []
    plots = soak.plots()
    for name in ("supervisor", "keeper", "scout", "worker 1", "worker 2", "intake 1", "intake 2"):
        assert f"  {name} " in plots
    assert len(soak.samples("supervisor")) == SAMPLES
