"""`passwd`: the file that the front end's AUTH looks into."""

from __future__ import annotations

import os
from pathlib import Path

from maildefer.intake import passwords


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
