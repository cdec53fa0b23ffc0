"""Calls of tasks beside a user who may write to `new/`, and read what waits there, but not the secret."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.outcomes import ACKED, Buried
from maildefer.handling.routes import Router
from maildefer.queue import Queue
from maildefer.tasks import task
from tests.support.in_project import enter_project

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
GUEST, GROUP = 61_002, 61_003  # nobody's
CALLS: list[int] = []
COPY = r"""
set -e
call=$(ls new)
for name in 1.M1P1Q1R1.x "$call,U=1" "0$call"; do
  stem=${name%%,S=*}
  sed "s/ id ${call%%,S=*};/ id $stem;/" "new/$call" > "tmp/$name"
  mv "tmp/$name" "new/$name"
  sed "s/^Received: by/Received: from key $call by/; s/ with push id [^;]*;/ with handoff id $stem-2;/" \
    "new/$call" > "tmp/$stem-2"
  mv "tmp/$stem-2" "new/$stem-2"
done
! cat .maildefer/task-key
"""


def publish(number: int) -> None:
    CALLS.append(number)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    """Root's, where a group may read and write `tmp/` and `new/`, each its own files."""
    place = Path(tempfile.mkdtemp(prefix="maildefer-", dir="/tmp"))
    place.chmod(0o755)
    enter_project(place, monkeypatch)
    CALLS.clear()
    made = Queue("run/queue")
    os.chmod("run", 0o755)
    os.chmod(made.layout.path, 0o711)
    os.chmod(f"{made.layout.path}/.maildefer", 0o700)
    for folder in (made.layout.tmp, made.layout.new):
        os.chown(folder, 0, GROUP)
        os.chmod(folder, 0o3770)
    yield made
    shutil.rmtree(place)


def test_another_user_who_may_write_to_new_cannot_have_a_call_made_by_copies(queue: Queue) -> None:
    key = task(publish).defer(7)
    os.chown(f"{queue.layout.new}/{key}", 0, GROUP)
    os.chmod(f"{queue.layout.new}/{key}", 0o640)
    subprocess.run(
        ["/bin/sh", "-c", COPY],
        cwd=queue.layout.path,
        check=True,
        timeout=60,
        user=GUEST,
        group=GROUP,
        extra_groups=[],
    )
    assert queue.count() == 7
    outcomes = []
    while (message := queue.pop()[1]) is not None:
        outcomes.append(Dispatcher(Router, [__name__]).dispatch(message)[0])
    assert CALLS == [7]
    assert outcomes.count(ACKED) == 1
    assert sum("copy" in outcome.reason for outcome in outcomes if isinstance(outcome, Buried)) == 6
