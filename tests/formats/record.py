"""`python -m tests.formats.record NAME [COMMIT]`: have a version of maildefer make a queue, and keep it as NAME.json.

In the queue is an entry in each state that this version knows, as after the death of its only host.
It is run once for each release, and for each change of what is on disk, with a name that sorts after the others'.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tests.formats.recorded_queue import BEAT_SECONDS, TTL_SECONDS, RecordedQueue, environment, write_project

ROOT = Path(__file__).resolve().parent.parent.parent
MAKE = """
import sys
from maildefer.maildir.layout import Format, create_queue
create_queue("run/queue", format=Format(beat_seconds=float(sys.argv[1]), ttl_seconds=float(sys.argv[2])))
"""
# Both are run below that version's code. What it does not know yet is left out.
PUSH = """
import json, sys
from maildefer.queue import Queue

queue, keys, unique = Queue("run/queue"), {}, {}

def push(what, to=None, **options):
    try:
        keys[what] = queue.push(
            "Subject: %s\\n\\nHello\\n" % what, sender="ann@example.org", recipient=(to or what) + "@test", **options
        )
    except TypeError:
        pass  # an option that this version does not have
    return keys.get(what)

if sys.argv[1] == "before":
    for what in "done", "deferred", "rejected", "failing":
        push(what)
    push("talk", "talk-to")
    if hasattr(Queue, "reschedule"):
        push("effect")
    push("killed")
else:
    push("waiting")
    push("high", priority="high")
    push("low", priority="low")
    push("later", after=1)
    if push("unique", unique="a key"):
        unique["a key"] = keys["unique"]
    if push("uniquelater", unique="another key", after=1):
        unique["another key"] = keys["uniquelater"]
print(json.dumps([keys, unique]))
"""


def main(name: str, commit: str = "HEAD") -> None:
    with tempfile.TemporaryDirectory() as place:
        project, tree = Path(place, "project"), Path(place, "tree")
        tree.mkdir()
        archive = subprocess.run(
            ["git", "archive", commit, "maildefer"], cwd=ROOT, check=True, capture_output=True
        )
        subprocess.run(["tar", "x", "-C", tree], input=archive.stdout, check=True)
        write_project(project)
        recorded = _record(project, tree)
    made_by = subprocess.run(
        ["git", "rev-parse", commit], cwd=ROOT, check=True, capture_output=True, text=True
    )
    replace(recorded, made_by=made_by.stdout.strip()).write(name)
    print(f"{name}: {', '.join(recorded.unended)}")


def _record(project: Path, tree: Path) -> RecordedQueue:
    environ, queue = environment(tree), project / "run/queue"
    (project / "run").mkdir()

    def run(*words: str, code: int | None = 0) -> str:
        """On a host that is called host-a, for which it takes root."""
        host = ["unshare", "--uts", "sh", "-c", 'hostname host-a; exec "$@"', "sh"]
        done = subprocess.run(
            [*host, sys.executable, *words], cwd=project, env=environ, capture_output=True, text=True
        )
        assert code is None or done.returncode == code, done.stderr
        return done.stdout

    run("-c", MAKE, str(BEAT_SECONDS), str(TTL_SECONDS))
    run("-m", "maildefer", "audit", "--on", "run/queue")
    first, _ = json.loads(run("-c", PUSH, "before"))
    (project / "recording").touch()
    run("-m", "maildefer", "supervise", "--workers", "2", code=-signal.SIGKILL)
    time.sleep(1)  # until the workers have followed
    then, unique = json.loads(run("-c", PUSH, "after"))
    handled = (project / "handled").read_text().split()
    keys = {what: key for what, key in {**first, **then}.items() if key not in handled}
    dead = [path.name for path in (queue / ".dead/new").iterdir()]
    machines = {str(project): "/srv/blog", str(tree): "/opt/maildefer", sys.base_prefix: "/usr"}
    return RecordedQueue(
        made_by="",
        folders=["", *sorted(str(path.relative_to(queue)) for path in queue.rglob("*") if path.is_dir())],
        files={
            str(path.relative_to(queue)): _text(path, machines) for path in queue.rglob("*") if path.is_file()
        },
        unended=keys,
        dead=[key for key in keys.values() if any(name.startswith(key) for name in dead)],
        unique=unique,
    )


def _text(path: Path, machines: dict[str, str]) -> str:
    text = path.read_bytes().decode("latin-1")
    if ".maildefer" in path.parts:  # an entry says how long it is
        for old, new in machines.items():
            text = text.replace(old, new)
    return text


if __name__ == "__main__":
    main(*sys.argv[1:])
