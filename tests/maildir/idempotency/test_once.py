"""A request is carried out once, whatever dies, is lost or comes late; and each time it has the same answer."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from maildefer.errors import MaildeferError, MountFault, NoSpace, PermissionRefused
from maildefer.maildir.drafts.entry import Draft
from maildefer.maildir.idempotency.once import Answer, OncePusher
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.push import Pusher
from maildefer.maildir.system import System
from tests.support.deaths import Death, Mortal
from tests.support.queues import DATA, LABEL, World, everywhere

NAME, OTHER = "3f" + "2a" * 15, "3f" + "2b" * 15
SAME, ANOTHER = "0" * 32, "1" * 32


class Client:
    """A front end's process: its requests have two recipients."""

    def __init__(self, layout: Layout, world: World, system: System | None = None) -> None:
        self.pusher = Pusher(layout, host=LABEL, system=system or world.system)
        self.once = OncePusher(self.pusher, system=system or world.system)

    def request(self, fingerprint: str = SAME, name: str = NAME) -> Answer:
        return self.once.push(name, fingerprint, self.write)

    def write(self) -> list[Draft]:
        drafts = []
        for _ in range(2):
            drafts.append(draft := self.pusher.draft())
            draft.append(DATA)
            draft.sync()
        return drafts


@pytest.fixture
def client(layout: Layout, world: World) -> Client:
    return Client(layout, world)


def keys(answer: Answer) -> list[str]:
    return [key for _, key in answer.entries]


def entries(layout: Layout) -> list[str]:
    return sorted(os.listdir(layout.new))


def test_the_entries_of_a_request_are_there_with_the_keys_of_its_answer(
    client: Client, layout: Layout
) -> None:
    answer = client.request()
    assert not answer.is_repeated
    assert everywhere(layout) == {f"new/{key}": DATA for key in keys(answer)}
    assert len(keys(answer)) == 2


def test_a_request_that_comes_again_has_the_same_answer_and_makes_nothing(
    client: Client, layout: Layout
) -> None:
    first, again = client.request(), client.request()
    assert (again.entries, again.is_repeated) == (first.entries, True)
    assert entries(layout) == sorted(keys(first))


def test_so_it_is_once_its_entries_were_handled(client: Client, layout: Layout) -> None:
    first = client.request()
    for key in keys(first):
        os.unlink(f"{layout.new}/{key}")
    assert client.request().entries == first.entries
    assert not everywhere(layout)


def test_another_request_of_the_same_name_is_told_apart_and_stores_nothing(
    client: Client, layout: Layout
) -> None:
    first = client.request()
    assert client.request(ANOTHER).fingerprint == SAME
    assert entries(layout) == sorted(keys(first))


def test_requests_of_other_names_are_carried_out(client: Client, layout: Layout) -> None:
    made = [*keys(client.request()), *keys(client.request(name=OTHER))]
    assert entries(layout) == sorted(made)


@pytest.mark.invariant(1)
def test_a_folder_of_markers_is_durable_before_the_entries_of_the_first_are_placed_whoever_has_made_it(
    client: Client, layout: Layout, world: World
) -> None:
    os.mkdir(f"{layout.control}/idempotency/3f")
    client.request()
    asked = [(call.what, call.arguments[-1]) for call in world.asked("fsync", "rename")]
    (first, *_) = (number for number, call in enumerate(asked) if call[1].startswith(layout.new))
    assert ("fsync", f"{layout.control}/idempotency") in asked[:first]


@pytest.mark.invariant(1)
def test_data_names_and_marker_are_durable_before_the_entries_are_placed_and_they_before_the_answer(
    client: Client, layout: Layout, world: World
) -> None:
    client.request(name=OTHER)  # which makes the folder for both
    world.forget()
    answer = client.request()
    first, second = (f"{layout.tmp}/{name}" for name, _ in answer.entries)
    [marker] = [call.arguments for call in world.asked("rename") if NAME in call.arguments[1]]
    made, bucket = marker[0], f"{layout.control}/idempotency/3f"
    assert [(call.what, *call.arguments) for call in world.asked("fsync", "rename")] == [
        ("fsync", first),
        ("fsync", second),
        ("fsync", layout.tmp),
        ("fsync", f"{made}/{SAME}"),
        ("fsync", made),
        ("rename", made, f"{bucket}/{NAME}"),
        ("fsync", bucket),
        *(("rename", f"{layout.tmp}/{name}", f"{layout.new}/{key}") for name, key in answer.entries),
        ("fsync", layout.new),
    ]


def after_each_step(tmp_path: Path, *, before: bool) -> Iterator[tuple[int, Layout]]:
    """Queues in which a process has died at its first request, one call later in each."""
    create_queue(str(tmp_path / "queue"))
    for step in itertools.count():
        world = World()
        layout = Layout(str(shutil.copytree(tmp_path / "queue", tmp_path / f"queue{step}")))
        system = Mortal(world.system, step, before=before).system
        try:
            Client(layout, world, system).request()
        except Death:
            yield step, layout
        else:
            assert step > 30
            return


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.slow
def test_a_death_at_any_call_leaves_all_of_a_request_or_none_for_the_next_which_makes_it_once(
    tmp_path: Path, before: bool
) -> None:
    for step, layout in after_each_step(tmp_path, before=before):
        answer = Client(layout, World(tokens=1000)).request()
        assert entries(layout) == sorted(keys(answer)), step
        assert len(keys(answer)) == 2
        again = Client(layout, World(tokens=2000)).request()
        assert (again.entries, again.is_repeated) == (answer.entries, True)
        assert entries(layout) == sorted(keys(answer)), step


@pytest.mark.slow
def test_some_of_these_deaths_are_after_the_marker_and_some_between_the_entries(tmp_path: Path) -> None:
    found = {
        (os.path.exists(f"{layout.control}/idempotency/3f/{NAME}"), len(entries(layout)))
        for _, layout in after_each_step(tmp_path, before=True)
    }
    assert found == {(False, 0), (True, 0), (True, 1), (True, 2)}


@pytest.mark.slow
def test_what_is_handled_before_the_next_request_finishes_is_not_made_again(tmp_path: Path) -> None:
    for step, layout in after_each_step(tmp_path, before=True):
        handled = entries(layout)
        for key in handled:
            os.unlink(f"{layout.new}/{key}")
        answer = Client(layout, World(tokens=1000)).request()
        assert set(handled) | set(entries(layout)) == set(keys(answer)), step
        assert len(handled) + len(entries(layout)) == 2, step


@pytest.mark.parametrize("step", ["look", "marker", "first entry", "second entry", "end"])
def test_of_two_who_make_the_same_request_at_the_same_moment_one_stores_it_and_both_tell_its_keys(
    client: Client, layout: Layout, world: World, step: str
) -> None:
    client.request(name=OTHER)
    other = Client(layout, World(tokens=1000))
    answers: list[Answer] = []
    where = {
        "look": ("listdir", NAME),
        "marker": ("rename", NAME),
        "first entry": ("rename", layout.new),
        "second entry": ("rename", layout.new),
        "end": ("fsync", layout.new),
    }[step]
    if step == "second entry":
        world.before(
            where[0],
            lambda: world.before(*where[:1], lambda: answers.append(other.request()), where=where[1]),
            where=where[1],
        )
    else:
        world.before(where[0], lambda: answers.append(other.request()), where=where[1])
    answers.append(client.request())
    assert len(answers) == 2
    assert len({answer.entries for answer in answers}) == 1
    assert sum(not answer.is_repeated for answer in answers) == 1
    assert len(entries(layout)) == 4
    assert set(keys(answers[0])) < set(entries(layout))
    assert sorted(os.listdir(layout.tmp)) == []


@pytest.mark.parametrize(
    "fault", [errno.EIO, errno.ENOENT, errno.ESTALE, errno.EINTR, errno.EEXIST, errno.ENOTEMPTY]
)
def test_a_marker_whose_reply_was_lost_is_found_by_what_is_in_it(
    client: Client, layout: Layout, world: World, fault: int
) -> None:
    client.request(name=OTHER)
    world.lose_reply("rename", fault, where=NAME)
    answer = client.request()
    assert not answer.is_repeated
    assert set(keys(answer)) < set(entries(layout))
    assert os.listdir(layout.tmp) == []


@pytest.mark.parametrize("fault", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOSPC])
def test_a_marker_that_was_given_up_does_not_come_late(
    client: Client, layout: Layout, world: World, fault: int
) -> None:
    client.request(name=OTHER)
    world.hold("rename", fault, where=NAME)
    with pytest.raises(MaildeferError):
        client.request()
    assert os.listdir(layout.tmp) == []
    assert world.land() == [errno.ENOENT]
    answer = client.request()
    assert not answer.is_repeated
    assert len(entries(layout)) == 4


@pytest.mark.parametrize("fault", [errno.EIO, errno.ENOENT, errno.ENOSPC])
def test_a_marker_that_may_come_late_finds_what_it_names(
    client: Client, layout: Layout, world: World, fault: int
) -> None:
    client.request(name=OTHER)
    world.hold("rename", errno.EIO, where=NAME)
    world.refuse("rename", fault, where=f"{layout.tmp}/.once-")
    world.rules[-1].times = 2  # the first one is held
    with pytest.raises(MaildeferError):
        client.request()
    assert world.land() == []
    answer = client.request()
    assert answer.is_repeated
    assert set(keys(answer)) < set(entries(layout))
    assert len(entries(layout)) == 4


def test_a_marker_that_is_there_while_no_look_succeeds_finds_what_it_names(
    client: Client, layout: Layout, world: World
) -> None:
    client.request(name=OTHER)
    world.lose_reply("rename", errno.ENOENT, where=NAME)
    world.refuse("utime", errno.EIO, where="/3f", times=2)
    with pytest.raises(MountFault):
        client.request()
    answer = client.request()
    assert answer.is_repeated
    assert set(keys(answer)) < set(entries(layout))
    assert len(entries(layout)) == 4


@pytest.mark.parametrize("fault", [errno.EIO, errno.ENOENT, errno.ESTALE])
def test_an_entry_whose_reply_was_lost_is_there(
    client: Client, layout: Layout, world: World, fault: int
) -> None:
    world.lose_reply("rename", fault, where=layout.new)
    answer = client.request()
    assert entries(layout) == sorted(keys(answer))


@pytest.mark.parametrize(
    ("fault", "named"), [(errno.ENOSPC, NoSpace), (errno.EACCES, PermissionRefused), (errno.EIO, MountFault)]
)
def test_an_entry_that_cannot_be_placed_is_placed_by_the_next_request(
    client: Client, layout: Layout, world: World, fault: int, named: type[Exception]
) -> None:
    world.refuse("rename", fault, where=layout.new, times=20)
    with pytest.raises(named):
        client.request()
    assert entries(layout) == []
    world.rules.clear()
    answer = client.request()
    assert entries(layout) == sorted(keys(answer))


def test_a_sync_of_the_entries_that_fails_withdraws_none_that_the_marker_names(
    client: Client, layout: Layout, world: World
) -> None:
    world.refuse("fsync", errno.EIO, where=layout.new)
    with pytest.raises(MountFault):
        client.request()
    answer = client.request()
    assert entries(layout) == sorted(keys(answer))


@pytest.mark.parametrize(
    ("what", "where"),
    [("fsync", "tmp"), ("mkdir", ".once-"), ("write", ".once-"), ("rename", NAME), ("write", "M")],
)
def test_a_request_that_finds_no_room_leaves_nothing(
    client: Client, layout: Layout, world: World, what: str, where: str
) -> None:
    client.request(name=OTHER)
    before = everywhere(layout)
    world.refuse(what, errno.ENOSPC, where=where)
    with pytest.raises(NoSpace):
        client.request()
    assert everywhere(layout) == before
    assert os.listdir(layout.tmp) == []
    assert len(keys(client.request())) == 2


def test_a_folder_whose_making_was_not_answered_is_made_all_the_same_and_not_taken_for_anothers(
    client: Client, layout: Layout, world: World
) -> None:
    world.lose_reply("mkdir", errno.EEXIST, where=".once-")
    answer = client.request()
    assert not answer.is_repeated
    assert entries(layout) == sorted(keys(answer))
    assert os.listdir(layout.tmp) == []
    assert client.request().entries == answer.entries


def test_an_empty_marker_is_none_as_a_sweep_may_leave_it(client: Client, layout: Layout) -> None:
    os.makedirs(f"{layout.control}/idempotency/3f/{NAME}")
    answer = client.request()
    assert entries(layout) == sorted(keys(answer))
    assert client.request().entries == answer.entries


def test_a_marker_that_is_swept_meanwhile_is_made_again(client: Client, layout: Layout, world: World) -> None:
    first = client.request()
    marker = f"{layout.control}/idempotency/3f/{NAME}"
    world.before("open", lambda: shutil.rmtree(marker), where=f"{NAME}/{SAME}")
    assert set(keys(client.request())).isdisjoint(keys(first))
    assert len(entries(layout)) == 4


@pytest.mark.parametrize("gone", ["idempotency", "idempotency/3f", "../new"])
def test_folders_that_a_clean_up_has_removed_are_made_again(
    client: Client, layout: Layout, gone: str
) -> None:
    shutil.rmtree(f"{layout.control}/{gone}", ignore_errors=True)
    answer = client.request()
    assert entries(layout) == sorted(keys(answer))


@pytest.mark.parametrize(
    "text", ["", "x", "../../victim key\n", "draft ../../victim\n", "a b c\n", "\xff\xff\n", "a b\nc\n"]
)
def test_a_marker_that_names_no_entries_is_a_fault_and_leads_nowhere(
    client: Client, layout: Layout, text: str
) -> None:
    marker = f"{layout.control}/idempotency/3f/{NAME}"
    os.makedirs(marker)
    Path(f"{marker}/{SAME}").write_bytes(text.encode("latin-1"))
    Path(f"{layout.path}/victim").write_text("precious")
    with pytest.raises(MountFault):
        client.request()
    assert Path(f"{layout.path}/victim").read_text() == "precious"
    assert entries(layout) == []
