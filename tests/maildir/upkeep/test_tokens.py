"""Conversation tokens: taken by one, given back, freed for the dead, never made twice."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from itertools import count

import pytest

from maildefer.errors import MountFault, NoSpace, StorageFault
from maildefer.maildir.layout import Format, Layout
from maildefer.maildir.names import Owner
from maildefer.maildir.rights.folder import MARK
from maildefer.maildir.upkeep.leases import Lease, fence
from maildefer.maildir.upkeep.observer import LeaseObserver
from maildefer.maildir.upkeep.reclaim import OwnerState
from maildefer.maildir.upkeep.token_reclaim import TokenReclaimer
from maildefer.maildir.upkeep.tokens import Tokens, slots_of, token_of
from tests.support.queues import LABEL, FakeSlots, World, holder

TALK = "['n.START', 'ann@example.org']"
TOKEN = token_of(TALK)
OTHER_LEASE = f"{LABEL}-99-0badcafe"
OTHER_OF_SAME_TOKEN = next(text for text in map(str, count()) if token_of(text) == TOKEN)


@pytest.fixture
def make(layout: Layout, lease: Lease, world: World) -> Callable[..., Tokens]:
    """Tokens of one more process."""
    pids = count(100)

    def tokens(slots: FakeSlots | None = None, lease_name: str | None = lease.name) -> Tokens:
        world.pid = next(pids)
        made = Tokens(layout, slots or FakeSlots(), lease=lambda: lease_name, system=world.system)
        world.forget()
        return Both(made, world)  # type: ignore[return-value]

    return tokens


class Both:
    """The tokens of a process, used in that process: several take turns in one test."""

    def __init__(self, tokens: Tokens, world: World) -> None:
        self.tokens, self.world, self.pid = tokens, world, world.pid

    def take_token(self, conversation: str) -> bool:
        self.world.pid = self.pid
        return self.tokens.take_token(conversation)

    def release_token(self, conversation: str) -> None:
        self.world.pid = self.pid
        self.tokens.release_token(conversation)

    def take_one_of(self, tokens: list[str]) -> str | None:
        self.world.pid = self.pid
        return self.tokens.take_one_of(tokens)

    def release(self, token: str) -> None:
        self.world.pid = self.pid
        self.tokens.release(token)


def freeing(
    layout: Layout, lease: Lease, world: World, state: OwnerState = "held", asked: list[Owner] | None = None
) -> TokenReclaimer:
    observer = LeaseObserver(layout, Format(), lambda: lease.name, lambda holder: False, system=world.system)

    def state_of(owner: Owner) -> OwnerState:
        if asked is not None:
            asked.append(owner)
        return state

    return TokenReclaimer(
        layout, observer, own=lambda: lease.name, look=lambda: state_of, system=world.system
    )


def free(layout: Layout, token: str = TOKEN) -> list[str]:
    """The names of a free token."""
    return sorted(name for name in os.listdir(f"{layout.tokens}/{token[:-1]}") if name.startswith(token))


def held(layout: Layout) -> list[str]:
    return sorted(os.listdir(f"{layout.tokens}/held"))


def drafts(layout: Layout) -> list[str]:
    return [name for name in os.listdir(layout.tmp) if name.startswith(".tokens")]


# Taking, giving back


def test_a_taken_token_is_refused_to_others_until_it_is_given_back(make: Callable[..., Tokens]) -> None:
    first, second = make(), make()
    assert first.take_token(TALK)
    assert not second.take_token(TALK)
    first.release_token(TALK)
    assert second.take_token(TALK)
    assert not first.take_token(TALK)


def test_other_conversations_go_on_beside_it(make: Callable[..., Tokens]) -> None:
    first, second = make(), make()
    assert first.take_token(TALK)
    assert second.take_token("another")


def test_one_message_may_take_part_in_two_conversations_of_one_token(make: Callable[..., Tokens]) -> None:
    first, second = make(), make()
    assert first.take_token(TALK)
    assert first.take_token(OTHER_OF_SAME_TOKEN)
    first.release_token(TALK)
    assert not second.take_token(TALK)
    first.release_token(OTHER_OF_SAME_TOKEN)
    assert second.take_token(TALK)


@pytest.mark.invariant(3)
def test_a_taken_tokens_name_tells_lease_process_and_number(
    make: Callable[..., Tokens], layout: Layout, lease: Lease
) -> None:
    slots = FakeSlots()
    tokens = make(slots)
    tokens.take_token(TALK)
    assert held(layout) == [f"{TOKEN}:1,{lease.name}.100.1"]
    assert list(slots.held.values()) == [(1, held(layout)[0])]


@pytest.mark.invariant(4)
def test_a_name_never_comes_back(make: Callable[..., Tokens], layout: Layout) -> None:
    tokens = make()
    for times in range(1, 4):
        assert tokens.take_token(TALK)
        assert free(layout) == []
        tokens.release_token(TALK)
        assert free(layout) == [f"{TOKEN},n={times}"]
    assert held(layout) == []


def test_a_token_is_on_the_board_from_before_its_rename_until_after_the_one_back(
    make: Callable[..., Tokens], world: World
) -> None:
    slots = FakeSlots()
    tokens = make(slots)
    seen: list[int] = []
    world.before("rename", lambda: seen.append(len(slots.held)), where="/held/", times=2)
    tokens.take_token(TALK)
    world.after("rename", lambda: seen.append(len(slots.held)), where="/held/")
    tokens.release_token(TALK)
    assert seen == [1, 1, 1]
    assert slots.held == {}


@pytest.mark.invariant(8)
def test_nothing_is_taken_while_there_is_no_good_lease(make: Callable[..., Tokens], world: World) -> None:
    assert not make(lease_name=None).take_token(TALK)
    assert world.asked("rename") == []


@pytest.mark.invariant(8)
def test_nothing_is_taken_after_a_listing_that_outlasted_the_lease(
    layout: Layout, lease: Lease, world: World
) -> None:
    lives = [lease.name, lease.name, lease.name, None]
    tokens = Tokens(layout, FakeSlots(), lease=lambda: lives.pop(0), system=world.system)
    assert tokens.take_token(TALK)
    tokens.release_token(TALK)
    assert not tokens.take_token(TALK)
    assert held(layout) == []


def test_a_child_that_a_handler_forked_gives_nothing_back(
    make: Callable[..., Tokens], world: World, layout: Layout
) -> None:
    slots = FakeSlots()
    tokens = make(slots)
    tokens.take_token(TALK)
    world.pid += 1000
    tokens.tokens.release_token(TALK)  # type: ignore[attr-defined]
    assert len(held(layout)) == 1
    assert len(slots.held) == 1


def test_a_free_token_costs_one_listing_and_one_rename(make: Callable[..., Tokens], world: World) -> None:
    tokens = make()
    tokens.take_token(TALK)
    tokens.release_token(TALK)
    world.forget()
    tokens.take_token(TALK)
    tokens.release_token(TALK)
    assert [call.what for call in world.calls] == ["utime", "listdir", "rename", "rename"]


# Making


def test_a_folder_of_tokens_is_made_whole_at_its_first_use(
    make: Callable[..., Tokens], layout: Layout
) -> None:
    make().take_token(TALK)
    prefix = TOKEN[:-1]
    expected = {MARK, *(f"{prefix}{digit:x}" for digit in range(16))} - {TOKEN}
    assert set(os.listdir(f"{layout.tokens}/{prefix}")) == expected
    assert drafts(layout) == []


def test_its_files_are_durable_before_it_can_be_seen(make: Callable[..., Tokens], world: World) -> None:
    make().take_token(TALK)
    asked = [call for call in world.asked("fsync", "rename") if "/tmp/.tokens" in call.arguments[0]]
    assert [call.what for call in asked] == ["fsync", "rename"]


def test_of_two_that_make_a_folder_at_once_one_gets_the_token(
    make: Callable[..., Tokens], layout: Layout, world: World
) -> None:
    first, second = make(), make()
    took: list[bool] = []
    world.before("rename", lambda: took.append(second.take_token(TALK)), where="/tmp/.tokens")
    took.append(first.take_token(TALK))
    assert took == [True, False]
    assert len(held(layout)) == 1
    assert free(layout) == []
    assert drafts(layout) == []


@pytest.mark.invariant(10)
def test_an_overlooked_token_is_not_made_again(
    make: Callable[..., Tokens], layout: Layout, world: World
) -> None:
    first, second = make(), make()
    first.take_token(TALK)
    first.release_token(TALK)
    [name] = free(layout)
    world.hide(name)
    assert not second.take_token(TALK)
    world.hidden.clear()
    assert free(layout) == [name]
    assert second.take_token(TALK)


@pytest.mark.invariant(10)
@pytest.mark.slow
def test_an_overlooked_folder_is_not_made_again(
    make: Callable[..., Tokens], layout: Layout, world: World
) -> None:
    """A client whose cache says that there is none, while all of its tokens are taken."""
    first, second = make(), make()
    assert all(first.take_token(text) for text in talks_of_one_folder())
    world.refuse("listdir", errno.ENOENT, where=f"{layout.tokens}/{TOKEN[:-1]}")
    assert not second.take_token(TALK)
    assert free(layout) == []
    assert len(held(layout)) == 16
    assert drafts(layout) == []


def talks_of_one_folder() -> list[str]:
    found: dict[str, str] = {}
    for text in map(str, count()):
        if token_of(text)[:-1] == TOKEN[:-1]:
            found.setdefault(token_of(text), text)
        if len(found) == 16:
            return list(found.values())
    raise AssertionError


def test_a_full_disk_leaves_no_half_made_folder(
    make: Callable[..., Tokens], layout: Layout, world: World
) -> None:
    tokens = make()
    world.refuse("open", errno.ENOSPC, where=f"/{TOKEN[:-1]}7")
    with pytest.raises(NoSpace):
        tokens.take_token(TALK)
    assert not os.path.exists(f"{layout.tokens}/{TOKEN[:-1]}")
    assert drafts(layout) == []
    assert tokens.take_token(TALK)


def test_a_folder_that_lands_late_is_whole(make: Callable[..., Tokens], layout: Layout, world: World) -> None:
    tokens = make()
    world.hold("rename", errno.EIO, where="/tmp/.tokens")
    with pytest.raises(MountFault):
        tokens.take_token(TALK)
    assert world.land() == []
    assert len(os.listdir(f"{layout.tokens}/{TOKEN[:-1]}")) == 17
    assert tokens.take_token(TALK)


def test_a_folder_that_lands_after_anothers_finds_the_door_closed(
    make: Callable[..., Tokens], layout: Layout, world: World
) -> None:
    first, second = make(), make()
    world.hold("rename", errno.EIO, where="/tmp/.tokens")
    with pytest.raises(MountFault):
        first.take_token(TALK)
    assert second.take_token(TALK)
    assert world.land() in ([errno.ENOTEMPTY], [errno.EEXIST])
    assert free(layout) == []


@pytest.mark.parametrize("refused", [errno.EACCES, errno.EIO, errno.ENOSPC])
def test_a_folder_that_can_not_be_put_there_is_refused_for_that_and_not_for_being_missing(
    make: Callable[..., Tokens], world: World, refused: int
) -> None:
    world.refuse("rename", refused, where="/tmp/.tokens")
    with pytest.raises(StorageFault) as caught:
        make().take_token(TALK)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == refused


def test_a_folders_lost_reply_is_no_fault(make: Callable[..., Tokens], world: World) -> None:
    world.lose_reply("rename", errno.ENOENT, where="/tmp/.tokens")
    assert make().take_token(TALK)


def test_the_folder_of_taken_tokens_is_made_again(make: Callable[..., Tokens], layout: Layout) -> None:
    tokens = make()
    tokens.take_token(TALK)
    tokens.release_token(TALK)
    os.rmdir(f"{layout.tokens}/held")
    assert not tokens.take_token(TALK)
    assert tokens.take_token(TALK)


def test_a_token_too_many_in_a_torn_copy_of_the_queue_is_removed(
    make: Callable[..., Tokens], layout: Layout
) -> None:
    tokens = make()
    tokens.take_token(TALK)
    tokens.release_token(TALK)
    open(f"{layout.tokens}/{TOKEN[:-1]}/{TOKEN}", "xb").close()
    assert tokens.take_token(TALK)
    assert free(layout) == []


@pytest.mark.invariant(10)
def test_a_name_that_a_listing_still_shows_does_not_hide_the_newer_one(
    make: Callable[..., Tokens], layout: Layout, world: World
) -> None:
    tokens = make()
    tokens.take_token(TALK)
    tokens.release_token(TALK)
    world.show(f"{layout.tokens}/{TOKEN[:-1]}", TOKEN)
    assert tokens.take_token(TALK)


# Doubtful replies


@pytest.fixture
def used(make: Callable[..., Tokens], world: World) -> tuple[Tokens, FakeSlots]:
    """A process whose token exists and is free."""
    slots = FakeSlots()
    tokens = make(slots)
    tokens.take_token(TALK)
    tokens.release_token(TALK)
    world.forget()
    return tokens, slots


@pytest.mark.parametrize("fault", [errno.EIO, errno.ESTALE, errno.EINTR])
def test_a_lost_reply_is_settled_by_a_look(
    fault: int, used: tuple[Tokens, FakeSlots], layout: Layout, world: World
) -> None:
    tokens, slots = used
    world.lose_reply("rename", fault, where="/held/")
    assert tokens.take_token(TALK)
    assert len(slots.held) == 1
    tokens.release_token(TALK)
    assert free(layout) == [f"{TOKEN},n=2"]


def test_a_retry_that_finds_nothing_is_settled_by_a_look(
    used: tuple[Tokens, FakeSlots], world: World
) -> None:
    tokens, _ = used
    world.take("rename", 5, where="/held/")
    world.lose_reply("rename", errno.ENOENT, where="/held/")
    assert tokens.take_token(TALK)


def test_a_quick_loss_needs_no_look(
    make: Callable[..., Tokens], used: tuple[Tokens, FakeSlots], world: World
) -> None:
    tokens, slots = used
    other = make()
    world.before("rename", lambda: other.take_token(TALK), where="/held/")
    assert not tokens.take_token(TALK)
    assert len(world.asked("listdir")) == 2  # each its token's folder
    assert slots.held == {}


@pytest.mark.parametrize("fault", [errno.EIO, errno.EACCES, errno.ENOSPC])
def test_a_refused_rename_is_raised_and_nothing_is_held(
    fault: int, used: tuple[Tokens, FakeSlots], layout: Layout, world: World
) -> None:
    tokens, slots = used
    world.refuse("rename", fault, where="/held/")
    with pytest.raises(Exception, match="tokens"):
        tokens.take_token(TALK)
    assert slots.held == {}
    assert held(layout) == []
    assert tokens.take_token(TALK)


@pytest.mark.parametrize("fault", [errno.EIO, errno.ENOENT, errno.ENOSPC])
def test_a_token_that_can_not_be_given_back_is_left_to_the_audit(
    fault: int, used: tuple[Tokens, FakeSlots], layout: Layout, lease: Lease, world: World
) -> None:
    tokens, slots = used
    tokens.take_token(TALK)
    world.refuse("rename", fault, where="/held/")
    tokens.release_token(TALK)
    assert slots.held == {}
    assert len(held(layout)) == 1
    assert not tokens.take_token(TALK)
    assert freeing(layout, lease, world, "alive").scan() == 1
    assert tokens.take_token(TALK)


@pytest.mark.invariant(4)
def test_a_giving_back_that_lands_late_frees_nobody_elses_token(
    make: Callable[..., Tokens], used: tuple[Tokens, FakeSlots], layout: Layout, lease: Lease, world: World
) -> None:
    tokens, _ = used
    tokens.take_token(TALK)
    world.hold("rename", errno.EIO, where="/held/")
    tokens.release_token(TALK)
    freeing(layout, lease, world, "alive").scan()
    other = make()
    assert other.take_token(TALK)
    assert world.land() == [errno.ENOENT]
    assert not tokens.take_token(TALK)


@pytest.mark.invariant(4)
def test_a_taking_that_lands_late_is_freed_by_the_audit(
    used: tuple[Tokens, FakeSlots], layout: Layout, lease: Lease, world: World
) -> None:
    tokens, slots = used
    world.hold("rename", errno.EIO, where="/held/")
    with pytest.raises(MountFault):
        tokens.take_token(TALK)
    assert world.land() == []
    assert slots.held == {}
    assert not tokens.take_token(TALK)
    assert freeing(layout, lease, world, "alive").scan() == 1
    assert tokens.take_token(TALK)


# Freeing


def test_without_any_conversation_there_is_nothing_to_free(
    layout: Layout, lease: Lease, world: World
) -> None:
    assert freeing(layout, lease, world, "dead").scan() == 0
    assert freeing(layout, lease, world, "dead").reclaim_tokens_of(100) == 0


def test_a_token_that_a_worker_is_on_is_left_alone(
    make: Callable[..., Tokens], layout: Layout, lease: Lease, world: World
) -> None:
    make().take_token(TALK)
    asked: list[Owner] = []
    assert freeing(layout, lease, world, "held", asked).scan() == 0
    assert asked == [Owner(lease.name, 100, 1)]
    assert len(held(layout)) == 1


@pytest.mark.parametrize("state", ["alive", "dead"])
def test_a_token_that_nobody_is_on_is_freed(
    state: OwnerState, make: Callable[..., Tokens], layout: Layout, lease: Lease, world: World
) -> None:
    make().take_token(TALK)
    assert freeing(layout, lease, world, state).scan() == 1
    assert free(layout) == [f"{TOKEN},n=1"]


def test_the_board_is_read_after_the_listing(
    make: Callable[..., Tokens], layout: Layout, lease: Lease, world: World
) -> None:
    """A token taken between the two is no business of this scan."""
    first, second, asked = make(), make(), list[Owner]()
    first.take_token(TALK)
    world.after("listdir", lambda: second.take_token("another"), where="/held")
    freeing(layout, lease, world, "held", asked).scan()
    assert [owner.pid for owner in asked] == [100]


def test_a_dead_workers_tokens_are_freed_and_no_others(
    make: Callable[..., Tokens], layout: Layout, lease: Lease, world: World
) -> None:
    first, second = make(), make()
    first.take_token(TALK)
    second.take_token("another")
    assert freeing(layout, lease, world).reclaim_tokens_of(100) == 1
    assert [name.partition(":")[0] for name in held(layout)] == [token_of("another")]


@pytest.mark.invariant(6)
def test_a_token_under_a_live_lease_is_not_freed(
    make: Callable[..., Tokens], layout: Layout, lease: Lease, world: World
) -> None:
    Lease.join(layout, OTHER_LEASE, holder(), system=world.system)
    make(lease_name=OTHER_LEASE).take_token(TALK)
    assert freeing(layout, lease, world, "dead").scan() == 0
    assert freeing(layout, lease, world).reclaim_tokens_of(100) == 0
    fence(layout, OTHER_LEASE, 0, system=world.system)
    assert freeing(layout, lease, world, "dead").scan() == 1


@pytest.mark.invariant(6)
def test_a_lease_that_one_listing_overlooks_keeps_its_tokens(
    make: Callable[..., Tokens], layout: Layout, lease: Lease, world: World
) -> None:
    Lease.join(layout, OTHER_LEASE, holder(), system=world.system)
    make(lease_name=OTHER_LEASE).take_token(TALK)
    world.hide(f"{OTHER_LEASE}.0")
    world.after("listdir", world.hidden.clear, where="/leases")
    assert freeing(layout, lease, world, "dead").scan() == 0


def test_one_token_that_can_not_be_freed_does_not_keep_the_others_from_it(
    make: Callable[..., Tokens], layout: Layout, lease: Lease, world: World
) -> None:
    first = make()
    first.take_token(TALK)
    first.take_token("another")
    world.refuse("rename", errno.EIO, where="/held/")
    assert freeing(layout, lease, world, "dead").scan() == 1
    assert len(held(layout)) == 1
    assert freeing(layout, lease, world, "dead").scan() == 1


def test_names_of_others_among_the_taken_are_left_alone(
    make: Callable[..., Tokens], layout: Layout, lease: Lease, world: World
) -> None:
    make().take_token(TALK)
    for name in (".nfs0001", "README", "nonsense:1,abc"):
        open(f"{layout.tokens}/held/{name}", "x").close()
    assert freeing(layout, lease, world, "dead").scan() == 1
    assert len(held(layout)) == 3


@pytest.mark.parametrize("text", ["", "ü", "\udc80", "a" * 5000, "../..", "a/b\0c"])
def test_any_conversation_has_a_token_with_a_safe_name(text: str, make: Callable[..., Tokens]) -> None:
    assert int(token_of(text), 16) < 65_536
    assert len(token_of(text)) == 4
    assert make().take_token(text)


# The slots of limits


@pytest.fixture
def make_limits(layout: Layout, lease: Lease, world: World) -> Callable[[], Tokens]:
    pids = count(100)

    def limits() -> Tokens:
        world.pid = next(pids)
        made = Tokens(layout, FakeSlots(), lease=lambda: lease.name, folder="limits", system=world.system)
        return Both(made, world)  # type: ignore[return-value]

    return limits


def test_a_limit_has_so_many_slots_in_a_folder_of_their_own(
    make_limits: Callable[[], Tokens], layout: Layout
) -> None:
    slots = slots_of("workers.sending.send", 2)
    first, second, third = make_limits(), make_limits(), make_limits()
    assert [one.take_one_of(slots) for one in (first, second, third)] == [slots[0], slots[1], None]
    second.release(slots[1])
    assert third.take_one_of(slots) == slots[1]
    assert not os.path.exists(f"{layout.tokens}/held")
    assert len(os.listdir(f"{layout.limits}/held")) == 2


def test_the_slots_of_a_limit_are_different_tokens_also_at_the_end_of_all() -> None:
    last = next(text for text in map(str, count()) if token_of(text) == "fffe")
    assert slots_of(last, 4) == ["fffe", "ffff", "0000", "0001"]


@pytest.mark.invariant(6)
def test_the_slots_of_the_dead_are_free_again_and_their_owners_are_told_of(
    make_limits: Callable[[], Tokens], layout: Layout, lease: Lease, world: World
) -> None:
    slots = slots_of("workers.sending.send", 1)
    dead = Tokens(layout, FakeSlots(), lease=lambda: OTHER_LEASE, folder="limits", system=world.system)
    assert dead.take_one_of(slots)
    living = make_limits()
    assert living.take_one_of(slots) is None
    reclaimer = freeing(layout, lease, world)
    assert reclaimer.scan() == 1
    assert reclaimer.overlaps == [f"{OTHER_LEASE}.{dead._pid}"]
    assert living.take_one_of(slots)
    assert freeing(layout, lease, world).scan() == 0
