"""`passwd`: the file that the front end's AUTH looks into."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from maildefer.cli.commands import passwd as command
from maildefer.intake.access import passwords

HASH = "$scrypt$ln=1,r=8,p=1$c2FsdA$" + "A" * 43


@pytest.mark.slow
def test_passwd_sets_changes_and_deletes(maildefer):
    assert maildefer("passwd", "known", "ann", stdin=b"sesame\n").code == 0
    assert maildefer("passwd", "known", "bob", stdin=b"b\xc3\xb6b").code == 0
    known = passwords.read("known")
    assert passwords.matches("sesame", known["ann"])
    assert passwords.matches("böb", known["bob"])
    assert os.stat("known").st_mode & 0o777 == 0o600
    maildefer("passwd", "known", "ann", stdin=b"changed\n")
    assert passwords.matches("changed", passwords.read("known")["ann"])
    assert maildefer("passwd", "known", "--delete", "ann").code == 0
    assert list(passwords.read("known")) == ["bob"]


def test_passwd_leaves_the_file_when_something_is_wrong(maildefer):
    maildefer("passwd", "known", "ann", stdin=b"sesame\n")
    before = Path("known").read_text()
    assert maildefer("passwd", "known", "ann", stdin=b"\n").code == 78
    assert maildefer("passwd", "known", "a:b", stdin=b"x\n").code == 78
    assert maildefer("passwd", "known", "--delete", "bob").code == 78
    assert Path("known").read_text() == before
    with open("known", "a") as file:
        file.write("nonsense\n")
    assert maildefer("passwd", "known", "bob", stdin=b"x\n").code == 78


def test_of_many_who_set_a_password_at_once_all_are_known_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    everybody_was_asked = threading.Barrier(12, timeout=60)

    def asked(name: str) -> str:
        everybody_was_asked.wait()  # and so has read the file before anybody wrote it
        return name

    monkeypatch.setattr(command, "_asked", asked)
    monkeypatch.setattr(passwords, "hashed", lambda password: HASH)  # of 16 MB each
    names = {f"user{number}" for number in range(12)}
    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(lambda name: command.passwd("known", name, False), names))
    assert passwords.read("known").keys() == names
    assert os.listdir() == ["known"]


def test_a_name_that_was_deleted_while_another_was_asked_for_stays_deleted(maildefer, monkeypatch) -> None:
    for name in ("ann", "bob"):
        maildefer("passwd", "known", name, stdin=b"x\n")

    def asked(name: str) -> str:
        command.passwd("known", "ann", True)
        return "changed"

    monkeypatch.setattr(command, "_asked", asked)
    assert maildefer("passwd", "known", "bob").code == 0
    assert list(passwords.read("known")) == ["bob"]


def test_who_waits_too_long_for_the_file_is_told_and_changes_nothing(maildefer, monkeypatch) -> None:
    maildefer("passwd", "known", "ann", stdin=b"x\n")
    before = Path("known").read_text()
    monkeypatch.setattr(command, "_PATIENCE_SECONDS", 0.0)
    with open("known") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ended = maildefer("passwd", "known", "bob", stdin=b"x\n")
    assert (ended.code, "locked" in ended.err) == (78, True)
    assert Path("known").read_text() == before


def test_a_write_that_fails_leaves_the_file_and_no_draft(maildefer, monkeypatch) -> None:
    maildefer("passwd", "known", "ann", stdin=b"x\n")
    before = Path("known").read_text()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert maildefer("passwd", "known", "bob", stdin=b"x\n").code != 0
    assert Path("known").read_text() == before
    assert os.listdir() == ["known"]
