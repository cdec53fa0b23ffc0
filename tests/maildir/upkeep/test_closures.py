"""What is closed until a time: closed for longer each time, and tried by one process at a time."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.upkeep.closures import LONGEST_SECONDS, TRIAL_SECONDS, Closures
from tests.support.queues import World

NAME = "b.example"


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create_queue(str(tmp_path / "home"))


def made(layout: Layout, world: World) -> Closures:
    """As another process has it."""
    return Closures(
        layout, now=lambda: world.seconds, draw=lambda least, most: (least + most) / 2, system=world.system
    )


def files(layout: Layout) -> list[str]:
    return os.listdir(f"{layout.control}/closed")


def test_what_is_closed_is_closed_for_all_and_only_by_its_name(layout: Layout, world: World) -> None:
    assert made(layout, world).close(NAME, "refused") == (60.0, True)
    other = made(layout, world)
    assert other.seconds_closed(NAME) == pytest.approx(60, abs=0.01)
    assert other.seconds_closed("c.example") is None
    [told] = other.records()
    assert (told.name, told.words, told.closure.failures) == (NAME, "refused", 1)


def test_what_others_have_closed_stays_as_it_is(layout: Layout, world: World) -> None:
    first, second = made(layout, world), made(layout, world)
    first.close(NAME, "refused")
    world.pass_time(20)
    seconds, is_own = second.close(NAME, "refused again")
    assert (round(seconds), is_own) == (40, False)
    assert len(files(layout)) == 1


def test_where_it_is_due_one_process_tries_it_and_the_others_wait_on(layout: Layout, world: World) -> None:
    first, second = made(layout, world), made(layout, world)
    first.close(NAME, "refused")
    assert not first.begin_trial(NAME), "it is not due"
    world.pass_time(61)
    assert (first.seconds_closed(NAME), second.seconds_closed(NAME)) == (0.0, 0.0)
    assert first.begin_trial(NAME)
    assert not second.begin_trial(NAME)
    assert second.seconds_closed(NAME) == 120.0, "as long as it is closed if the trial fails"
    assert first.close(NAME, "still")[0] == 120.0
    seconds, is_own = second.close(NAME, "an old attempt that was slow")
    assert (round(seconds), is_own) == (120, False)
    [told] = second.records()
    assert (told.closure.failures, told.words, told.since_seconds) == (2, "still", int(world.seconds - 61))


def test_each_failure_doubles_the_time_up_to_an_hour(layout: Layout, world: World) -> None:
    closures, seconds = made(layout, world), 0.0
    for _ in range(12):
        seconds = closures.close(NAME, "refused")[0]
        world.pass_time(seconds + 1)
        assert closures.seconds_closed(NAME) == 0.0
        assert closures.begin_trial(NAME)
    assert seconds == LONGEST_SECONDS


def test_a_trial_that_is_never_heard_of_again_is_followed_by_another(layout: Layout, world: World) -> None:
    first, second = made(layout, world), made(layout, world)
    first.close(NAME, "refused")
    world.pass_time(61)
    first.seconds_closed(NAME)
    assert first.begin_trial(NAME)
    world.pass_time(TRIAL_SECONDS + 1)
    assert second.seconds_closed(NAME) == 0.0
    assert second.begin_trial(NAME)


def test_a_trial_for_which_nothing_was_done_is_left_to_others(layout: Layout, world: World) -> None:
    first, second = made(layout, world), made(layout, world)
    first.close(NAME, "refused")
    world.pass_time(61)
    first.seconds_closed(NAME)
    assert first.begin_trial(NAME)
    first.give_up_trial(NAME)
    assert second.seconds_closed(NAME) == 0.0
    assert second.begin_trial(NAME)


def test_what_has_answered_is_open_for_all_after_a_moment(layout: Layout, world: World) -> None:
    first, second = made(layout, world), made(layout, world)
    first.close(NAME, "refused")
    assert second.seconds_closed(NAME)
    assert first.open(NAME)
    assert files(layout) == []
    world.pass_time(3)
    assert second.seconds_closed(NAME) is None
    assert not second.open(NAME)


def test_a_lost_reply_to_the_begin_of_a_trial_is_settled_by_a_look(layout: Layout, world: World) -> None:
    closures = made(layout, world)
    closures.close(NAME, "refused")
    world.pass_time(61)
    closures.seconds_closed(NAME)
    world.lose_reply("rename", errno.EIO)
    assert closures.begin_trial(NAME)
    assert closures.close(NAME, "still")[1], "it was our own trial"


def test_a_time_that_no_closure_has_is_over(layout: Layout, world: World) -> None:
    closures = made(layout, world)
    closures.close(NAME, "refused")
    [file] = files(layout)
    far = file.replace(f",d={file.partition(',d=')[2].partition(',')[0]}", ",d=99999999999999")
    os.rename(f"{layout.control}/closed/{file}", f"{layout.control}/closed/{far}")
    assert made(layout, world).seconds_closed(NAME) == 0.0


def test_a_file_that_holds_anything_closes_by_its_name_alone(layout: Layout, world: World) -> None:
    closures = made(layout, world)
    closures.close(NAME, "refused")
    [file] = files(layout)
    for content in (b"", b"[1]", b'{"name": 3, "since": "x", "words": []}', b"\xff" * 100_000):
        Path(f"{layout.control}/closed/{file}").write_bytes(content)
        Path(f"{layout.control}/closed/junk").write_bytes(content)
        [told] = made(layout, world).records()
        assert (told.name, told.words) == ("?", "")
    assert made(layout, world).seconds_closed(NAME)


def test_as_long_as_nothing_is_closed_it_costs_a_look_in_two_seconds(layout: Layout, world: World) -> None:
    closures = made(layout, world)
    for _ in range(1000):
        closures.seconds_closed(NAME)
    assert sum(call.what == "listdir" for call in world.calls) == 1
