"""Connections counted by all processes of a front end together."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator

import pytest

from maildefer.intake import connection_table
from maildefer.intake.access.connection_limits import ConnectionLimits, LimitReached
from maildefer.intake.connection_table import ALONE, ConnectionTable, TableRow
from maildefer.intake.options import FrontEndOptions, parse

PLACES = 4


@pytest.fixture
def table() -> Iterator[int]:
    descriptor = connection_table.make_table()
    yield descriptor
    os.close(descriptor)


def limits_of(row: TableRow, most: int = 100, of_one: int = 0) -> ConnectionLimits:
    said = FrontEndOptions(
        max_connections=most, max_connections_per_client=of_one, exempt_networks="127.0.0.1"
    )
    return ConnectionLimits(said, row)


def test_a_limit_holds_for_all_processes_together(table: int) -> None:
    one, other = (limits_of(TableRow(table, number, 2), most=3) for number in range(2))
    assert [one.enter("192.0.2.1"), other.enter("192.0.2.2"), one.enter("127.0.0.1")] == [None] * 3
    assert one.enter("192.0.2.3") == other.enter("192.0.2.3") == LimitReached.FOR_ANYBODY
    one.leave("127.0.0.1")
    assert other.enter("192.0.2.3") is None
    assert [who.facts()["connections"] for who in (one, other)] == [1, 2]
    assert one.facts()["connections_of_all"] == other.facts()["connections_of_all"] == 3


def test_a_clients_share_is_of_all_processes_together(table: int) -> None:
    one, other = (limits_of(TableRow(table, number, 2), of_one=3) for number in range(2))
    assert [one.enter("192.0.2.1"), other.enter("192.0.2.1"), other.enter("192.0.2.1")] == [None] * 3
    assert one.enter("192.0.2.1") == other.enter("192.0.2.1") == LimitReached.FOR_THIS_CLIENT
    assert one.enter("192.0.2.2") is None
    other.leave("192.0.2.1")
    assert one.enter("192.0.2.1") is None


def test_what_a_dead_process_had_open_counts_no_more(table: int) -> None:
    one, dead = (limits_of(TableRow(table, number, 2), most=4, of_one=2) for number in range(2))
    assert [dead.enter("192.0.2.1"), dead.enter("192.0.2.1"), dead.enter("192.0.2.2")] == [None] * 3
    assert one.enter("192.0.2.1") == LimitReached.FOR_THIS_CLIENT
    connection_table.clear_row(TableRow(table, 1, 2))
    assert one.enter("192.0.2.1") is None
    heir = limits_of(TableRow(table, 1, 2), most=4, of_one=2)
    assert heir.enter("192.0.2.3") is None  # on the first line, behind which the dead one's still lie
    assert heir.enter("192.0.2.1") is None
    assert one.enter("192.0.2.1") == LimitReached.FOR_THIS_CLIENT
    assert one.facts()["connections_of_all"] == 3


def test_lines_are_used_again(table: int) -> None:
    here = limits_of(TableRow(table, 0, 1), most=2)
    for _ in range(1_000):
        assert here.enter("192.0.2.1") is None
        here.leave("192.0.2.1")
    assert os.fstat(table).st_size < 100


def test_what_stands_across_two_lines_is_no_client() -> None:
    here = ConnectionTable(ALONE, 8)
    noted = (0x1111111122222222, 0x3333333344444444)
    for client in noted:
        here.enter_client(client)
    memory = b"".join(client.to_bytes(8, sys.byteorder) for client in noted)
    found = [here.count(int.from_bytes(memory[at : at + 8], sys.byteorder)) for at in range(9)]
    assert found == [1, 0, 0, 0, 0, 0, 0, 0, 1]


def test_of_many_who_come_at_once_never_too_many_are_in(table: int) -> None:
    """Processes that all come at the same moment to fewer places than they want."""
    ready, go = os.pipe(), os.pipe()
    told = os.pipe()
    children = []
    for number in range(PLACES):
        if pid := os.fork():
            children.append(pid)
            continue
        try:
            here = limits_of(TableRow(table, number, PLACES), most=500, of_one=200)
            os.close(go[1])
            os.write(ready[1], b".")
            os.read(go[0], 1)
            entered = sum(here.enter(f"192.0.2.{client % 2}") is None for client in range(1_000))
            os.write(told[1], f"{entered}\n".encode())
        finally:
            os._exit(0)
    for _ in children:
        os.read(ready[0], 1)
    os.close(go[1])
    for pid in children:
        os.waitpid(pid, 0)
    for end in (go[0], ready[0], ready[1], told[1]):
        os.close(end)
    with open(told[0]) as lines:
        entered = sum(map(int, lines))
    assert 300 < entered <= 400
    late = limits_of(TableRow(table, 0, PLACES), most=500, of_one=200)  # one has gone, with all that it had
    while late.enter("192.0.2.0") is None or late.enter("192.0.2.1") is None:
        continue
    assert late.facts()["connections_of_all"] == 400


@pytest.mark.parametrize("text", ["", "3", "3:0", "3:1:1", "3:-1:2", "a:0:1"])
def test_a_place_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(SystemExit) as end:
        parse(["--socket-fd", "3", "--queue", "q", f"--guestbook={text}"])
    assert end.value.code == 2


def test_a_place_is_told_as_it_is_read() -> None:
    said = parse(["--socket-fd", "3", "--queue", "q", f"--guestbook={TableRow(7, 1, 3)}"])
    assert said.connection_row == TableRow(7, 1, 3)


def test_a_book_can_be_cut_off_by_nobody(table: int) -> None:
    """Who reads a mapping behind its end is ended by SIGBUS: one broken process would end all others."""
    one, other = (limits_of(TableRow(table, number, 2)) for number in range(2))
    for act in (
        lambda: os.ftruncate(table, 0),
        lambda: fcntl.fcntl(table, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW),
    ):
        with pytest.raises(PermissionError):
            act()
    assert [one.enter("192.0.2.1"), other.enter("192.0.2.1")] == [None, None]


def test_what_a_broken_process_writes_there_stops_no_other_and_passes_with_it(table: int) -> None:
    one, other = (limits_of(TableRow(table, number, 2), most=3, of_one=2) for number in range(2))
    assert one.enter("192.0.2.1") is None
    os.pwrite(table, b"\xff" * os.fstat(table).st_size, 0)
    assert one.enter("192.0.2.1") == LimitReached.FOR_ANYBODY
    one.leave("192.0.2.1")
    assert 0 <= int(str(one.facts()["connections_of_all"])) <= 8
    for number in range(2):
        connection_table.clear_row(TableRow(table, number, 2))
    assert [one.enter("192.0.2.1"), other.enter("192.0.2.2")] == [None, None]
