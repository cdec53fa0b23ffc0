"""What the hosts' kernels and commands do on NFS: the doctor, folders that race, a mount that hangs."""

from __future__ import annotations

import time

from tests.mount.cases import EVERY, on
from tests.mount.conftest import Enlist, Tell
from tests.mount.harness import QUEUE, RUN, Crew
from tests.mount.test_pools import settle_accounts

REFUSED = 78  # EX_CONFIG
# `status` takes 2 to 3 s: two for the mount, the rest to start; other tests run beside it.
PATIENCE_SECONDS = 8.0


@on("4.2", "3", chosen=("4.2",))
def test_the_doctor_refuses_a_soft_mount_and_accepts_a_hard_one(
    vers: str, enlist: Enlist, tell: Tell
) -> None:
    crew = enlist(vers, clients=2)
    hard, soft = crew.bed.clients
    crew.bed.mount(options="soft,timeo=50", on=[soft.name])
    crew.make_queue()
    for what in (["doctor", QUEUE], ["supervise", QUEUE]):
        refused = crew.maildefer(soft, *what)
        assert refused.wait(60) == REFUSED, refused.err.read_text()
        assert "it is a soft mount" in refused.out.read_text() + refused.err.read_text()
    accepted = crew.maildefer(hard, "doctor", QUEUE)
    assert accepted.wait(60) == 0, accepted.out.read_text() + accepted.err.read_text()
    tell(vers)


@on(*EVERY, chosen=("4.1",))
def test_of_folders_renamed_to_one_name_by_several_hosts_one_wins(
    vers: str, enlist: Enlist, tell: Tell
) -> None:
    """Conversations' tokens rest on it: a folder is never replaced by another one that is not empty."""
    crew = enlist(vers)
    crew.bed.clients[0].check(["mkdir", "/mnt/nfs/folders"])
    rounds = 100
    jobs = [crew.python(client, "folders.py", str(rounds)) for client in crew.bed.clients]
    winners: dict[str, str] = {}
    for job in jobs:
        assert job.wait(120) == 0, job.err.read_text()
        for line in job.out.read_text().splitlines():
            number, outcome = line.split()
            assert outcome in ("won", "ENOTEMPTY", "EEXIST")
            if outcome == "won":
                assert number not in winners, "two hosts think that theirs is there"
                winners[number] = job.guest.name
    kept = crew.bed.server.check(["sh", "-c", "cd /mnt/export/folders && ls -d [0-9]*/*"]).split()
    assert sorted(kept) == sorted(f"{number}/{name}" for number, name in winners.items())
    assert len(winners) == rounds
    tell(
        vers, None, f"won by {', '.join(f'{list(winners.values()).count(c.name)}' for c in crew.bed.clients)}"
    )


@on("4.2", "3", chosen=("4.2",))
def test_status_and_stop_work_while_the_mount_hangs(vers: str, enlist: Enlist, tell: Tell) -> None:
    crew = enlist(vers, clients=2)
    crew.begin()
    crew.feed(200, at_once=200)
    hung = crew.bed.clients[0]
    crew.await_handled(20, hung)
    crew.bed.wire.partition(hung.name, "server")
    took = [timed(crew, *command, timeout=60) for command in (["status"], ["status", "--json"])]
    assert [code for code, _ in took] == [4, 4], "degraded: nobody can tell what the queue holds"
    assert max(seconds for _, seconds in took) < PATIENCE_SECONDS
    code, stop_seconds = timed(crew, "stop", "--all", RUN, "--timeout", "10", timeout=60)
    crew.bed.wire.heal()
    assert crew.pools[0].wait(60) is not None
    figures = settle_accounts(crew)
    slowest = max(seconds for _, seconds in took)
    tell(vers, figures, f"status {slowest:.1f} s, stop {stop_seconds:.0f} s, exit code {code}")


def timed(crew: Crew, *command: str, timeout: float) -> tuple[int, float]:
    """Run a command on the client whose mount hangs; TimeoutError if it hangs as well."""
    began = time.monotonic()
    job = crew.maildefer(crew.bed.clients[0], *command)
    code = job.wait(timeout)
    print(job.out.read_text(), job.err.read_text())
    return code, time.monotonic() - began
