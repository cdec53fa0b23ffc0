"""The front page, rebuilt by any number of workers at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from maildefer.mail import MailRequest
from workers import blog
from workers.index import START

REBUILD = """
import sys
from workers import blog
blog.ROOT = sys.argv[1]
for post in range(int(sys.argv[2]), int(sys.argv[2]) + 12):
    blog.publish(f"post-{post}", author="a", title=f"Title {post}", text="t")
    blog.rebuild_index()
"""


def publish(name: str, title: str = "A title") -> None:
    blog.publish(name, author="ann@example.org", title=title, text="t")


def test_the_front_page_lists_every_post_by_its_title(pages: Path) -> None:
    publish("one", "The <first>")
    publish("two", "The second")
    assert blog.rebuild_index() == 2
    front = (pages / "index.html").read_text()
    assert '<a href="one.html">The &lt;first&gt;</a>' in front
    assert '<a href="two.html">The second</a>' in front


def test_rebuilding_twice_changes_nothing(pages: Path) -> None:
    publish("one")
    blog.rebuild_index()
    before = (pages / "index.html").read_text()
    blog.rebuild_index()
    assert (pages / "index.html").read_text() == before
    assert sorted(os.listdir(pages)) == ["index.html", "one.html"]


def test_a_post_published_while_the_page_is_written_is_on_it(
    pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("one")
    replace: Callable[..., None] = blog._replace
    late = iter(["late"])

    def replace_and_publish(path: str, text: str, *, durable: bool) -> None:
        replace(path, text, durable=durable)
        if path.endswith("index.html"):
            for name in late:
                publish(name)

    monkeypatch.setattr(blog, "_replace", replace_and_publish)
    assert blog.rebuild_index() == 2
    assert "late.html" in (pages / "index.html").read_text()


def test_workers_that_rebuild_at_the_same_time_drop_no_post(pages: Path) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", REBUILD, str(pages), str(first)])
        for first in (100, 200, 300, 400)
    ]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0, 0]
    front = (pages / "index.html").read_text()
    assert front.count("<li>") == 48


def test_many_posts_are_one_rebuild(
    mail: Callable[..., MailRequest], pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuilt: list[int] = []
    rebuild = blog.rebuild_index
    monkeypatch.setattr(blog, "rebuild_index", lambda: rebuilt.append(1) or rebuild())
    for name in ("one", "two", "three"):
        publish(name)
    START([mail(f"{name}@osb.example", key=name) for name in ("one", "two", "three")])
    assert rebuilt == [1]
    assert (pages / "index.html").read_text().count("<li>") == 3
