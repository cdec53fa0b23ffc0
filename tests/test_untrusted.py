"""Records that anybody may have written: what is read, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from maildefer.message.outgoing.sent_message import SentMessage
from maildefer.untrusted import UntrustedRecord, number, objects, read_plain, read_record, record_in

NEST = 16


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text('{"a": 18446744073709551615, "b": [1.5, {"c": null}], "d": "\\udcf6"}')
    assert read_record(str(path)) == {"a": (1 << 64) - 1, "b": [1.5, {"c": None}], "d": "\udcf6"}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no JSON"),
        (b"[]", "no JSON object"),
        (b"\xff", "no JSON"),
        (b"[" * 60_000, "nested too deeply"),
        (b'{"a":' * (NEST + 1) + b"1" + b"}" * (NEST + 1), "nested too deeply"),
        (b'{"a": 1' + b"0" * 400 + b"}", "a number of 401 digits"),
        (b'{"a": 18446744073709551616}', "a number of 20 digits"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "a number of 5001 digits"),
        (b'{"a": 1e400}', "too large"),
        (b'{"a": NaN}', "holds NaN"),
        (b'{"a": -Infinity}', "holds -Infinity"),
    ],
)
def test_what_could_hurt_whoever_has_it_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(UntrustedRecord, match=why):
        record_in(data)


def test_a_record_may_be_as_deep_as_ours_and_deeper() -> None:
    assert record_in(b'{"a":' * NEST + b"1" + b"}" * NEST)


def sparse(path: str) -> None:
    Path(path).touch()
    os.truncate(path, 3 << 30)


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/hostname", path), sparse]
)
def test_only_a_small_plain_file_is_read(tmp_path: Path, make: Callable[[str], None]) -> None:
    make(f"{tmp_path}/x")
    with pytest.raises(
        UntrustedRecord, match=r"is not a plain file|has 3221225472 bytes, and may have 65536"
    ):
        read_plain(f"{tmp_path}/x")


def test_other_types_in_the_place_of_numbers_and_lists_count_for_nothing() -> None:
    assert [number(one) for one in (7, 1.5, "7", None, [7])] == [7.0, 1.5, 0.0, 0.0, 0.0]
    assert [objects(one) for one in ([{}, 1], 5, None, {"a": 1})] == [[{}], [], [], []]


def test_a_note_of_who_has_taken_a_message_that_is_none_counts_as_not_there(tmp_path: Path) -> None:
    for attempt, content in enumerate((b'{"taken": ["a@b"]}', b"[" * 60_000, b'{"taken": 1e400}')):
        (tmp_path / f"x,{attempt:06d}.y").write_bytes(content)
    assert SentMessage(name="x", folder=str(tmp_path), attempt=1).recorded() == ({"a@b"}, {})
