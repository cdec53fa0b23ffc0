from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from maildefer.control import requests
from maildefer.errors import QueueMissing
from maildefer.maildir.layout import Layout, create_queue


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create_queue(str(tmp_path / "queue"))


def add_lease(layout: Layout, name: str, beat: int = 0, **facts: object) -> None:
    Path(layout.leases, f"{name}.{beat}").write_text(json.dumps(facts))


def test_a_request_is_a_file_named_for_the_lease(layout: Layout) -> None:
    path = requests.file_request(layout.path, "web-abcdef-7-0011", "stop")
    assert path == f"{layout.requests}/web-abcdef-7-0011.stop"
    assert json.loads(Path(path).read_text())["verb"] == "stop"
    requests.file_request(layout.path, "web-abcdef-7-0011", "stop")
    assert sorted(os.listdir(layout.requests)) == ["done", "web-abcdef-7-0011.stop"]
    assert os.listdir(layout.tmp) == []


def test_a_request_can_be_withdrawn_and_withdrawn_again(layout: Layout) -> None:
    requests.file_request(layout.path, "a-1-x", "pause")
    for _ in range(2):
        requests.withdraw_request(layout.path, "a-1-x", "pause")
    assert os.listdir(layout.requests) == ["done"]


def test_leases_come_with_what_their_supervisors_tell(layout: Layout) -> None:
    add_lease(layout, "a-1-x", 3, host="a")
    add_lease(layout, "b-1-y", 0)
    Path(layout.leases, "b-1-y.0").write_text("{half")
    Path(layout.leases, ".nfs0001").touch()
    Path(layout.leases, "no-number.x").touch()
    Path(layout.status, "a-1-x.json").write_text('{"workers": 8}')
    first, second = requests.read_leases(layout.path)
    assert (first.name, first.beat, first.facts, first.status) == ("a-1-x", 3, {"host": "a"}, {"workers": 8})
    assert (second.name, second.facts, second.status) == ("b-1-y", {}, {})


def test_a_folder_with_a_leases_name_is_no_host(layout: Layout) -> None:
    add_lease(layout, "a-1-x", 3)
    os.mkdir(f"{layout.leases}/dir.7")
    assert requests.live_names(layout.path) == {"a-1-x": 3}


def test_a_lease_that_is_listed_under_two_beats_is_one(layout: Layout) -> None:
    add_lease(layout, "a-1-x", 9)
    add_lease(layout, "a-1-x", 10)
    assert requests.live_names(layout.path) == {"a-1-x": 10}


def test_a_queue_that_is_not_there_is_an_error_and_an_unserved_maildir_is_not(tmp_path: Path) -> None:
    for ask in (requests.read_leases, requests.live_names):
        with pytest.raises(QueueMissing):
            ask(str(tmp_path / "mistyped"))
    with pytest.raises(QueueMissing):
        requests.file_request(str(tmp_path / "mistyped"), "a-1-x", "stop")
    for name in ("tmp", "new", "cur"):
        (tmp_path / "maildir" / name).mkdir(parents=True)
    assert requests.read_leases(str(tmp_path / "maildir")) == []
    assert not (tmp_path / "mistyped").exists()
