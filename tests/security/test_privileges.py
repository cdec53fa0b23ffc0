"""The front end gives up its privileges, and needs no right but to write to the queue's `tmp/` and `new/`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from maildefer.errors import ConfigurationError
from maildefer.host.privileges import resolve_user
from maildefer.maildir.layout import create_queue
from maildefer.maildir.rights.sharing import FrontEndAccount, share_queue
from tests.support.front_end import ROOT
from tests.support.front_end_security import AttackedFrontEnd

pytestmark = [
    pytest.mark.lifecycle,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else"),
]
OWNER, GUEST, GROUP = 61_001, 61_002, 61_003  # nobody's


@pytest.fixture
def place() -> Iterator[Path]:
    """Where other users may go, as pytest's own directories are not."""
    path = Path(tempfile.mkdtemp(prefix="maildefer-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def queue(place: Path) -> Path:
    """The owner's, shared with the group as docs/security.md says: `tmp/` and `new/`, and the rest only to look at."""
    path = place / "queue"
    create_queue(str(path))
    for folder, _, files in os.walk(path):
        for each in (folder, *(f"{folder}/{file}" for file in files)):
            os.chown(each, OWNER, GROUP)
    share_queue(str(path), FrontEndAccount(user=GUEST, group=GROUP))
    return path


def status(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Begun as root, since others may not come to where this Python is."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environ, cwd="/", capture_output=True, text=True, timeout=60)


def test_both_processes_are_another_user_without_any_capability(place: Path, queue: Path) -> None:
    with AttackedFrontEnd(place, "--user", str(GUEST), "--group", str(GROUP), queue=queue) as attacked:
        assert len(attacked.pids()) >= 2
        for pid in attacked.pids():
            facts = status(pid)
            assert facts["Uid"] == [str(GUEST)] * 4
            assert facts["Gid"] == [str(GROUP)] * 4
            assert facts["Groups"] == []
            assert int(facts["CapEff"][0], 16) == int(facts["CapPrm"][0], 16) == 0
            assert int(facts["CapBnd"][0], 16) == 0, "nor can a program that it executes get one"
            assert facts["NoNewPrivs"] == ["1"]


def test_a_front_end_that_stays_who_it_is_can_gain_no_rights_either(place: Path) -> None:
    with AttackedFrontEnd(place) as attacked:
        assert [status(pid)["NoNewPrivs"] for pid in attacked.pids()] == [["1"]] * len(attacked.pids())
        assert len(attacked.pids()) >= 2


def test_it_serves_with_the_right_to_write_to_tmp_and_new_alone(place: Path, queue: Path) -> None:
    with AttackedFrontEnd(place, "--user", str(GUEST), "--group", str(GROUP), queue=queue) as attacked:
        assert attacked.send().startswith(b"250 "), attacked.log()
    (entry,) = (queue / "new").iterdir()
    facts = entry.stat()
    assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o7777) == (GUEST, GROUP, 0o640)


def test_the_owner_of_the_queue_handles_what_the_guest_has_stored(place: Path, queue: Path) -> None:
    with AttackedFrontEnd(place, "--user", str(GUEST), "--group", str(GROUP), queue=queue) as attacked:
        attacked.send()
    said = python(
        """
import os, sys
from maildefer import Queue
def pop(path):
    key, message = Queue(path).pop()
    return message["subject"]
Queue(sys.argv[2]).push("Subject: loads all modules")
pop(sys.argv[2])
os.setresgid(*[int(sys.argv[4])] * 3)
os.setresuid(*[int(sys.argv[3])] * 3)
print(pop(sys.argv[1]))
""",
        *(queue, place / "other", OWNER, GROUP),
    )
    assert said.stdout == "a test\n", said.stderr
    assert list((queue / "new").iterdir()) == []


def test_without_the_right_to_write_to_new_nothing_is_taken(place: Path, queue: Path) -> None:
    (queue / "new").chmod(0o2750)
    with AttackedFrontEnd(place, "--user", str(GUEST), "--group", str(GROUP), queue=queue) as attacked:
        assert attacked.send().startswith(b"451 4.3.0 ")
        assert attacked.entries() == []


def test_it_still_ends_with_its_parent() -> None:
    """The kernel forgets PR_SET_PDEATHSIG at a change of user, so it is set again."""
    said = python(
        """
import os, sys
from maildefer.host.linux.prctl import death_signal, die_with_parent
from maildefer.host.privileges import drop_privileges
parent = os.getpid()
if not (child := os.fork()):
    die_with_parent(parent)
    drop_privileges(*sys.argv[1:])
    print(os.getuid(), int(death_signal()), flush=True)
    os._exit(0)
os.waitpid(child, 0)
""",
        *(GUEST, GROUP),
    )
    assert said.stdout.split() == [str(GUEST), "9"], said.stderr


def test_a_user_that_is_not_there_ends_it_with_78(place: Path, queue: Path) -> None:
    attacked = AttackedFrontEnd(place, "--user", "no-such-user", queue=queue)
    assert attacked.process.wait(30) == 78
    assert "no-such-user" in attacked.log()
    attacked.__exit__()


def test_who_is_not_root_can_become_nobody_else() -> None:
    said = python(
        """
import codecs, grp, os, pwd, sys
codecs.lookup("ascii")
from maildefer.errors import ConfigurationError
from maildefer.host.privileges import drop_privileges
guest, owner, group = sys.argv[1:]
os.setresuid(*[int(guest)] * 3)
try:
    drop_privileges(owner, group)
except ConfigurationError as refusal:
    print(os.getuid(), refusal)
""",
        *(GUEST, OWNER, GROUP),
    )
    assert said.stdout.startswith(f"{GUEST} this process may not become user {OWNER}"), said.stderr
    assert "start it as root" in said.stdout


def test_a_user_alone_comes_with_all_of_its_groups() -> None:
    identity = resolve_user("nobody", "")
    assert (identity.uid, identity.gid) == (65534, 65534)
    assert identity.gid in identity.groups


def test_a_group_alone_leaves_the_user() -> None:
    assert resolve_user("", str(GROUP)) == (resolve_user(str(os.geteuid()), str(GROUP)))


def test_a_number_without_an_account_needs_a_group() -> None:
    with pytest.raises(ConfigurationError, match=str(GUEST)):
        resolve_user(str(GUEST), "")


def test_a_route_table_is_read_by_whom_it_became(place: Path, queue: Path) -> None:
    """As the supervisor gives it: a file in memory that it made itself."""
    table = os.memfd_create("routes")
    os.pwrite(table, json.dumps({"routes": [{"pattern": "^post@osb.example$"}]}).encode(), 0)
    with AttackedFrontEnd(
        place, "--user", str(GUEST), "--group", str(GROUP), queue=queue, routes=table
    ) as attacked:
        assert attacked.send().startswith(b"250 ")
        assert b"\r\n550 5.1.1 " in attacked.speak(
            b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<else@osb.example>\r\n"
        )
    os.close(table)
