"""Entries whose names a broken front end has chosen: whatever they are called, they replace nothing of anybody's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from maildefer.errors import EntryAmbiguous
from maildefer.maildir import durable, journal, pop, reasons
from maildefer.maildir.claims import Claim, Claimer
from maildefer.maildir.layout import Format, Layout, create_queue, open_queue
from maildefer.maildir.names import EntryName
from maildefer.maildir.operator import entries
from maildefer.maildir.push import Pusher
from maildefer.maildir.rights.sharing import FrontEndAccount, share_queue
from maildefer.maildir.system import SYSTEM
from maildefer.maildir.upkeep.leases import Lease
from maildefer.maildir.upkeep.observer import LeaseObserver
from maildefer.maildir.upkeep.promote import Promoter
from maildefer.maildir.upkeep.reclaim import Reclaimer
from tests.sampling import one_fast
from tests.support.other_users import as_user, told_by
from tests.support.queues import LABEL, FakeSlots, everywhere, holder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, and users who are not")
WORKERS, FRONT, MEMBER, GROUP = 61_051, 61_052, 61_053, 61_054  # nobody's
LEASE: Final = f"{LABEL}-17-abcdef012345"
VICTIM, EVIL, MORE = b"Subject: victim\n\nx\n", b"Subject: evil\n\nevil\n", b"Subject: more\n\nevil\n"
# Of a name that become one's own fields.
TAILS: Final = (":2,T", ":2,", ":2,S", ":2,RS", ":1,x", ":1,pop-1-2")
Deal = Callable[[Claim], object]


@pytest.fixture
def place() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="maildefer-", dir="/tmp"))
    place.chmod(0o755)
    os.chown(place, WORKERS, GROUP)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def queue(place: Path) -> Layout:
    """The workers' user's, shared with a front end; `posts`, which none shares, beside it."""

    def make() -> None:
        os.umask(0o007)
        layout = create_queue(f"{place}/queue")
        Lease.join(layout, LEASE, holder())
        create_queue(f"{place}/posts")

    as_user(WORKERS, GROUP, make)
    share_queue(f"{place}/queue", FrontEndAccount(user=FRONT, group=GROUP))
    return Layout(f"{place}/queue")


def posts(queue: Layout) -> Layout:
    return Layout(f"{os.path.dirname(queue.path)}/posts")


def pushed(queue: Layout, user: int = WORKERS) -> str:
    key: str = told_by(
        user, GROUP, lambda: Pusher(open_queue(queue.path), host=LABEL).push(lambda stem: [VICTIM])
    )
    return key


def planted(queue: Layout, name: str, data: bytes = EVIL, user: int = FRONT) -> None:
    """As a broken front end puts in what it likes, under any name."""

    def plant() -> None:
        os.umask(0o027)
        Path(queue.tmp, "x").write_bytes(data)
        os.rename(f"{queue.tmp}/x", f"{queue.new}/{name}")

    as_user(user, GROUP, plant)


def settled(queue: Layout, deal: Deal) -> None:
    """The workers claim all that waits, and deal with it; in the order of names, then of those that come by that."""

    def work() -> None:
        claimer = Claimer(queue, FakeSlots(), lease=LEASE, host=LABEL)
        claims = [claimer.claim(name) for name in sorted(os.listdir(queue.new))]
        for claim in claims:
            assert claim is not None
            deal(claim)

    as_user(WORKERS, GROUP, work)


def buried(claim: Claim) -> str:
    return claim.bury(claim.read().decode())


DEALS: Final[dict[str, Deal]] = {
    "defer": lambda claim: claim.defer(3600),
    "postpone": lambda claim: claim.postpone(3600),
    "release": Claim.release,
    "bury": buried,
    "keep": lambda claim: claim.ack(keep_seconds=60.0),
    "hand on": lambda claim: claim.handoff(posts(claim._claimer.layout)),
}


def contents(queue: Layout) -> list[bytes]:
    return sorted([*everywhere(queue).values(), *everywhere(posts(queue)).values()])


@pytest.mark.invariant(2)
@one_fast("deal", DEALS)
def test_entries_that_are_named_like_a_waiting_one_replace_it_nowhere(queue: Layout, deal: str) -> None:
    key = pushed(queue)
    evils = [b"Subject: evil %d\n\nevil\n" % number for number in range(len(TAILS))]
    for tail, data in zip(TAILS, evils, strict=True):
        planted(queue, f"{key}{tail}", data)
    settled(queue, DEALS[deal])
    assert contents(queue) == [*evils, VICTIM]


@pytest.mark.invariant(2)
@one_fast("deal", DEALS)
def test_an_entry_that_is_named_like_one_that_was_settled_replaces_it_nowhere(
    queue: Layout, deal: str
) -> None:
    """Nor the one before it, of the same user's, though that would harm nobody else."""
    key = pushed(queue)
    settled(queue, DEALS[deal])
    waiting = os.listdir(queue.new)
    for data in (EVIL, MORE):
        planted(queue, key, data)
        settled(queue, DEALS[deal])
    assert contents(queue) == [EVIL, MORE, VICTIM]
    assert waiting or deal != "release"


@pytest.mark.invariant(2)
@one_fast("deal", DEALS)
def test_an_entry_that_copies_what_sets_another_apart_gets_its_own(queue: Layout, deal: str) -> None:
    """What came back to `new/` shows all that its name has, and all can be copied."""
    pushed(queue)
    settled(queue, Claim.release)
    (shown,) = os.listdir(queue.new)
    planted(queue, f"{shown}:2,T")
    settled(queue, DEALS[deal])
    planted(queue, shown, MORE)
    settled(queue, DEALS[deal])
    assert contents(queue) == [EVIL, MORE, VICTIM]


@pytest.mark.parametrize("user", [FRONT, MEMBER])
def test_what_a_third_user_has_put_in_is_replaced_by_none_either(queue: Layout, user: int) -> None:
    """A program that only pushes, a member of the group."""
    planted(queue, f"{pushed(queue, MEMBER)}:2,T", user=user)
    settled(queue, buried)
    assert contents(queue) == [EVIL, VICTIM]


def test_each_dead_letter_keeps_its_own_reason(queue: Layout) -> None:
    key = pushed(queue)
    planted(queue, f"{key}:2,T")
    settled(queue, buried)
    planted(queue, key, MORE)
    settled(queue, buried)
    told = {
        Path(queue.dead_new, name).read_bytes(): reasons.read_reason(queue, EntryName.parse(name))
        for name in os.listdir(queue.dead_new)
    }
    assert {data: record["reason"] for data, record in told.items()} == {
        data: data.decode() for data in (VICTIM, EVIL, MORE)
    }
    assert {record["key"] for record in told.values()} == {key}, "which stays what it was"


@pytest.mark.parametrize("plant", ["a folder", "a FIFO", "a link", "nothing to be read"])
def test_what_cannot_be_read_replaces_nothing_either(queue: Layout, plant: str) -> None:
    name = f"{queue.new}/{pushed(queue)}:2,T"
    acts: dict[str, Callable[[], object]] = {
        "a folder": lambda: (os.mkdir(name), os.chmod(name, 0o777)),
        "a FIFO": lambda: os.mkfifo(name),
        "a link": lambda: os.symlink("/etc/passwd", name),
        "nothing to be read": lambda: os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0)),
    }
    as_user(FRONT, GROUP, acts[plant])

    def try_to_read(claim: Claim) -> None:
        reason = "gone"
        with suppress(Exception):
            reason = claim.read().decode()
        claim.bury(reason)

    settled(queue, try_to_read)
    assert len(os.listdir(queue.dead_new)) == 2
    assert VICTIM in contents(queue)
    assert len(os.listdir(queue.reasons)) == 2


def keeper(queue: Layout, *, max_crashes: int = 5) -> Reclaimer:
    observer = LeaseObserver(queue, Format(), own=lambda: LEASE, known_dead=lambda holder: False)
    return Reclaimer(
        queue,
        observer,
        own=lambda: LEASE,
        look=lambda: lambda owner: "dead",
        host=LABEL,
        max_crashes=max_crashes,
        grace_seconds=0.0,
    )


@pytest.mark.invariant(2)
@pytest.mark.parametrize("max_crashes", [1, 5])
@pytest.mark.slow
def test_what_keepers_take_back_replaces_nothing(queue: Layout, max_crashes: int) -> None:
    """To `new/`, and at the crash limit to the dead letters, each with a reason."""
    key = pushed(queue)
    planted(queue, f"{key}:2,T")
    settled(queue, lambda claim: None)
    as_user(WORKERS, GROUP, lambda: keeper(queue, max_crashes=max_crashes).scan())
    planted(queue, key, MORE)
    settled(queue, lambda claim: None)
    as_user(WORKERS, GROUP, lambda: keeper(queue, max_crashes=max_crashes).scan())
    assert contents(queue) == [EVIL, MORE, VICTIM]
    if max_crashes == 1:
        assert len(os.listdir(queue.dead_new)) == len(os.listdir(queue.reasons)) == 3
    else:
        assert len(os.listdir(queue.new)) == 3


@pytest.mark.invariant(2)
@pytest.mark.parametrize("outputs", ["o=0123456789", "o=0123456789h"])
def test_what_copies_the_outputs_of_another_replaces_nothing_and_publishes_only_what_is_committed(
    queue: Layout, outputs: str
) -> None:
    """The front end sees the names of what waits, and so the token under which a handler's outputs are committed."""
    key = pushed(queue)
    name = f"{key},{outputs},a=1,n=1"
    as_user(WORKERS, GROUP, lambda: os.rename(f"{queue.new}/{key}", f"{queue.new}/{name}"))
    settled(queue, lambda claim: None)  # their workers die
    planted(queue, name)
    settled(queue, lambda claim: None)
    as_user(WORKERS, GROUP, lambda: keeper(queue, max_crashes=9).scan())
    assert contents(queue) == [EVIL, VICTIM]
    assert {EntryName.parse(entry).outputs for entry in os.listdir(queue.new)} == {outputs[2:]}
    settled(queue, lambda claim: claim.postpone(5))
    assert contents(queue) == [EVIL, VICTIM]


@pytest.mark.invariant(2)
def test_what_a_mail_reader_has_moved_replaces_nothing_as_it_comes_back(queue: Layout) -> None:
    key = pushed(queue)
    planted(queue, f"{key}:2,T")

    def read_mail() -> None:
        for name, flags in ((key, "2,S"), (f"{key}:2,T", "2,ST"), (key, "2,S")):
            if os.path.exists(f"{queue.new}/{name}"):
                os.rename(f"{queue.new}/{name}", f"{queue.cur}/{key}:{flags}")
                keeper(queue).scan()

    as_user(WORKERS, GROUP, read_mail)
    planted(queue, key, MORE)
    as_user(WORKERS, GROUP, read_mail)
    assert contents(queue) == [EVIL, MORE, VICTIM]


@pytest.mark.invariant(2)
def test_what_is_promoted_or_requeued_replaces_nothing_and_nobody_can_be_in_its_way(queue: Layout) -> None:
    """A folder in the place of its next name would keep it from being moved for ever: so nobody can guess that name."""
    key = pushed(queue)
    settled(queue, lambda claim: claim.defer(1))
    planted(queue, key)
    settled(queue, lambda claim: claim.defer(1))
    planted(queue, key, MORE)
    settled(queue, buried)
    as_user(FRONT, GROUP, lambda: [os.mkdir(f"{queue.new}/{key}{tail}") for tail in ("", ",a=1,n=2", ",n=2")])

    def bring_back() -> None:
        promoter = Promoter(queue)
        promoter.relist()
        promoter.promote(2e9)
        for found in list(entries.list_entries(queue, "dead")):
            entries.requeue(queue, found)

    as_user(WORKERS, GROUP, bring_back)
    assert sorted(everywhere(queue).values()) == [EVIL, MORE, VICTIM]
    assert len([name for name in os.listdir(queue.new) if os.path.isfile(f"{queue.new}/{name}")]) == 3


@pytest.mark.invariant(2)
@pytest.mark.parametrize("end", ["bury", "put back", "set aside"])
@pytest.mark.slow
def test_what_is_popped_and_not_taken_replaces_nothing(queue: Layout, end: str) -> None:
    key = pushed(queue)
    planted(queue, f"{key}:2,T")

    def pop_all() -> None:
        for found in sorted(entries.list_entries(queue, "waiting"), key=lambda found: found.name):
            popped = pop.pop_entry(queue, found, host=LABEL)
            assert popped is not None
            match end:
                case "bury":
                    popped.bury("too large")
                case "put back":
                    popped.move_to(queue.new)
                case _:
                    popped.move_to(posts(queue).new)

    as_user(WORKERS, GROUP, pop_all)
    planted(queue, key, MORE)
    as_user(WORKERS, GROUP, pop_all)
    assert contents(queue) == [EVIL, MORE, VICTIM]


@pytest.mark.invariant(2)
@pytest.mark.slow
def test_what_was_handed_on_is_replaced_in_the_next_queue_by_none_that_comes_after_it(queue: Layout) -> None:
    """Which no front end shares: there a name keeps what tells it from others."""
    key = pushed(queue)
    for data in (EVIL, MORE):
        settled(queue, DEALS["hand on"])
        planted(queue, key, data)
    settled(queue, DEALS["hand on"])
    for deal in ("release", "defer"):
        settled_there = partial(settled, posts(queue))
        settled_there(DEALS[deal])
    assert len(os.listdir(posts(queue).later_new)) == 3
    assert contents(queue) == [EVIL, MORE, VICTIM]


def test_a_queue_that_no_front_end_shares_has_the_names_it_always_had(queue: Layout) -> None:
    key: str = told_by(WORKERS, GROUP, lambda: Pusher(posts(queue), host=LABEL).push(lambda stem: [VICTIM]))
    settled(posts(queue), Claim.release)
    assert os.listdir(posts(queue).new) == [f"{key},n=1"]
    settled(posts(queue), buried)
    assert os.listdir(posts(queue).dead_new) == [f"{key},n=2"]
    assert os.listdir(posts(queue).reasons) == [f"{key},n=2.json"]


def test_a_key_of_another_writer_that_leaves_no_room_gets_a_fresh_one_at_its_claim(queue: Layout) -> None:
    """So that it is the same at all attempts."""
    planted(queue, "x" * 140)

    def attempt(queue: Layout) -> list[str]:
        keys = []
        claimer = Claimer(queue, FakeSlots(), lease=LEASE, host=LABEL)
        for _ in range(2):
            (name,) = os.listdir(queue.new)
            claim = claimer.claim(name)
            assert claim is not None
            keys.append(claim.key)
            claim.release()
        return keys

    first, second = told_by(WORKERS, GROUP, lambda: attempt(queue))
    assert first == second != "x" * 140


@pytest.mark.slow
def test_a_command_by_a_key_that_another_has_chosen_too_is_refused_and_names_both(queue: Layout) -> None:
    """Who deletes what a broken front end has put in deletes nothing else."""
    key = pushed(queue)
    planted(queue, f"{key}:2,T")
    settled(queue, buried)
    for folders in (("dead",), entries.FOLDERS):
        with pytest.raises(EntryAmbiguous, match="is the key of several entries") as caught:
            entries.find_named(queue, [key], folders)
        assert sorted(caught.value.candidates) == sorted(os.listdir(queue.dead_new))
    for name in os.listdir(queue.dead_new):
        if Path(queue.dead_new, name).read_bytes() == EVIL:
            (evil,) = entries.find_named(queue, [name], ("dead",))[name]
            assert entries.find(queue, evil.entry.unique_key).name == name
    shown = maildefer("dead", "list", queue.path).stdout
    assert all(EntryName.parse(name).unique_key in shown for name in os.listdir(queue.dead_new))
    assert "is the key of several entries" in maildefer("dead", "delete", queue.path, key).stderr
    assert maildefer("dead", "delete", queue.path, evil.entry.unique_key).returncode == 0
    assert contents(queue) == [VICTIM]
    assert len(os.listdir(queue.reasons)) == 1
    assert len(entries.find_named(queue, [key])[key]) == 1


def test_of_two_that_wait_under_one_key_the_whole_name_tells_which_is_meant(queue: Layout) -> None:
    key = pushed(queue)
    planted(queue, f"{key}:2,T")
    other = pushed(queue)
    assert [found.name for found in entries.find_named(queue, [key, other])[key]] == [key]
    with pytest.raises(EntryAmbiguous):
        entries.find_named(queue, [key[:-1], other])


def maildefer(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "maildefer", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("user", [WORKERS, MEMBER])
def test_nobody_can_be_in_the_way_of_a_push(queue: Layout, user: int) -> None:
    """By what `tmp/` shows of it: a folder in `new/` that has the entry's name, or another user's file for a member."""

    def act_as(user: int) -> None:
        os.seteuid(0)
        os.seteuid(user)

    def get_in_the_way() -> None:
        for name in os.listdir(queue.tmp):
            for tail in ("", f",S={len(VICTIM)}"):
                os.mkdir(f"{queue.new}/{name}{tail}")

    def push() -> list[str]:
        def sync_all(descriptors: Sequence[int]) -> list[OSError | None]:
            act_as(FRONT)
            get_in_the_way()
            act_as(user)
            return durable.sync_all(descriptors, SYSTEM)

        act_as(user)
        pusher = Pusher(queue, host=LABEL, sync_all=sync_all)
        keys = pusher.push_all([lambda stem: [VICTIM]] * 2)
        draft = pusher.draft()
        draft.append(VICTIM)
        return [*map(str, keys), *map(str, pusher.push_all([lambda stem: draft, lambda stem: [VICTIM]]))]

    keys = told_by(0, GROUP, push)
    for key in keys:
        assert Path(queue.new, key).read_bytes() == VICTIM


@pytest.mark.slow
def test_an_audit_takes_the_end_of_one_entry_for_that_of_another_of_its_key(queue: Layout) -> None:
    """It counts keys, which a broken front end chooses; what was really lost is found without its help only."""
    as_user(WORKERS, GROUP, lambda: journal.begin_journal(queue))
    first, second = pushed(queue), pushed(queue)
    planted(queue, f"{first}:2,T")

    def end_the_planted_one(claim: Claim) -> None:
        if claim.read() == EVIL:
            claim.ack()
        else:
            os.unlink(f"{queue.cur}/{claim.name}")  # as it gets lost

    settled(queue, end_the_planted_one)
    ended = maildefer("audit", queue.path, "--patience", "0")
    assert ended.returncode == 1
    assert second in ended.stdout
    assert first not in ended.stdout
