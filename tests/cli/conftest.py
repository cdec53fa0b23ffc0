from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from maildefer.cli import status_survey
from maildefer.cli.program import run
from maildefer.handling.project import finder
from maildefer.maildir.layout import Layout, create_queue
from tests.support.json_lines import hold


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Maildefer = Callable[..., Ended]


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime directory and a project folder of the test's own."""
    monkeypatch.setenv("MAILDEFER_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime") / "r"))
    for variable in finder.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MAILDEFER_HOST_ID", f"test{os.getpid()}")
    monkeypatch.chdir(tmp_path_factory.mktemp("project"))


@pytest.fixture
def maildefer(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Maildefer:
    """Carry out one command in this process; `status` has all the time that a busy machine may need."""
    monkeypatch.setattr(status_survey, "SECONDS", 60.0)

    def carry_out(*arguments: str, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            run(list(arguments))
        out, err = capfd.readouterr()
        hold(arguments, out)
        code = end.value.code
        return Ended(code if isinstance(code, int) else 0 if code is None else 1, out, err)

    return carry_out


@pytest.fixture
def queue(tmp_path: Any) -> Layout:
    return create_queue(str(tmp_path / "q"))


@pytest.fixture
def public_queue() -> Iterator[Layout]:
    """A queue that other users can look at, and nobody but its owner can change."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        layout = create_queue(f"{folder}/queue")
        for path, _, _ in os.walk(layout.path):
            os.chmod(path, 0o755)
        yield layout
