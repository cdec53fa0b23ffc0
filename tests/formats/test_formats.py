"""The disk format: what earlier versions have left is handled to its end, and a later format is left alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from maildefer.control.audit import audit
from maildefer.maildir.control_folder import FORMAT_VERSION
from maildefer.queue import Queue
from tests.formats.recorded_queue import RecordedQueue, environment, names, write_project

ROOT = Path(__file__).resolve().parent.parent.parent


def maildefer(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "maildefer", *words],
        cwd=project,
        env=environment(ROOT)
        | {"MAILDEFER_HOST_ID": "host-b", "MAILDEFER_RUNTIME_DIR": f"{project}/runtime"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_project(tmp_path)
    return tmp_path


def contents(queue: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in queue.rglob("*") if path.is_file()}


@pytest.mark.lifecycle
@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_a_queue_of_an_earlier_version_is_served_to_its_end_and_all_of_it_is_proven(
    name: str, project: Path
) -> None:
    recorded = RecordedQueue.read(name)
    queue = project / "run/queue"
    recorded.lay_out(queue)
    before = audit([str(queue)])
    assert (before.suspects, before.accepted - before.ended) == ([], len(recorded.unended))

    pushed = Queue(str(queue))
    for unique, key in recorded.unique.items():
        assert pushed.push("Subject: x\n\n", recipient="x@test", unique=unique) == key
    second = pushed.push("Subject: x\n\n", sender="ann@example.org", recipient="talk-to@test")
    listed = maildefer(project, "dead", "list", "run/queue", "--json").stdout.splitlines()
    assert [json.loads(line)["reason"] for line in listed] == ["never"]
    assert maildefer(project, "dead", "requeue", "run/queue", "--all").returncode == 0
    drained = maildefer(project, "supervise", "--workers", "2", "--drain", "run/queue")
    assert drained.returncode == 0, drained.stderr

    handled = (project / "handled").read_text().split()
    assert sorted(handled) == sorted(recorded.unended.values())
    assert (project / "second").read_text().split() == [second], "the conversation goes on where it was"
    after = audit([str(queue)])
    assert (after.suspects, after.accepted - after.ended) == ([], 0)
    for unique in recorded.unique:
        assert pushed.push("Subject: x\n\n", recipient="x@test", unique=unique) not in handled


def test_this_versions_queue_is_among_them() -> None:
    """Else: `python -m tests.formats.record NAME`."""
    newest = RecordedQueue.read(names()[-1])
    assert json.loads(newest.files[".maildefer/format"])["version"] == FORMAT_VERSION


@pytest.mark.parametrize(
    "command",
    [
        "supervise run/queue",
        "push run/queue --recipient x@test",
        "queue list run/queue",
        "audit run/queue",
        "dead requeue run/queue --all",
    ],
)
@pytest.mark.slow
def test_a_queue_of_a_later_format_is_left_alone_and_says_what_to_do(project: Path, command: str) -> None:
    queue = project / "run/queue"
    RecordedQueue.read(names()[-1]).lay_out(queue)
    later = {"version": FORMAT_VERSION + 1, "whatever": "it means"}
    (queue / ".maildefer/format").write_text(json.dumps(later))
    before = contents(queue)
    refused = maildefer(project, *command.split())
    assert refused.returncode not in (0, None)
    assert (
        f"run/queue has the format version {FORMAT_VERSION + 1}: upgrade maildefer on this host"
        in refused.stderr
    )
    assert "Traceback" not in refused.stderr
    assert contents(queue) == before
