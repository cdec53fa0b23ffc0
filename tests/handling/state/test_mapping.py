from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from maildefer.confirm import ConfirmationEngine, ConfirmationStorage
from maildefer.handling.state.mapping import DirectoryMapping
from maildefer.mail import MailRequest

OTHER_PROCESS = """
import json, sys
from maildefer.handling.state.mapping import DirectoryMapping
shared = DirectoryMapping(sys.argv[1])
print(json.dumps(shared[b"list:ann@x"]))
shared[b"list:bob@x"] = ("secret", "KEY2")
del shared[b"list:ann@x"]
"""


def test_processes_see_each_others_changes(tmp_path: Path) -> None:
    shared = DirectoryMapping(str(tmp_path / "shared"))
    shared[b"list:ann@x"] = ("START", "KEY1")
    command = [sys.executable, "-c", OTHER_PROCESS, str(tmp_path / "shared")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout) == ["START", "KEY1"]
    assert dict(shared) == {b"list:bob@x": ("secret", "KEY2")}


def test_what_is_absent_is_a_key_error(tmp_path: Path) -> None:
    shared = DirectoryMapping(str(tmp_path / "shared"))
    with pytest.raises(KeyError):
        shared[b"nobody"]
    with pytest.raises(KeyError):
        del shared[b"nobody"]
    assert (list(shared), len(shared), shared.pop(b"nobody", None)) == ([], 0, None)
    shared.clear()
    assert not os.path.exists(tmp_path / "shared")


def test_files_that_are_not_ours_count_as_not_there(tmp_path: Path) -> None:
    shared = DirectoryMapping(str(tmp_path / "shared"))
    shared[b"a"] = ("1", "2")
    [folder] = (tmp_path / "shared").iterdir()
    (folder / "README").write_text("not JSON")
    (folder / ".draft").write_text('{"key": "a"}')
    (tmp_path / "shared" / "fff").mkdir(exist_ok=True)
    assert dict(shared) == {b"a": ("1", "2")}


class Twins(RuleBasedStateMachine):
    """A directory and a dictionary that are told the same."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.shared = DirectoryMapping(f"{self.folder.name}/shared")
        self.plain: dict[bytes, tuple[str, str]] = {}

    @rule(key=st.sampled_from([b"a", b"b", b"c:d@x"]), pair=st.tuples(st.text(max_size=3), st.just("START")))
    def put(self, key: bytes, pair: tuple[str, str]) -> None:
        self.shared[key] = self.plain[key] = pair

    @rule(key=st.sampled_from([b"a", b"b", b"c:d@x"]))
    def drop(self, key: bytes) -> None:
        assert self.shared.pop(key, None) == self.plain.pop(key, None)

    @rule()
    def compare(self) -> None:
        assert dict(self.shared) == self.plain

    @rule()
    def clear(self) -> None:
        self.shared.clear()
        self.plain.clear()

    def teardown(self) -> None:
        self.folder.cleanup()


TestTwins = Twins.TestCase
TestTwins.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)


def test_a_confirmation_is_verified_by_another_worker_than_the_one_that_sent_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = (ConfirmationEngine("pending", ConfirmationStorage("confirmations")) for _ in range(2))
    message = MailRequest("peer", "ann@example.org", "dogs@x", "Subject: hello\n\n")
    secret = one.register("dogs", message).rpartition("-")[2]
    found = other.verify("dogs", "ann@example.org", secret)
    assert found is not None
    assert found["Subject"] == "hello"
    assert one.verify("dogs", "ann@example.org", secret) is None
