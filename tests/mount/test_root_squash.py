"""An export with `root_squash`, as most are: root of a client is nobody there, or one of the queue's group.

The queue is of a user who runs workers on one client; a front end on the other gives up root for a user of its own.
"""

from __future__ import annotations

from tests.mount.bed import EXPORT
from tests.mount.cases import on
from tests.mount.conftest import Enlist, Tell
from tests.mount.guest import Guest, Job
from tests.mount.harness import BEAT_SECONDS, QUEUE, RUN, TTL_SECONDS, Crew

OWNER, FRONT, MEMBER, GROUP = 61_001, 61_002, 61_011, 61_003  # nobody's
FAILED, NOT_PERMITTED, REFUSED = 1, 77, 78
PATIENCE_SECONDS = 60.0
LOOKS = (["queue", "list", QUEUE], ["dead", "list", QUEUE], ["status", QUEUE], ["audit", QUEUE])
MESSAGES = 3


def squashed(enlist: Enlist, vers: str, options: str = "", *, group_may: int = 0) -> Crew:
    """Two clients, and the owner's queue in a folder that root has made on the server."""
    crew = enlist(vers, clients=2)
    script = f"cd {EXPORT} && mkdir queue run && chown {OWNER}:{GROUP} queue run && chmod 2750 queue && chmod 2775 run"
    crew.bed.server.check(["sh", "-c", script])
    crew.bed.squash_root(options)
    done(of_the_owner(crew, "make.py", str(BEAT_SECONDS), str(TTL_SECONDS)))
    done(crew.maildefer(crew.bed.clients[0], "audit", "--on", QUEUE, user=OWNER, group=GROUP))
    if group_may:
        script = f"find {EXPORT}/queue -type d -exec chmod {group_may:o} {{}} +"
        crew.bed.server.check(["sh", "-c", script])
    return crew


def of_the_owner(crew: Crew, *argv: str) -> Job:
    return crew.python(crew.bed.clients[0], *argv, user=OWNER, group=GROUP)


def done(job: Job) -> str:
    assert job.wait(PATIENCE_SECONDS) == 0, said(job)
    return job.out.read_text()


def said(job: Job) -> str:
    return job.out.read_text() + job.err.read_text()


def as_it_is(crew: Crew) -> str:
    """All that lies there, and when files were changed, as the server sees it.

    A folder's own time is what a look may change, so that the client's listing of it is fresh.
    """
    what = r"%p %y %m %U %G %s"
    find = (
        rf"find {EXPORT}/queue {EXPORT}/run -type d -printf '{what}\n' -o -printf '{what} %T@ %C@\n' | sort"
    )
    return crew.bed.server.check(["sh", "-c", find])


@on("4.2", "3", chosen=("4.2",))
def test_two_users_share_a_queue_and_a_root_that_is_nobody_is_told_what_it_may_not(
    vers: str, enlist: Enlist, tell: Tell
) -> None:
    crew = squashed(enlist, vers)
    front = crew.bed.clients[1]
    give_rights(crew)
    done(crew.python(front, "take_mail_as.py", str(FRONT), str(GROUP), str(MESSAGES)))
    refused_to_the_front_end(crew, front)
    before = as_it_is(crew)
    for looks in LOOKS:
        assert "Permission denied" in refused(crew, FAILED, *looks)
    assert "or run this as their owner" in refused(crew, NOT_PERMITTED, "push", QUEUE, "-")
    assert "Permission denied" in refused(crew, FAILED, "queue", "clear", QUEUE)
    assert "Permission denied" in refused(crew, FAILED, "pause", QUEUE)
    for starts in (["doctor", QUEUE], ["supervise", QUEUE]):
        assert "root_squash" in refused(crew, REFUSED, *starts)
    assert as_it_is(crew) == before
    listed = done(crew.maildefer(front, "queue", "list", QUEUE, user=OWNER, group=GROUP))
    assert listed.count("ann@example.org") == MESSAGES, "it can become the owner"
    assert done(of_the_owner(crew, "handle.py", str(MESSAGES))).split() == ["n-0", "n-1", "n-2"]
    tell(vers)


def give_rights(crew: Crew) -> None:
    whom = ["--user", str(FRONT), "--group", str(GROUP)]
    done(crew.maildefer(crew.bed.clients[0], "permissions", QUEUE, "--apply", *whom, user=OWNER, group=GROUP))


def refused_to_the_front_end(crew: Crew, guest: Guest) -> None:
    """By the server, whatever the client thinks: what lies in the queue, but for tmp/ and new/."""
    tries = f"cd {QUEUE} && ! touch cur/x && ! rm .maildefer/format && ! mv new new.x && ! ls cur .maildefer"
    guest.check(["setpriv", f"--reuid={FRONT}", f"--regid={GROUP}", "--clear-groups", "sh", "-c", tries])


def refused(crew: Crew, code: int, *command: str) -> str:
    """What root of the other client is told."""
    job = crew.maildefer(crew.bed.clients[1], *command)
    assert job.wait(PATIENCE_SECONDS) == code, said(job)
    assert "Traceback" not in said(job)
    return said(job)


@on("4.2", "3", chosen=("4.2",))
def test_a_root_that_is_a_member_follows_nothing_that_another_member_has_planted(
    vers: str, enlist: Enlist, tell: Tell
) -> None:
    crew = squashed(enlist, vers, f"anongid={GROUP}", group_may=0o2770)
    there = crew.bed.clients[1]
    script = "umask 077; mkdir /run/roots; for f in precious roots/format roots/trial; do echo root > /run/$f; done"
    there.check(["sh", "-c", script])
    sleeping = there.run(["sleep", "600"])
    pid = there.check(["pidof", "sleep"]).strip()
    done(crew.python(there, "plant.py", pid, user=MEMBER, group=GROUP))
    before = as_it_is(crew)
    for looks in LOOKS:
        ended(crew, *looks)
    assert as_it_is(crew) == before, "looking makes nothing"
    assert "1 entry is durable" in ended(crew, "push", QUEUE, "-")
    record = f"find {EXPORT}/queue/.maildefer/journal -type f -user nobody -exec grep -c ' push ' {{}} +"
    assert crew.bed.server.check(["sh", "-c", record]).split() == ["1"], "in a file of its own"
    assert "is safe for a queue" in ended(crew, "doctor", QUEUE)
    stopped = ended(crew, "stop", "--all", RUN, "--timeout", "1")
    assert "unverified" in stopped
    assert not sleeping.code.done()
    there.check(["sh", "-c", f"cd {QUEUE} && mv .dead aside && ln -s /run/roots .dead"])
    assert "no directory of its own" in ended(crew, "dead", "list", QUEUE)
    left = there.check(["sh", "-c", "cd /run && cat precious roots/* && ls -A roots"])
    assert left.split() == ["root"] * 3 + ["format", "trial"]
    tell(vers)


def ended(crew: Crew, *command: str) -> str:
    """In time and without a traceback; what it said."""
    job = crew.maildefer(crew.bed.clients[1], *command)
    job.wait(PATIENCE_SECONDS)
    assert "Traceback" not in said(job)
    print(command, job.wait(), said(job))
    return said(job)
