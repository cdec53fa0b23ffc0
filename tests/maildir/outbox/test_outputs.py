"""What a handler sends is seen when it has returned, all of it or nothing, whatever dies, is lost or comes late."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from maildefer.errors import ClaimLost, EntryNotFound, MountFault, NoSpace, QueueMissing, StorageFault
from maildefer.maildir import names
from maildefer.maildir.claims import Claim, Claimer
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.names import EntryName
from maildefer.maildir.operator import entries, schedule
from maildefer.maildir.outbox import current, outputs
from maildefer.maildir.outbox.commit import commit
from maildefer.maildir.outbox.outputs import Outputs
from maildefer.maildir.outbox.publish import Outboxes
from maildefer.maildir.outbox.sweep import KEPT_SECONDS, OutboxSweeper
from maildefer.maildir.push import Planned, Pusher
from maildefer.maildir.system import SYSTEM, System
from maildefer.maildir.upkeep.leases import Lease
from maildefer.maildir.upkeep.reclaim import Reclaimed, Reclaimer
from maildefer.maildir.upkeep.sweep import Sweeper
from tests.support.deaths import Death, Mortal
from tests.support.queues import LABEL, START, FakeSlots, World, holder, put

SENT = [b"one", b"two", b"three"]


@pytest.fixture(autouse=True)
def _another_process() -> None:
    outputs._durable.clear()


@pytest.fixture
def other(tmp_path: Path, world: World) -> Layout:
    made = create_queue(str(tmp_path / "other"), system=world.system)
    world.forget()
    return made


@pytest.fixture
def outboxes(layout: Layout, other: Layout, world: World) -> Outboxes:
    return Outboxes(lambda: [layout, other], system=world.system)


@pytest.fixture
def pusher_of_other(other: Layout, world: World) -> Pusher:
    return Pusher(other, host=LABEL, system=world.system)


def send(pusher: Pusher, data: bytes = b"sent", *, now: bool = False) -> str:
    return current.pushing(pusher, now=now)(lambda stem: [data])


def bodies(*folders: str) -> list[bytes]:
    """What is in these folders."""
    paths = [f"{folder}/{name}" for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)]
    return sorted(Path(path).read_bytes() for path in paths)


def outbox(layout: Layout) -> list[str]:
    path = outputs.outbox_of(layout)
    return os.listdir(path) if os.path.isdir(path) else []


# Sending


def test_what_is_sent_in_a_handler_is_seen_once_it_is_published_and_not_before(
    claimed: Callable[[], Claim], outboxes: Outboxes, other: Layout, pusher_of_other: Pusher
) -> None:
    claim = claimed()
    sent = outboxes.begin(claim)
    keys = sent.around(lambda: [send(pusher_of_other, data) for data in SENT])()
    assert os.listdir(other.new) == []
    assert sorted(outbox(other)) == sorted(f"{names.unique_of(claim.name)}.{key}" for key in keys)
    sent.sync()
    commit(claim, sent.token)
    assert os.listdir(other.new) == []
    sent.publish()
    assert sorted(os.listdir(other.new)) == sorted(keys)
    assert outbox(other) == []
    claim.ack()


def test_what_goes_at_once_or_is_sent_outside_of_handlers_is_seen_at_once(
    claimed: Callable[[], Claim], outboxes: Outboxes, other: Layout, pusher_of_other: Pusher
) -> None:
    send(pusher_of_other)
    outboxes.begin(claimed()).around(lambda: send(pusher_of_other, now=True))()
    assert bodies(other.new) == [b"sent"] * 2


def test_a_queue_in_which_nobody_would_look_for_it_gets_it_at_once(
    claimed: Callable[[], Claim], outboxes: Outboxes, tmp_path: Path, world: World
) -> None:
    strange = create_queue(str(tmp_path / "strange"), system=world.system)
    outboxes.begin(claimed()).around(lambda: send(Pusher(strange, host=LABEL, system=world.system)))()
    assert bodies(strange.new) == [b"sent"]


def test_nothing_is_seen_and_nothing_stays_of_what_is_discarded(
    claimed: Callable[[], Claim], outboxes: Outboxes, other: Layout, pusher_of_other: Pusher
) -> None:
    sent = outboxes.begin(claimed())

    def handler() -> None:
        send(pusher_of_other)
        raise ValueError("after it was sent")

    with pytest.raises(ValueError, match="after"):
        sent.around(handler)()
    sent.discard()
    assert (os.listdir(other.new), outbox(other), os.listdir(other.tmp)) == ([], [], [])


def test_a_push_for_later_waits_for_its_time_and_a_priority_stays(
    claimed: Callable[[], Claim], outboxes: Outboxes, other: Layout, pusher_of_other: Pusher
) -> None:
    claim = claimed()
    sent = outboxes.begin(claim)
    later = Planned(compose=lambda stem: [b"later"], due=int(START) + 60)
    first = Planned(compose=lambda stem: [b"first"], priority="high")
    keys = sent.around(lambda: [current.pushing(pusher_of_other)(each) for each in (later, first)])()
    sent.sync()
    commit(claim, sent.token)
    sent.publish()
    assert os.listdir(other.later_new) == [names.first_name(keys[0])]
    assert os.listdir(other.new) == [keys[1]]
    assert ",p=" in keys[1]


def test_threads_with_the_handlers_context_send_with_it_and_others_at_once(
    claimed: Callable[[], Claim], outboxes: Outboxes, other: Layout, pusher_of_other: Pusher
) -> None:
    sent = outboxes.begin(claimed())

    async def handler() -> None:
        await asyncio.to_thread(send, pusher_of_other, b"awaited")
        thread = threading.Thread(target=send, args=(pusher_of_other, b"by itself"))
        thread.start()
        thread.join()

    asyncio.run(sent.during(handler))
    assert bodies(other.new) == [b"by itself"]
    assert bodies(outputs.outbox_of(other)) == [b"awaited"]


def test_what_a_handler_leaves_behind_sends_at_once(
    claimed: Callable[[], Claim], outboxes: Outboxes, other: Layout, pusher_of_other: Pusher
) -> None:
    sent, left = outboxes.begin(claimed()), []

    async def handler() -> None:
        async def later() -> None:
            await asyncio.sleep(0)
            send(pusher_of_other)

        left.append(asyncio.ensure_future(later()))

    async def main() -> None:
        await sent.during(handler)
        await left[0]

    asyncio.run(main())
    assert bodies(other.new) == [b"sent"]


def test_a_handlers_child_process_sends_at_once(
    claimed: Callable[[], Claim], outboxes: Outboxes, other: Layout, pusher_of_other: Pusher, world: World
) -> None:
    sent = outboxes.begin(claimed())

    def handler() -> None:
        world.pid += 1
        send(pusher_of_other)

    sent.around(handler)()
    assert bodies(other.new) == [b"sent"]


def test_an_attempt_that_is_cancelled_before_it_begins_leaves_nothing_unawaited(
    claimed: Callable[[], Claim], outboxes: Outboxes
) -> None:
    async def handler() -> None:
        pass

    async def main() -> None:
        task = asyncio.ensure_future(outboxes.begin(claimed()).during(handler))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())  # a warning is an error here


def test_messages_in_flight_at_the_same_time_send_apart(
    claimed: Callable[[], Claim], outboxes: Outboxes, pusher_of_other: Pusher
) -> None:
    first, second = outboxes.begin(claimed()), outboxes.begin(claimed())

    async def handler(data: bytes) -> str:
        await asyncio.sleep(0)
        return send(pusher_of_other, data)

    async def main() -> list[str]:
        return await asyncio.gather(*(one.during(partial(handler, b"x")) for one in (first, second)))

    keys = asyncio.run(main())
    for one, key in zip((first, second), keys, strict=True):
        assert [each[1] for each in itertools.chain(*one._drafts.values())] == [key]


def test_what_can_not_be_written_is_no_output(
    claimed: Callable[[], Claim], outboxes: Outboxes, other: Layout, pusher_of_other: Pusher, world: World
) -> None:
    sent = outboxes.begin(claimed())
    world.refuse("write", errno.ENOSPC)
    with pytest.raises(NoSpace):
        sent.around(lambda: send(pusher_of_other))()
    assert not sent
    assert (outbox(other), os.listdir(other.tmp)) == ([], [])


@pytest.mark.invariant(1)
def test_outputs_are_on_the_disk_before_the_commit_and_the_commit_before_they_are_seen_and_that_before_the_ack(
    claimed: Callable[[], Claim],
    outboxes: Outboxes,
    layout: Layout,
    other: Layout,
    pusher_of_other: Pusher,
    world: World,
) -> None:
    claim = claimed()
    sent = outboxes.begin(claim)
    sent.around(lambda: send(pusher_of_other))()
    [draft] = outbox(other)
    world.forget()
    sent.sync()
    before = claim.name
    commit(claim, sent.token)
    sent.publish()
    claim.ack()
    asked = [(call.what, *call.arguments) for call in world.asked("fsync", "rename", "unlink")]
    box = outputs.outbox_of(other)
    assert asked == [
        ("fsync", f"{outputs.outbox_of(other)}/{draft}"),
        ("fsync", other.control),
        ("fsync", box),
        ("rename", f"{layout.cur}/{before}", f"{layout.cur}/{claim.name}"),
        ("fsync", layout.cur),
        ("rename", f"{box}/{draft}", f"{other.new}/{draft.partition('.')[2]}"),
        ("fsync", other.new),
        ("unlink", f"{layout.cur}/{claim.name}"),
    ]


# Committing


@pytest.fixture
def sent(outboxes: Outboxes, claimed: Callable[[], Claim], pusher_of_other: Pusher) -> tuple[Claim, Outputs]:
    claim = claimed()
    made = outboxes.begin(claim)
    made.around(lambda: send(pusher_of_other))()
    made.sync()
    made.is_sent = True
    return claim, made


@pytest.mark.invariant(7)
def test_a_fenced_owner_commits_nothing(sent: tuple[Claim, Outputs], layout: Layout, other: Layout) -> None:
    claim, made = sent
    back = EntryName.parse(claim.name).returned(crashes=1).waiting()
    os.rename(f"{layout.cur}/{claim.name}", f"{layout.new}/{back}")
    for lease in os.listdir(layout.leases):
        os.rename(f"{layout.leases}/{lease}", f"{layout.fenced}/{lease}")
    with pytest.raises(ClaimLost):
        commit(claim, made.token)
    made.discard()
    assert len(outbox(other)) == 1  # another attempt may have been told of a commit that landed


@pytest.mark.parametrize("fault", [errno.ENOENT, errno.EIO, errno.ESTALE, errno.EINTR, errno.ETIMEDOUT])
def test_a_commit_whose_reply_is_lost_is_one(sent: tuple[Claim, Outputs], world: World, fault: int) -> None:
    claim, made = sent
    world.lose_reply("rename", fault)
    commit(claim, made.token)
    assert claim.entry.outputs == made.token
    claim.ack()


@pytest.mark.parametrize("fault", [errno.EIO, errno.ESTALE, errno.ENOSPC])
def test_a_commit_that_was_not_executed_is_tried_again(
    sent: tuple[Claim, Outputs], world: World, fault: int
) -> None:
    claim, made = sent
    world.refuse("rename", fault)
    with pytest.raises(StorageFault):
        commit(claim, made.token)
    assert claim.entry.outputs == ""
    commit(claim, made.token)
    assert claim.entry.outputs == made.token


def test_what_a_late_commit_commits_is_still_there(
    sent: tuple[Claim, Outputs], world: World, layout: Layout, other: Layout, outboxes: Outboxes
) -> None:
    claim, made = sent
    world.hold("rename", errno.EIO)
    with pytest.raises(MountFault):
        commit(claim, made.token)
    made.discard()  # the worker is told to end
    claim.abandon()
    assert world.land() == []
    [late] = os.listdir(layout.cur)
    assert EntryName.parse(late).is_handled
    outboxes.publish(layout, EntryName.parse(late).outputs)
    assert bodies(other.new) == [b"sent"]


def test_a_late_copy_of_a_commit_finds_nothing(
    sent: tuple[Claim, Outputs], world: World, layout: Layout
) -> None:
    claim, made = sent
    world.hold("rename", errno.EIO)
    with pytest.raises(MountFault):
        commit(claim, made.token)
    commit(claim, made.token)
    claim.ack()
    assert world.land() == [errno.ENOENT]
    assert os.listdir(layout.cur) == []


def test_a_commit_that_is_not_durable_is_synced_again(sent: tuple[Claim, Outputs], world: World) -> None:
    claim, made = sent
    world.refuse("fsync", errno.EIO)
    with pytest.raises(MountFault):
        commit(claim, made.token)
    world.forget()
    commit(claim, made.token)
    assert [call.what for call in world.asked("rename", "fsync")] == ["fsync"]


def test_outputs_that_can_not_be_made_durable_are_not_committed_and_are_removed(
    claimed: Callable[[], Claim], outboxes: Outboxes, other: Layout, pusher_of_other: Pusher, world: World
) -> None:
    made = outboxes.begin(claimed())
    made.around(lambda: send(pusher_of_other))()
    world.refuse("fsync", errno.EIO)
    with pytest.raises(MountFault):
        made.sync()
    made.discard()
    assert outbox(other) == []


def test_a_foreign_key_that_leaves_no_room_for_it_is_replaced(
    claimer: Claimer, layout: Layout, outboxes: Outboxes, pusher_of_other: Pusher
) -> None:
    claim = claimer.claim(put(layout.new, "x" * names.MAX_KEY_BYTES))
    assert claim is not None
    made = outboxes.begin(claim)
    made.around(lambda: send(pusher_of_other))()
    made.sync()
    commit(claim, made.token)
    assert len(os.fsencode(claim.name)) < 240
    claim.release()
    [back] = os.listdir(layout.new)
    assert EntryName.parse(back).outputs == made.token


def test_every_settle_of_a_committed_claim_keeps_it_so(sent: tuple[Claim, Outputs], layout: Layout) -> None:
    claim, made = sent
    commit(claim, made.token)
    claim.postpone(5)
    [deferred] = os.listdir(layout.later_new)
    assert EntryName.parse(deferred).outputs == made.token


# Recovering


def test_whoever_claims_a_committed_entry_publishes_what_is_left(
    claimed: Callable[[], Claim], claimer: Claimer, outboxes: Outboxes, layout: Layout, other: Layout
) -> None:
    claim = claimed()
    made = outboxes.begin(claim)
    pushers = [Pusher(queue, host=LABEL, system=claimer.system) for queue in (layout, other)]
    made.around(lambda: [send(pusher, data) for pusher in pushers for data in SENT])()
    made.sync()
    commit(claim, made.token)
    os.rename(  # a part of it was published before the death
        f"{outputs.outbox_of(other)}/{(first := min(outbox(other)))}",
        f"{other.new}/{first.partition('.')[2]}",
    )
    claim.release()
    [back] = [name for name in os.listdir(layout.new) if ",o=" in name]
    again = claimer.claim(back)
    assert again is not None
    assert again.entry.is_handled
    outboxes.finish(again)
    again.ack()
    assert bodies(other.new) == bodies(layout.new) == sorted(SENT)
    assert outbox(other) == outbox(layout) == os.listdir(layout.cur) == []


def test_the_commit_is_synced_before_another_publishes_it(
    sent: tuple[Claim, Outputs], outboxes: Outboxes, world: World, layout: Layout
) -> None:
    """Whoever has committed may have died before that, and the power may go."""
    claim, made = sent
    commit(claim, made.token)
    world.forget()
    outboxes.finish(claim)
    asked = [call.arguments[0] for call in world.asked("fsync", "rename")]
    assert asked[0] == layout.cur
    assert any("/outbox/" in path for path in asked)


def test_what_a_strangers_name_says_is_done_publishes_nothing_of_others(
    sent: tuple[Claim, Outputs], claimer: Claimer, outboxes: Outboxes, layout: Layout, other: Layout
) -> None:
    """It can name no token that is not committed, since it sees only what waits."""
    claim = claimer.claim(put(layout.new, "1.x,o=0123456789,n=1"))
    assert claim is not None
    outboxes.finish(claim)
    claim.ack()
    assert (bodies(other.new), len(outbox(other))) == ([], 1)


def test_what_another_has_published_is_synced_before_the_entry_ends(
    sent: tuple[Claim, Outputs], outboxes: Outboxes, world: World, other: Layout
) -> None:
    """It may have died between its rename and the sync."""
    claim, made = sent
    commit(claim, made.token)
    [draft] = outbox(other)
    os.rename(f"{outputs.outbox_of(other)}/{draft}", f"{other.new}/{draft.partition('.')[2]}")
    world.forget()
    outboxes.finish(claim)
    assert {other.new, other.later_new} <= {call.arguments[0] for call in world.asked("fsync")}


def test_while_a_queue_of_the_project_is_away_nothing_is_taken_for_published(
    sent: tuple[Claim, Outputs], layout: Layout, other: Layout, world: World
) -> None:
    claim, made = sent
    commit(claim, made.token)
    away = Outboxes(lambda: [layout, Layout(f"{other.path}-unmounted")], system=world.system)
    with pytest.raises(QueueMissing, match="mount it"):
        away.finish(claim)


def test_an_entry_that_was_handed_on_says_so_and_is_handled_after_its_outputs_are_published(
    claimed: Callable[[], Claim],
    outboxes: Outboxes,
    layout: Layout,
    other: Layout,
    slots: FakeSlots,
    world: World,
    pusher_of_other: Pusher,
) -> None:
    claim = claimed()
    made = outboxes.begin(claim)
    made.around(lambda: send(pusher_of_other, b"beside it"))()
    made.sync()
    claim.handoff(other, outputs=made.token + names.HANDED_ON)
    [handed] = os.listdir(other.new)
    assert EntryName.parse(handed).outputs == f"{made.token}h"
    lease = Lease.join(other, names.lease_name(LABEL, world.system), holder(), system=world.system)
    there = Claimer(other, slots, lease=lease.name, host=LABEL, system=world.system).claim(handed)
    assert there is not None
    assert not there.entry.is_handled
    outboxes.finish(there)
    assert bodies(other.new) == [b"beside it"]
    there.defer(5)
    [deferred] = os.listdir(other.later_new)
    assert EntryName.parse(deferred).outputs == ""  # there is nothing left to be published
    assert EntryName.parse(deferred).key == claim.key


# Deaths


def attempt(layout: Layout, other: Layout, told: list[str], system: System) -> None:
    """A handler sends to three; what `told` says is what its worker has got to."""
    slots = FakeSlots()
    claimer = Claimer(layout, slots, lease="host-1-abcdef", host=LABEL, system=system)
    claim = claimer.claim(min(os.listdir(layout.new)))
    assert claim is not None
    outboxes = Outboxes(lambda: [layout, other], system=system)
    pusher, made = Pusher(other, host=LABEL, system=system), outboxes.begin(claim)
    made.around(lambda: [send(pusher, data) for data in SENT])()
    made.sync()
    told.append("returned")
    made.is_sent = True
    commit(claim, made.token)
    told.append("committed")
    made.publish()
    claim.ack()
    told.append("acked")


def recovered(layout: Layout, other: Layout) -> bool:
    """Do what the next claimer does; whether it had to run the handler."""
    for name in os.listdir(layout.cur):
        back = EntryName.parse(name).returned(crashes=1).waiting()
        os.rename(f"{layout.cur}/{name}", f"{layout.new}/{back}")
    if not (left := os.listdir(layout.new)):
        return False
    outputs._durable.clear()
    entry = EntryName.parse(left[0])
    assert bodies(other.new) == [] or entry.is_handled, "published before the commit"
    if not entry.is_handled:
        attempt(layout, other, [], SYSTEM)
        return True
    slots = FakeSlots()
    claim = Claimer(layout, slots, lease="host-2-abcdef", host=LABEL).claim(left[0])
    assert claim is not None
    Outboxes(lambda: [layout, other]).finish(claim)
    claim.ack()
    return False


def copies(tmp_path: Path) -> Iterator[tuple[int, Layout, Layout]]:
    """The two queues as they were before, for each step."""
    for queue in ("queue", "other"):
        create_queue(str(tmp_path / queue))
    Pusher(Layout(str(tmp_path / "queue")), host=LABEL).push(lambda stem: [b"to be handled"])
    for step in itertools.count():
        home = tmp_path / f"{step}"
        home.mkdir()
        made = [Layout(str(shutil.copytree(tmp_path / name, home / name))) for name in ("queue", "other")]
        outputs._durable.clear()
        yield step, made[0], made[1]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.slow
def test_after_a_death_at_any_call_each_of_three_recipients_has_exactly_one_entry(
    tmp_path: Path, before: bool
) -> None:
    again = []
    for step, layout, other in copies(tmp_path):
        told: list[str] = []
        mortal = Mortal(World(seconds=START).system, step, before=before)
        try:
            attempt(layout, other, told, mortal.system)
        except Death:
            pass
        else:
            break
        if "returned" not in told:
            assert bodies(other.new) == []
        again.append(recovered(layout, other))
        assert "committed" not in told or not again[-1], step
        assert bodies(other.new) == sorted(SENT), step
        assert os.listdir(layout.new) == os.listdir(layout.cur) == [], step
    assert step > 30
    assert [handled for handled, _ in itertools.groupby(again)] == [True, False]


@pytest.mark.slow
def test_so_it_is_after_kill_9_at_each_of_its_system_calls(tmp_path: Path) -> None:
    again = []
    for step, layout, other in copies(tmp_path):
        if (pid := os.fork()) == 0:
            mortal = Mortal(SYSTEM, step, before=False, die=lambda: os.kill(os.getpid(), signal.SIGKILL))
            attempt(layout, other, [], mortal.system)
            os._exit(0)
        if os.waitpid(pid, 0)[1] == 0:
            break
        again.append(recovered(layout, other))
        assert bodies(other.new) == sorted(SENT), step
        assert os.listdir(layout.new) == os.listdir(layout.cur) == [], step
    assert len(again) > 30
    assert [handled for handled, _ in itertools.groupby(again)] == [True, False]


# Upkeep


class Gone:
    """Every lease but one's own has ended."""

    @staticmethod
    def abandoned(leases: dict[str, list[str]]) -> list[str]:
        return list(leases)


def reclaimer(layout: Layout, world: World, max_crashes: int, ended: set[str] | None = None) -> Reclaimer:
    observer: object = Gone()
    return Reclaimer(
        layout,
        observer,  # type: ignore[arg-type]
        own=lambda: "another",
        look=lambda: lambda owner: "dead",
        host=LABEL,
        max_crashes=max_crashes,
        grace_seconds=5,
        ended=ended,
        system=world.system,
    )


def test_what_was_sent_under_a_claim_that_was_taken_back_goes_at_the_next_sweep(
    sent: tuple[Claim, Outputs], layout: Layout, other: Layout, world: World
) -> None:
    ended: set[str] = set()
    box = outputs.outbox_of(other)
    stranger = put(box, "9876543210.1.x,S=4")
    reclaimer(layout, world, 5, ended).scan()
    sweeper = Sweeper(other, queues=lambda: [layout, other], ended=ended, system=world.system)
    assert sweeper.sweep(START) == 1
    assert os.listdir(box) == [stranger]
    with pytest.raises(ClaimLost):  # as by a worker that was only slow
        commit(sent[0], sent[1].token)


@pytest.mark.parametrize("late", [False, True], ids=["before the scan", "during it"])
def test_what_is_committed_when_the_claim_is_taken_back_stays(
    sent: tuple[Claim, Outputs], layout: Layout, other: Layout, world: World, late: bool
) -> None:
    claim, made = sent
    ended: set[str] = set()
    scan = reclaimer(layout, world, 5, ended)
    seen = claim.name
    commit(claim, made.token)
    if late:  # what was listed before it
        scan.reclaim_claim(seen, charged=True, moved=Reclaimed())
    scan.scan()
    assert ended == set()
    Sweeper(other, queues=lambda: [layout, other], ended=ended, system=world.system).sweep(START)
    assert len(os.listdir(outputs.outbox_of(other))) == 1


def test_a_committed_entry_is_finished_however_often_its_workers_died(
    sent: tuple[Claim, Outputs], layout: Layout, world: World
) -> None:
    claim, made = sent
    commit(claim, made.token)
    moved: Reclaimed = reclaimer(layout, world, 1).scan()
    assert not moved.buried
    [back] = os.listdir(layout.new)
    assert EntryName.parse(back).outputs == made.token
    assert EntryName.parse(back).crashes == 1


@pytest.mark.parametrize(("what", "kept"), [("o=0123456789", "u="), ("o=0123456789h", "o=0123456789h")])
def test_a_requeued_dead_letter_is_handled_anew_and_what_a_handoff_has_brought_is_kept(
    layout: Layout, world: World, what: str, kept: str
) -> None:
    put(layout.dead_new, f"1.y,{what},a=1,n=2")
    found = entries.find(layout, "1.y")
    back = entries.requeue(layout, found, system=world.system)
    assert back.startswith(f"1.y,{kept}")
    assert back.endswith(",n=3")


def test_what_a_worker_has_handled_is_neither_cancelled_nor_rescheduled(layout: Layout, world: World) -> None:
    put(layout.new, "1.y,o=0123456789,a=1,n=1")
    assert not schedule.cancel(layout, "1.y", host=LABEL, system=world.system)
    with pytest.raises(EntryNotFound):
        schedule.reschedule(layout, "1.y", int(START) + 60, host=LABEL, system=world.system)


def test_the_keepers_sweep_does_it_and_looks_at_nothing_more_in_a_queue_without_outputs(
    layout: Layout, world: World
) -> None:
    sweeper = Sweeper(layout, queues=lambda: [layout], system=world.system)
    sweeper.sweep(START)
    assert [str(call) for call in world.calls if "outbox" in call.arguments[0]] == ["open outbox"]
    path = old(layout, "0123456789")
    assert (sweeper.sweep(START), sweeper.sweep(START)) == (0, 1)
    assert not os.path.exists(path)


def old(layout: Layout, token: str) -> str:
    os.makedirs(outputs.outbox_of(layout), exist_ok=True)
    path = f"{outputs.outbox_of(layout)}/{token}.1.x,S=4"
    Path(path).write_bytes(b"sent")
    os.utime(path, (START - KEPT_SECONDS - 1,) * 2)
    return path


def test_what_nobody_will_publish_goes_after_a_month_and_two_looks(other: Layout, world: World) -> None:
    path = old(other, "0123456789")
    young = f"{outputs.outbox_of(other)}/{put(outputs.outbox_of(other), '9876543210.1.x,S=4')}"
    os.utime(young, (START,) * 2)
    sweeper = OutboxSweeper(other, list, set(), system=world.system)
    assert [sweeper.sweep(START) for _ in range(3)] == [0, 1, 0]
    assert (os.path.exists(path), os.path.exists(young)) == (False, True)


@pytest.mark.parametrize("folder", ["new", "cur", ".later/new", ".dead/new"])
@pytest.mark.parametrize("what", ["o=0123456789", "o=0123456789h"])
def test_it_stays_while_its_message_is_anywhere_in_a_queue_of_the_project(
    layout: Layout, other: Layout, world: World, folder: str, what: str
) -> None:
    path = old(other, "0123456789")
    entry = put(f"{layout.path}/{folder}", f"1.y,{what},a=1,n=2")
    sweeper = OutboxSweeper(other, lambda: [layout, other], set(), system=world.system)
    assert [sweeper.sweep(START) for _ in range(3)] == [0, 0, 0]
    os.unlink(f"{layout.path}/{folder}/{entry}")
    assert [sweeper.sweep(START) for _ in range(2)] == [0, 1]
    assert not os.path.exists(path)


def test_it_stays_while_the_handler_runs_that_has_sent_it(
    claimed: Callable[[], Claim], layout: Layout, other: Layout, world: World
) -> None:
    path = old(other, names.unique_of(claimed().name))
    sweeper = OutboxSweeper(other, lambda: [layout], set(), system=world.system)
    assert [sweeper.sweep(START) for _ in range(3)] == [0, 0, 0]
    assert os.path.exists(path)


def test_it_stays_while_a_queue_of_the_project_is_away(other: Layout, world: World) -> None:
    path = old(other, "0123456789")
    sweeper = OutboxSweeper(other, lambda: [Layout(f"{other.path}-unmounted")], set(), system=world.system)
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            sweeper.sweep(START)
    assert os.path.exists(path)
