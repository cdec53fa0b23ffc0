"""The doctor looks at who may do what in a queue, and says what to do about it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maildefer.doctor.examine import examine, examine_at_join
from maildefer.doctor.findings import Finding
from maildefer.errors import ConfigurationError
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.rights.sharing import FrontEndAccount, share_queue
from tests.sampling import one_fast

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
OWNER, GUEST, GROUP = 61_001, 61_002, 61_003  # nobody's


@pytest.fixture(autouse=True)
def _runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILDEFER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o007)
    yield
    os.umask(before)


@pytest.fixture
def queue(umask: None) -> Iterator[Path]:
    """Shared by its group as it should be, where other users may go."""
    place = Path(tempfile.mkdtemp(prefix="maildefer-", dir="/tmp"))
    place.chmod(0o755)
    path = place / "queue"
    create_queue(str(path))
    for folder, _, files in os.walk(path):
        os.chown(folder, OWNER, GROUP)
        os.chmod(folder, 0o2770)
        for file in files:
            os.chown(f"{folder}/{file}", OWNER, GROUP)
            os.chmod(f"{folder}/{file}", 0o660)
    yield path
    shutil.rmtree(place)


def findings(queue: Path, check: str = "permissions", **whom: Any) -> list[Finding]:
    return [finding for finding in examine(str(queue), races=0, **whom) if finding.check == check]


def cured(queue: Path, check: str = "permissions", **whom: Any) -> bool:
    """The remedy, carried out as it stands, makes everything fine."""
    found = findings(queue, check, **whom)
    assert "ok" not in {finding.verdict for finding in found}
    (remedy,) = {finding.remedy for finding in found}
    subprocess.run(remedy, shell=True, check=True)
    return [each.verdict for each in findings(queue, check, **whom)] == ["ok"]


def test_a_queue_that_its_group_shares_is_fine(queue: Path) -> None:
    (finding,) = findings(queue)
    assert (finding.verdict, finding.fact) == ("ok", "new/ has mode 2770, the umask is 0007")


def test_folders_that_do_not_hand_on_their_group_are_warned_of_and_the_remedy_cures(queue: Path) -> None:
    (queue / "tmp").chmod(0o770)
    assert cured(queue)


def test_folders_of_another_group_are_warned_of_and_the_remedy_cures(queue: Path) -> None:
    os.chown(queue / "cur", OWNER, GROUP + 1)
    assert cured(queue)


@pytest.mark.parametrize(("mode", "group"), [(0o600, GROUP), (0o660, GROUP + 1)])
def test_entries_that_the_group_cannot_use_are_warned_of_and_the_remedy_cures(
    queue: Path, mode: int, group: int
) -> None:
    entry = queue / "new" / "1.entry.host"
    entry.touch()
    entry.chmod(mode)
    os.chown(entry, GUEST, group)
    assert cured(queue)


def test_a_folder_that_all_may_write_to_is_warned_of_and_the_remedy_cures(queue: Path) -> None:
    (queue / "cur").chmod(0o2777)
    assert cured(queue)


def test_a_front_end_with_just_the_rights_that_it_needs_is_fine(queue: Path) -> None:
    share_queue(str(queue), FrontEndAccount(user=GUEST, group=GROUP))
    (finding,) = findings(queue, "front end", user=str(GUEST), group=str(GROUP))
    assert finding.verdict == "ok"
    assert "nothing else" in finding.fact


@pytest.mark.slow
def test_a_front_end_with_more_rights_is_refused_and_the_remedy_cures(queue: Path) -> None:
    """What docs/security.md once said was enough."""
    for folder in (queue, *(path for path in queue.rglob("*") if path.is_dir())):
        folder.chmod(0o2770 if folder in (queue / "tmp", queue / "new") else 0o2750)
    lacking, finding = findings(queue, "front end", user=str(GUEST), group=str(GROUP))
    assert "may not leave records in .maildefer/journal/" in lacking.fact
    assert "leave answers in .maildefer/idempotency/" in lacking.fact
    assert "cur/" in finding.fact
    assert cured(queue, "front end", user=str(GUEST), group=str(GROUP))


@one_fast(("name", "mode"), [("new", 0o2750), ("tmp", 0o2700), (".", 0o2700), (".maildefer/format", 0o600)])
@pytest.mark.slow
def test_a_front_end_that_lacks_a_right_is_refused_and_the_remedy_cures(
    queue: Path, name: str, mode: int
) -> None:
    share_queue(str(queue), FrontEndAccount(user=GUEST, group=GROUP))
    (queue / name).chmod(mode)
    assert cured(queue, "front end", user=str(GUEST), group=str(GROUP))


@pytest.mark.slow
def test_a_front_end_that_cannot_come_to_the_queue_is_refused_and_the_remedy_cures(queue: Path) -> None:
    share_queue(str(queue), FrontEndAccount(user=GUEST, group=GROUP))
    queue.parent.chmod(0o700)
    assert cured(queue, "front end", user=str(GUEST), group=str(GROUP))


def test_a_front_end_of_nobody_is_an_error(queue: Path) -> None:
    with pytest.raises(ConfigurationError, match="no-such-user"):
        findings(queue, user="no-such-user")


@pytest.mark.parametrize("folder", ["", ".maildefer", ".later", ".dead"])
def test_a_pool_of_roots_is_told_who_may_lead_it_astray(queue: Path, folder: str) -> None:
    def told() -> list[str]:
        return [
            finding.fact for finding in examine_at_join(Layout(str(queue))) if finding.check == "permissions"
        ]

    assert f"user {OWNER} may put links in {queue}," in told()[0]
    for path in (queue, queue / ".maildefer", queue / ".later", queue / ".dead"):
        os.chown(path, 0, GROUP)
        path.chmod(0o755)
    assert told() == []
    (queue / folder).chmod(0o775)
    assert f"group {GROUP} may put links in {queue / folder if folder else queue}," in told()[0]
    (queue / folder).chmod(0o3770)
    assert told() == []
