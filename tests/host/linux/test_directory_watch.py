from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from maildefer.host.linux import directory_watch
from maildefer.host.linux.directory_watch import DirectoryWatch


@pytest.fixture
def new(tmp_path: Path) -> Path:
    (tmp_path / "queue" / "new").mkdir(parents=True)
    return tmp_path / "queue" / "new"


@pytest.fixture
def watching(new: Path) -> Iterator[DirectoryWatch]:
    watching = DirectoryWatch(str(new))
    yield watching
    watching.close()


def test_what_is_moved_or_made_there_is_heard_of_at_once(new: Path, watching: DirectoryWatch) -> None:
    assert watching.wait(0) == set()
    (new / "made").touch()
    (new.parent / "moved").touch()
    (new.parent / "moved").rename(new / "moved")
    assert watching.wait(60) == {"made", "moved"}


def test_names_that_nobody_may_claim_are_not_told(new: Path, watching: DirectoryWatch) -> None:
    watching.wait(0)
    (new / ".nfs0000").touch()
    (new / "entry").touch()
    assert watching.wait(60) == {"entry"}


def test_a_directory_that_was_removed_and_made_anew_is_watched(new: Path, watching: DirectoryWatch) -> None:
    watching.wait(0)
    new.rmdir()
    new.mkdir()
    assert watching.wait(60) == set()
    watching.wait(0)
    (new / "entry").touch()
    assert watching.wait(60) == {"entry"}


def test_what_comes_into_a_directory_that_has_replaced_another_is_heard_of(
    new: Path, watching: DirectoryWatch
) -> None:
    """After the wait that tells of the replacement, one lists; whatever comes after that must wake the next wait."""
    watching.wait(0)
    (new.parent / "fresh").mkdir()
    (new.parent / "fresh").rename(new)
    assert watching.wait(60) == set()
    (new / "entry").touch()
    assert watching.wait(60) == {"entry"}


def test_a_directory_whose_parent_was_replaced_is_watched_after_another_look(
    new: Path, watching: DirectoryWatch
) -> None:
    watching.wait(0)
    new.parent.rename(new.parent.parent / "away")
    new.mkdir(parents=True)
    (new / "unheard").touch()
    assert watching.wait(0) == set()
    watching.look_again()
    watching.wait(0)
    (new / "entry").touch()
    assert watching.wait(60) == {"entry"}


def test_another_look_at_the_same_directory_loses_no_event(new: Path, watching: DirectoryWatch) -> None:
    watching.wait(0)
    (new / "entry").touch()
    watching.look_again()
    assert watching.wait(60) == {"entry"}


def test_a_directory_that_is_not_there_is_an_error(new: Path, watching: DirectoryWatch) -> None:
    new.rmdir()
    with pytest.raises(FileNotFoundError):
        watching.wait(0)


def test_without_a_watch_to_be_had_it_sleeps(
    watching: DirectoryWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(directory_watch, "Inotify", refuse)
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    assert watching.wait(0.25) == set()
    assert slept == [0.25]
    assert "Too many open files" in watching.missing
    monkeypatch.undo()
    watching.wait(0)
    assert not watching.missing
