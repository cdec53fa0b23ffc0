"""A queue as a version of maildefer has left it, as text: `NAME.json` beside this file, made by `record`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
BEAT_SECONDS, TTL_SECONDS = 0.5, 4.0  # of the recorded queues, for short tests

# The project both of the recording and of the test: while there is a file `recording`, handlers leave entries behind.
PROJECT = {
    "conf/__init__.py": "",
    "conf/settings.py": """
queues = {"run/queue": ["workers.recorded", "workers.talk"]}
router_defaults = {"what": "[a-z]+"}
""",
    "workers/__init__.py": "",
    "workers/recorded.py": """
import os, signal, time
from maildefer.routing import Defer, Reject, route, stateless

def note(message):
    with open("handled", "a") as file:
        file.write(message.key + "\\\\n")

@route("(what)@test")
@stateless
def HANDLE(message, what):
    if os.path.exists("recording"):
        leave(message, what)
    note(message)

def leave(message, what):
    if what == "deferred":
        raise Defer("not now", after=1)
    if what == "rejected":
        raise Reject("never")
    if what == "failing":
        raise RuntimeError("it broke")
    if what == "effect":
        message.once("charge").__enter__()
        raise RuntimeError("it broke in the middle")
    if what == "killed":
        while len(os.listdir("run/queue/cur")) > 1 or not os.listdir("run/queue/.dead/new"):
            time.sleep(0.01)
        os.kill(os.getppid(), signal.SIGKILL)  # the supervisor, and all with it
        time.sleep(100)
""",
    "workers/talk.py": """
from maildefer.routing import route
from workers.recorded import note

@route("talk-to@test")
def START(message):
    note(message)
    return SECOND

@route("talk-to@test")
def SECOND(message):
    with open("second", "a") as file:
        file.write(message.key + "\\\\n")
    return SECOND
""",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedQueue:
    """What is in its folder, and what has to become of it."""

    made_by: str  # the commit
    folders: Sequence[str]
    files: Mapping[str, str]
    unended: Mapping[str, str]  # keys of entries, by what they are: each has to be handled
    dead: Sequence[str]  # of those, the dead letters
    unique: Mapping[str, str]  # the keys of entries that have not ended, by their unique key

    @classmethod
    def read(cls, name: str) -> RecordedQueue:
        return cls(**json.loads((HERE / f"{name}.json").read_text()))

    def write(self, name: str) -> None:
        (HERE / f"{name}.json").write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")

    def lay_out(self, queue: Path) -> None:
        """Make the folder as it was."""
        for folder in self.folders:
            (queue / folder).mkdir(parents=True, mode=0o700)
        for name, text in self.files.items():
            (queue / name).write_bytes(text.encode("latin-1"))


def names() -> list[str]:
    """The recorded queues, oldest first."""
    return sorted(path.stem for path in HERE.glob("*.json"))


def write_project(folder: Path) -> None:
    for name, text in PROJECT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.replace("\\\\n", "\\n"))


def environment(tree: Path) -> dict[str, str]:
    """Of a process that runs the maildefer that is in `tree`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAILDEFER_")}
    return {**kept, "PYTHONPATH": str(tree), "MAILDEFER_HOST_ID": "host-a", "PYTHONSAFEPATH": ""}
