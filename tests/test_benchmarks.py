"""The benchmarks' own arithmetic, and that a contender does the work it is timed for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import handler, outputs, parsing, routes
from benchmarks.contenders import drain_loop
from benchmarks.drain import maildir_empty
from benchmarks.figures import OURS, Figure, Limit, compare, interleave
from benchmarks.filler import ENTRY_BYTES, RECIPIENT, entry_bytes, fill, make_maildir
from benchmarks.gate import Gated
from benchmarks.native import compiled
from benchmarks.places import PYTHON, Unavailable
from benchmarks.syscalls import parse
from maildefer.handling.patterns import regex_text
from maildefer.message.envelope import Envelope, split


def test_contenders_run_in_turn() -> None:
    order: list[str] = []

    def contender(name: str) -> float:
        order.append(name)
        return 1.0

    interleave({"A": lambda: contender("A"), "B": lambda: contender("B")}, 2, print)
    assert order == ["A", "B", "A", "B"]


def test_an_unavailable_contender_is_left_out_and_says_why() -> None:
    def missing() -> float:
        raise Unavailable("no compiler")

    said: list[str] = []
    assert interleave({"C": missing, "D": lambda: 1.0}, 2, said.append) == {"D": [1.0, 1.0]}
    assert said == ["C skipped: no compiler"]


def test_the_ratio_is_the_median_of_the_pairs() -> None:
    samples = {"C": [10.0, 100.0, 10.0], OURS: [8.0, 50.0, 9.0]}
    c, ours = compare("x", "case", samples, "msg/s", {"C": Limit(bound=0.8)})
    assert (c.ratio, c.passed) == (0.8, True)
    assert (ours.ratio, ours.passed) == (None, None)


@pytest.mark.parametrize(("value", "passed"), [(1.0, True), (1.01, False)])
def test_a_limit_without_a_ratio_is_one_on_the_median(value: float, passed: bool) -> None:
    limit = Limit(bound=1, at_most=True)
    figure = Figure(benchmark="x", case="", name="", unit="ms", samples=[0.0, value, 9.0], limit=limit)
    assert figure.passed is passed


def test_an_entry_has_its_size_and_an_envelope_of_its_own(tmp_path: Path) -> None:
    queue = make_maildir(str(tmp_path / "queue"))
    fill(queue, 1)
    (name,) = os.listdir(f"{queue}/new")
    content = Path(queue, "new", name).read_bytes()
    assert len(content) == ENTRY_BYTES
    assert name.endswith(f",S={ENTRY_BYTES}")
    assert split(content, name)[0] == Envelope("sender@example.org", RECIPIENT)


def test_the_finders_of_routes_find_the_same() -> None:
    for pattern, address in routes.SHAPES.values():
        finds = routes._finds([regex_text(pattern(n), routes.CAPTURES) for n in range(50)])
        assert {name: find(address(7, 1)) for name, find in finds.items()} == {OURS: 1, routes.EACH: 1}
        assert {name: find("nobody@nowhere.test") for name, find in finds.items()} == {
            OURS: 0,
            routes.EACH: 0,
        }


def test_every_look_at_a_message_sees_something() -> None:
    for data in (parsing._large(), entry_bytes(parsing.KEY)):
        assert parsing._envelope(data) == ("sender@example.org", RECIPIENT)
        assert parsing._headers(data) == ("a message of the benchmark", "<benchmark@example.org>")
    assert len(parsing._whole(parsing._large())) == 1 + parsing.PARTS


@pytest.mark.slow
def test_the_way_to_a_handler_empties_the_queue_as_the_bare_drain_does(tmp_path: Path) -> None:
    ways = {"ours": handler._handle(100), "floor": handler._call(), "bare": handler._pass}
    rates = handler._drain(str(tmp_path), 3 * handler.PART, ways, (RECIPIENT,))
    assert rates.keys() == ways.keys()
    assert min(rates.values()) > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keeps_outputs", [True, False])
def test_what_handlers_of_the_benchmark_send_is_there_in_the_end(tmp_path: Path, keeps_outputs: bool) -> None:
    assert outputs.milliseconds(str(tmp_path), 10, keeps_outputs=keeps_outputs) > 0


@pytest.mark.parametrize("language", ["C", "Python"])
def test_a_loop_waits_at_its_gate_and_drains_all(tmp_path: Path, language: str) -> None:
    queue = make_maildir(str(tmp_path / "queue"))
    fill(queue, 50)
    program = [compiled("drain")] if language == "C" else [PYTHON, drain_loop.__file__]
    with Gated([*program, queue, "3"]) as gated:
        assert len(os.listdir(f"{queue}/new")) == 50
        gated.open()
        gated.result()
    assert maildir_empty(queue)


def test_calls_are_read_with_and_without_errors() -> None:
    table = """% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000060          12         5         2 rename
 40.00    0.000040           8         3           read
------ ----------- ----------- --------- --------- ----------------
100.00    0.000100          10         8         2 total
"""
    assert parse(table) == {"rename": 5, "read": 3}
