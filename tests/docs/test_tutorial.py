"""The tutorial, done as it says: its files written, its commands given, and what it shows seen."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.ports import free_port
from tests.support.documents import blocks_of, write_block

TUTORIAL = Path(__file__).resolve().parent.parent.parent / "docs" / "tutorial.md"
README = TUTORIAL.parent.parent / "README.md"
BLOCKS = blocks_of(TUTORIAL)
# May be given until it shows what it should.
LOOKING = ("cat ", "ls ", "maildefer queue list", "maildefer dead list")
IN_ANOTHER_TERMINAL = "# in the second terminal\n"
PATIENCE_SECONDS = 60.0

pytestmark = [pytest.mark.lifecycle, pytest.mark.slow]


class Reader:
    """Somebody who does what the tutorial says, on ports that are free here."""

    def __init__(self, home: Path) -> None:
        self.folder = home
        self.said = ""
        self.last = ""
        self.other: subprocess.Popen[bytes] | None = None
        self.ports = {"8823": free_port(), "8825": free_port()}
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MAILDEFER_RUNTIME_DIR": str(home / "r"),
            "MAILDEFER_HOST_ID": f"tutorial{os.getpid()}",
            "PYTHONPATH": str(TUTORIAL.parent.parent),
        }

    def do(self, kind: str, block: str) -> None:
        match kind:
            case "sh" if block.startswith(IN_ANOTHER_TERMINAL):
                self.begin(block.removeprefix(IN_ANOTHER_TERMINAL))
            case "sh":
                self.give(block)
            case "python":
                self.write(block)
            case "text":
                self.see(block)
            case _:
                pytest.fail(f"a block of the tutorial is {kind}")

    def give(self, commands: str) -> None:
        self.last = commands
        script = f"set -e\n{self.on_free_ports(commands)}\npwd >&3"
        end, there = os.pipe()
        try:
            done = subprocess.run(
                ["bash", "-c", script.replace(">&3", f">&{there}")],
                cwd=self.folder,
                env=self.environment,
                pass_fds=[there],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            os.set_blocking(end, False)
            self.said = done.stdout
            assert done.returncode == 0 or self.may_look_again(), done.stdout
            if done.returncode == 0:
                self.folder = Path(os.read(end, 4096).decode().strip())
        finally:
            os.close(end)
            os.close(there)
        self.use_free_ports()

    def begin(self, command: str) -> None:
        with open(self.folder / "second-terminal", "wb") as log:
            self.other = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def write(self, text: str) -> None:
        write_block(self.folder, text)

    def see(self, expected: str) -> None:
        wanted = [re.compile(".*".join(map(re.escape, line.split("…")))) for line in expected.splitlines()]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while missing := [line.pattern for line in wanted if not line.search(self.said)]:
            assert self.may_look_again(), f"{self.last} says {self.said!r}, which has no {missing}"
            assert time.monotonic() < deadline, f"{self.last} says {self.said!r} for ever, not {missing}"
            time.sleep(0.3)
            self.give(self.last)

    def may_look_again(self) -> bool:
        return all(line.startswith(LOOKING) for line in self.last.splitlines())

    def on_free_ports(self, text: str) -> str:
        for port, free in self.ports.items():
            text = text.replace(port, str(free))
        return text.replace("maildefer log", f"maildefer log --port {self.ports['8825']}")

    def use_free_ports(self) -> None:
        """In the settings, as soon as they are there."""
        settings = self.folder / "conf" / "settings.py"
        if settings.exists() and settings.read_text() != (text := self.on_free_ports(settings.read_text())):
            settings.write_text(text)

    def leave(self) -> None:
        subprocess.run(
            [sys.executable, "-m", "maildefer.cli", "stop", "--all", "run"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            check=False,
        )
        if self.other is not None and self.other.poll() is None:
            self.other.send_signal(signal.SIGTERM)
            self.other.wait(PATIENCE_SECONDS)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    try:
        yield reader
    finally:
        reader.leave()


def test_the_tutorial_shows_what_it_says(reader: Reader) -> None:
    assert len(BLOCKS) > 20
    for kind, block in BLOCKS:
        reader.do(kind, block)
    assert reader.other is not None
    assert reader.other.wait(PATIENCE_SECONDS) == 0
    log = (reader.folder / "second-terminal").read_text()
    assert "outcome=handed_off" in log
    assert "outcome=deferred" in log


def test_the_commands_of_the_readme_run_a_pool_that_handles_a_message_and_stop_it(reader: Reader) -> None:
    section = README.read_text().partition("\n## A handler\n")[2].partition("\n## ")[0]
    first, second = re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    *beginning, pool = first.splitlines()
    send, *end = second.splitlines()
    for line in beginning:
        reader.give(line)
    reader.begin(pool)
    reader.give(send)
    reader.give("cat run/blog/hello.html")
    reader.see("It works.")
    reader.give("\n".join(end))
    assert reader.other is not None
    assert reader.other.wait(PATIENCE_SECONDS) == 0
