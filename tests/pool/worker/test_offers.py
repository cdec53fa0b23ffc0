from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socket import socket

import pytest

from maildefer.pool.worker import offers as offers_module
from maildefer.pool.worker.offers import MOST_BYTES, MOST_NAMES, Offers, channel, pack, unpack

COUNT = """
from maildefer.pool.worker.offers import channel, pack
sending, receiving = channel()
sending.setblocking(False)
count = 0
try:
    while True:
        sending.send(pack(["1795529579.M872413P17757Q202R12b4fd1ca1c885f8.mx1-0a1b2c,S=2048"]))
        count += 1
except BlockingIOError:
    print(count)
"""


Pair = tuple[socket, socket]


@contextmanager
def closing_all(*pairs: Pair) -> Iterator[tuple[Pair, ...]]:
    yield pairs
    for pair in pairs:
        for end in pair:
            end.close()


def longest() -> list[str]:
    return [f"{number:0255}" for number in range(MOST_NAMES)]


def test_the_largest_offer_arrives_whole() -> None:
    sending, receiving = channel()
    with sending, receiving:
        sending.setblocking(False)
        sending.send(pack(longest()))
        assert unpack(receiving.recv(MOST_BYTES)) == longest()


def test_a_name_that_is_no_text_arrives_as_it_is() -> None:
    name = os.fsdecode(b"\xff\xfe name\nwith what names may have")
    assert unpack(pack([name, "other"])) == [name, "other"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a network namespace")
def test_the_socket_stays_short_where_the_kernel_is_set_to_long_ones() -> None:
    if shutil.which("unshare") is None:
        pytest.skip("unshare is missing: apt-get install util-linux")
    set_long = "echo 512 > /proc/sys/net/unix/max_dgram_qlen && exec"
    command = ["unshare", "-n", "sh", "-c", f'{set_long} "$0" -c "$1"', sys.executable, COUNT]
    counted = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert 8 <= int(counted.stdout) <= 100


def test_offers_are_taken_by_priority_but_no_queue_starves() -> None:
    with closing_all(channel(), channel()) as ((urgent, first), (ordinary, second)):
        reader, writer = os.pipe()
        gate = os.eventfd(1)
        offers = Offers([first, second], gate)
        offers.begin_waiting(reader)
        taken = []
        for _ in range(16):
            for sending, name in ((urgent, "urgent"), (ordinary, "ordinary")):
                sending.setblocking(False)
                with suppress(BlockingIOError):
                    sending.send(pack([name]))
            offer = offers.take_offer()
            assert offer is not None
            taken.append(offer[1][0])
        for descriptor in (reader, writer, gate):
            os.close(descriptor)
    assert taken[0] == "urgent"
    assert 1 <= taken.count("ordinary") <= 3


def test_a_worker_that_rests_takes_no_offer_nor_one_that_it_holds_until_it_resumes() -> None:
    with closing_all(channel(), channel()) as ((urgent, first), (ordinary, second)):
        reader, writer = os.pipe()
        gate = os.eventfd(1)
        offers = Offers([first, second], gate)
        offers.begin_waiting(reader)
        offers.hold(0, ["held"], 0.0)
        offers.rest()
        urgent.send(pack(["urgent"]))
        ordinary.send(pack(["ordinary"]))
        assert (offers.is_any(), offers.take_offer()) == (False, None)
        offers.resume()
        assert offers.is_any()
        assert [offers.take_offer() for _ in range(4)] == [
            (0, ["held"]),
            (0, ["urgent"]),
            (1, ["ordinary"]),
            None,
        ]
        for descriptor in (reader, writer, gate):
            os.close(descriptor)


def test_no_name_that_leads_elsewhere_is_taken_from_an_offer(capfd: pytest.CaptureFixture[str]) -> None:
    """Each is renamed below `new/`: what a broken scout offers must not move another file of the worker's user."""
    assert unpack(b"1.a\0../../home/x\0/etc/passwd\x002.b") == ["1.a", "2.b"]
    assert capfd.readouterr().err.count("child.misbehaved") == 1
    assert unpack(b"../x") == []


def test_an_offer_that_is_held_wakes_nobody_and_comes_back_in_time_while_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(offers_module, "boottime", lambda: clock[0])
    reader, writer = os.pipe()
    with closing_all(channel(), channel()) as ((first, first_end), (second, second_end)):
        offers = Offers([first_end, second_end], reader)
        offers.begin_waiting(reader)
        first.send(pack(["a", "b"]))
        assert offers.take_offer() == (0, ["a", "b"])
        offers.hold(0, ["b"], 5.0)
        first.send(pack(["c"]))
        assert not offers.is_any()
        assert offers.take_offer() is None
        second.send(pack(["d"]))
        assert offers.take_offer() == (1, ["d"])
        clock[0] += 5.0
        assert offers.take_offer() == (0, ["b"])
        assert offers.take_offer() == (0, ["c"])
    os.close(reader)
    os.close(writer)
