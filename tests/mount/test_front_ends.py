"""Front ends whose queue is on the mount: what a client was told is stored, is there, whole, once."""

from __future__ import annotations

from collections import Counter

from tests.mount.cases import on
from tests.mount.conftest import Enlist, Tell
from tests.mount.harness import Crew, eventually

CLIENTS, MESSAGES = 6, 10


def take(crew: Crew, *more: str) -> None:
    """Have a front end on each client, with clients of its own."""
    crew.make_queue()
    for guest in crew.bed.clients:
        crew.feeders.append(crew.python(guest, "take_mail.py", str(CLIENTS), str(MESSAGES), *more))


def ended(crew: Crew) -> None:
    for feeder in crew.feeders:
        assert feeder.wait(240) == 0, f"{feeder.guest.name}: {feeder.err.read_text()}"


def acknowledged(crew: Crew) -> list[str]:
    return [name for path in crew.bed.directory.glob("acknowledged.*") for name in path.read_text().split()]


def stored(crew: Crew) -> Counter[str]:
    """As another client sees it, which has nothing in its cache."""
    look = crew.python(crew.bed.clients[0], "read_mail.py")
    assert look.wait(120) == 0, look.err.read_text()
    return Counter(look.out.read_text().split())


def all_is_there(crew: Crew, vers: str, tell: Tell) -> None:
    """Nobody was refused, and each message is stored once."""
    ended(crew)
    told = acknowledged(crew)
    tell(vers, None, f"{len(told)} messages")
    assert len(told) == len(crew.bed.clients) * CLIENTS * MESSAGES
    assert stored(crew) == Counter(told)


@on("4.2", "3", chosen=("4.2",))
def test_all_that_was_acknowledged_is_there_once(vers: str, enlist: Enlist, tell: Tell) -> None:
    crew = enlist(vers, clients=2)
    take(crew)
    all_is_there(crew, vers, tell)


@on("4.2", "3")
def test_a_server_that_crashes_meanwhile_takes_nothing_away(vers: str, enlist: Enlist, tell: Tell) -> None:
    """The mount waits for it, and so do the clients."""
    crew = enlist(vers, clients=2)
    take(crew)
    eventually(lambda: len(acknowledged(crew)) > CLIENTS * MESSAGES // 2, "some are taken", 120)
    crew.bed.server.kill()
    crew.bed.server.boot()
    all_is_there(crew, vers, tell)


@on("4.2", "3")
def test_front_ends_that_are_killed_leave_no_half_message(vers: str, enlist: Enlist, tell: Tell) -> None:
    crew = enlist(vers, clients=2)
    take(crew, "20")
    ended(crew)
    told, found = acknowledged(crew), stored(crew)
    tell(vers, None, f"{len(told)} messages acknowledged, {found.total()} there")
    assert set(told) <= found.keys()
    assert max(found.values()) == 1
