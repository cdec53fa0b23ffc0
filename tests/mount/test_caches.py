"""What a client's kernel remembers wrongly, and that the queue's code sees through it."""

from __future__ import annotations

from tests.mount.bed import EXPORT, MOUNT
from tests.mount.cases import EVERY, on
from tests.mount.conftest import Enlist, Tell
from tests.mount.harness import QUEUE, Crew

PATIENCE_SECONDS = 60  # the scout of an idle host touches `new/` every few seconds


def looks(crew: Crew, name: str) -> list[bool]:
    """Whether a client sees the name: by its name, in a listing, and as a doubt is settled."""
    look = crew.python(crew.bed.clients[0], "look.py", f"{MOUNT}/folder", name)
    assert look.wait(60) == 0, look.err.read_text()
    return [word == "True" for word in look.out.read_text().split()]


@on(*EVERY, chosen=("4.2",))
def test_a_cached_negative_look_up_settles_no_doubt(vers: str, enlist: Enlist, tell: Tell) -> None:
    crew = enlist(vers, clients=1)
    crew.bed.server.check(["mkdir", f"{EXPORT}/folder"])
    crew.bed.clients[0].check(["sh", "-c", f"ls {MOUNT}/folder; ! test -e {MOUNT}/folder/claimed"])
    crew.bed.server.check(["touch", f"{EXPORT}/folder/claimed"])
    by_name, _, settled = looks(crew, "claimed")
    tell(vers, None, f"by its name it {'is' if by_name else 'is not'} there")
    assert settled
    assert not by_name, "the kernel remembers that it was not there"


@on(*EVERY, chosen=("3",))
def test_a_listing_that_stays_stale_settles_no_doubt(vers: str, enlist: Enlist, tell: Tell) -> None:
    """NFSv3 knows a directory's changes by its times only: two within a tick of the server's clock are one."""
    crew = enlist(vers, clients=1)
    server, client = crew.bed.server, crew.bed.clients[0]
    server.check(["sh", "-c", f"mkdir {EXPORT}/folder && touch {EXPORT}/new {EXPORT}/folder/first"])
    assert client.check(["ls", f"{MOUNT}/folder"]) == "first\n"
    again(crew, f"{EXPORT}/new", f"{EXPORT}/folder/second")
    _, listed, settled = looks(crew, "second")
    tell(vers, None, f"a plain listing {'shows' if listed else 'does not show'} it")
    assert settled
    assert listed == (vers != "3"), "NFSv4 has a counter of changes"


@on("3", "4.2")
def test_what_a_stale_listing_hides_is_handled_all_the_same(vers: str, enlist: Enlist, tell: Tell) -> None:
    crew = enlist(vers, clients=1)
    crew.begin()
    queue = QUEUE.replace(MOUNT, EXPORT)
    for number in range(1, 6):
        text = f"Return-Path: <ann@example.org>\\nDelivered-To: now-{number}@test\\n\\n"
        crew.bed.server.check(["sh", "-c", f"printf '{text}' > {queue}/tmp/{number}"])
        again(crew, f"{queue}/tmp/{number}", f"{queue}/new/{number}")
        crew.await_handled(number, seconds=PATIENCE_SECONDS)
    crew.stop()
    figures = crew.reckon()
    tell(vers, figures)
    assert (figures.extra, figures.left) == (0, ())


def again(crew: Crew, source: str, destination: str) -> None:
    """On the server, rename a file within the tick of its new directory's last change."""
    job = crew.python(crew.bed.server, "same_tick.py", source, destination)
    assert job.wait(60) == 0, job.err.read_text()
