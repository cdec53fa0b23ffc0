"""What a scout offers when other hosts that share the queue claim nothing."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from maildefer import events
from maildefer.host.linux import directory_watch
from maildefer.host.linux.inotify import Inotify
from maildefer.host.linux.readiness import await_writable
from maildefer.maildir import scan
from maildefer.maildir.layout import create_queue
from maildefer.maildir.system import boottime
from maildefer.pool.context import QueueOfPool
from maildefer.pool.scoreboard import Header, QueueState, QueueWord, Scoreboard
from maildefer.pool.worker.offers import MOST_SHORT, channel, keep_short, pack, share_of, unpack
from maildefer.pool.worker.scout import QueueScout

ENTRIES = 6_000
_numbers = itertools.count()


class Offered:
    """The scout's end of the workers' socket: whatever is offered is claimed at once."""

    def __init__(self, new: str) -> None:
        self.names: list[str] = []
        self.claims = True
        self._new = new

    def send(self, data: bytes) -> None:
        for name in unpack(data):
            self.names.append(name)
            if self.claims:
                os.unlink(f"{self._new}/{name}")


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every name that a listing gives."""
    seen: list[str] = []
    entries = scan.entries

    def counted(path: str, **more: Any) -> Iterator[str]:
        for name in entries(path, **more):
            seen.append(name)
            yield name

    monkeypatch.setattr(scan, "entries", counted)
    return seen


def scout_of(path: Path, *, index: int, hosts: int) -> tuple[QueueScout, Offered]:
    """The scout of the host that has this share among so many."""
    layout = create_queue(str(path / "queue"))
    board = Scoreboard(1, 4)
    for word, value in (
        (QueueWord.STATE, int(QueueState.SERVED)),
        (QueueWord.HOSTS, hosts),
        (QueueWord.INDEX, index),
        (QueueWord.LOCAL, 1),
    ):
        board.words[board.queue(0) + word] = value
    offered = Offered(layout.new)
    shared: Any = SimpleNamespace(
        queues=[QueueOfPool(name="run/queue", layout=layout)],
        board=board,
        offers=[(offered, None)],
        not_paused=0,
    )
    return QueueScout(shared, 0), offered


def fill(path: Path, count: int, *, share: int, hosts: int) -> None:
    """So many new entries of one host's share."""
    made = 0
    while made < count:
        name = f"1763982000.M0P1Q{next(_numbers)}R9c1f0a77.other,S=1"
        if share_of(name, hosts) == share:
            (path / "queue/new" / name).touch()
            made += 1


def test_without_inotify_it_polls_as_often_as_on_a_mount_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scout, _ = scout_of(tmp_path, index=0, hosts=1)
    told: list[str] = []
    slept: list[float] = []

    def refuse() -> None:
        raise OSError(errno.EMFILE, "no more of them")

    def live() -> None:
        for _ in range(10):
            scout._pass()
            scout._wait_for_entries()

    monkeypatch.setattr(events, "emit", lambda event, **facts: told.append(event))
    monkeypatch.setattr(directory_watch, "time", SimpleNamespace(sleep=slept.append))
    with monkeypatch.context() as used_up:
        used_up.setattr(directory_watch, "Inotify", refuse)
        live()
        assert max(slept) == 1.0
        assert told == ["queue.unwatched"]
    waited: list[float] = []
    monkeypatch.setattr(Inotify, "read", lambda self, seconds: waited.append(seconds) or [])
    live()
    assert told == ["queue.unwatched", "queue.watched"]
    assert max(waited) == 5.0  # where all writers are heard of
    scout._watch.close()


@pytest.mark.slow
def test_the_share_of_hosts_that_claim_nothing_is_taken_over_in_a_bounded_number_of_passes(
    tmp_path: Path, listed: list[str]
) -> None:
    scout, offered = scout_of(tmp_path, index=0, hosts=2)
    fill(tmp_path, ENTRIES, share=1, hosts=2)
    for _ in range(3):
        scout._pass()
    assert len(set(offered.names)) == ENTRIES
    assert len(listed) <= 3 * ENTRIES


def test_what_a_dead_worker_may_have_been_offered_is_offered_again_at_once(tmp_path: Path) -> None:
    """And what the living have been offered is not, within a second."""
    scout, offered = scout_of(tmp_path, index=0, hosts=1)
    offered.claims = False
    fill(tmp_path, 3, share=0, hosts=1)
    scout._pass()
    scout._pass()
    assert len(offered.names) == 3
    scout._words[Header.DEATHS] += 1
    scout._pass()
    assert len(offered.names) == 6
    scout._pass()
    assert len(offered.names) == 6


def test_what_is_the_hosts_own_is_offered_alone_while_there_is_any(tmp_path: Path) -> None:
    scout, offered = scout_of(tmp_path, index=0, hosts=2)
    fill(tmp_path, 50, share=1, hosts=2)
    fill(tmp_path, 20, share=0, hosts=2)
    scout._pass()
    assert len(offered.names) == 20
    assert {share_of(name, 2) for name in offered.names} == {0}


def test_hosts_with_nothing_of_their_own_begin_at_different_entries(tmp_path: Path) -> None:
    begun = []
    for index in range(3):
        scout, offered = scout_of(tmp_path, index=index, hosts=4)
        offered.claims = False
        if not index:
            fill(tmp_path, 40, share=3, hosts=4)
        scout._pass()
        assert len(offered.names) == 40
        begun.append(offered.names[0])
    assert begun == [sorted(offered.names)[at] for at in (0, 10, 20)]


def test_a_pass_over_others_shares_that_meets_its_own_is_the_last_of_them(tmp_path: Path) -> None:
    scout, offered = scout_of(tmp_path, index=0, hosts=2)
    fill(tmp_path, 10, share=1, hosts=2)
    scout._pass()
    assert len(offered.names) == 10  # none of its own: everybody's
    fill(tmp_path, 5, share=0, hosts=2)
    scout._pass()
    fill(tmp_path, 30, share=1, hosts=2)
    fill(tmp_path, 5, share=0, hosts=2)
    offered.names.clear()
    scout._pass()
    assert {share_of(name, 2) for name in offered.names} == {0}


BySocket = tuple[QueueScout, socket.socket, str]


@pytest.fixture
def by_socket(tmp_path: Path) -> Iterator[BySocket]:
    """A scout with the real socket, of which the workers' end is read here."""
    scout, offered = scout_of(tmp_path, index=0, hosts=1)
    scout._socket, workers = channel()
    workers.settimeout(60)
    with scout._socket, workers:
        yield scout, workers, offered._new
    scout._watch.close()


def test_few_offers_wait_for_workers_where_entries_have_priorities(by_socket: BySocket) -> None:
    """So one that comes later can be the next."""
    scout, _, new = by_socket
    Path(new, "1.x,p=low,S=1").touch()
    assert scout._with_priorities(os.listdir(new)) is not None
    offers = 0
    while await_writable(scout._socket, 0):
        scout._socket.send(
            pack(["1763982000.M000000P12345Q1R9c1f0a77aabbccdd.some-host-0a1b2c,p=low,S=123456"])
        )
        offers += 1
    assert offers <= 2


def test_an_offer_of_the_longest_names_goes_through_a_short_socket(by_socket: BySocket) -> None:
    scout, workers, _ = by_socket
    keep_short(scout._socket)
    names = ["x" * 255] * MOST_SHORT
    scout._socket.send(pack(names))
    assert unpack(workers.recv(60_000)) == names


def test_a_backlog_of_low_ones_is_offered_behind_what_is_higher(by_socket: BySocket) -> None:
    scout, workers, new = by_socket
    for number in range(2_500):
        Path(new, f"{number:05}.x,p=low,S=1").touch()
    thread = threading.Thread(target=scout._pass, daemon=True)
    thread.start()
    for _ in range(30):
        unpack(workers.recv(60_000))
    Path(new, "99999.x,p=high,S=1").touch()
    Path(new, "99998.x,S=1").touch()
    following = [name for _ in range(12) for name in unpack(workers.recv(60_000))]
    scout._words[Header.DRAINING] = 1
    thread.join(60)
    assert following.index("99999.x,p=high,S=1") < following.index("99998.x,S=1") < 8


def test_the_queues_mark_is_enough(by_socket: BySocket) -> None:
    scout, _, new = by_socket
    for number in range(2_500):
        Path(new, f"{number:05}.x,S=1").touch()
    assert scout._with_priorities(os.listdir(new)) is None
    scout._words[scout._base + QueueWord.PRIORITIES] = 1
    assert scout._with_priorities() is not None


@pytest.mark.slow
def test_without_priorities_each_listed_name_is_looked_at_once(tmp_path: Path, listed: list[str]) -> None:
    scout, _ = scout_of(tmp_path, index=0, hosts=1)
    fill(tmp_path, 2_500, share=0, hosts=1)
    scout._pass()
    assert len(listed) == 2_500
    assert scout._by_priority is None


def test_a_host_with_no_share_of_a_priority_offers_the_others(tmp_path: Path) -> None:
    scout, offered = scout_of(tmp_path, index=1, hosts=2)
    names = [f"1763982000.M0P1Q{number}R9c1f0a77.other,p=high,S=1" for number in range(50)]
    theirs = [name for name in names if share_of(name, 2) == 0]
    mine = next(
        f"1763982000.M0P1Q{n}R9c1f0a77.h,S=1"
        for n in range(50)
        if share_of(f"1763982000.M0P1Q{n}R9c1f0a77.h,S=1", 2)
    )
    for name in (*theirs, mine):
        Path(offered._new, name).touch()
    ordered = scan.NamesByPriority(scout._listed, boottime)
    assert sorted(ordered.take(1000)) == sorted([*theirs, mine])
