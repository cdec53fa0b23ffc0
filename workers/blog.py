"""The blog itself: posts and a front page, as files under `run/blog/`.

Any number of workers on any number of hosts may call everything here at the same time, and twice for the same mail:
each file is replaced by one rename, and what is kept in memory is only what was read of a file that hasn't changed.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from html import escape, unescape
from typing import Final

ROOT: Final = "run/blog"
FRONT_PAGE: Final = "index.html"

# A post's name comes from a stranger's address and becomes a file's: these, and nothing else.
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
_TITLE: Final = re.compile(r"<title>(.*?)</title>", re.DOTALL)
_HEAD_BYTES: Final = 4096

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<h1>{title}</h1>
<p>by {author}</p>
<pre>{text}</pre>
<p><a href="index.html">all posts</a></p>
</html>
"""
_FRONT: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>All posts</title>
<h1>{count} posts</h1>
<ul>
{items}
</ul>
</html>
"""


class PostNameRefused(ValueError):
    """The address names a post that can't be a file of the blog."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A published post."""

    name: str
    title: str
    path: str


def publish(post_name: str, *, author: str, title: str, text: str) -> Page:
    """Write the post's page, durable when this returns; publishing a name again replaces it."""
    name = post_name.lower()
    if not _NAME.fullmatch(name) or name == "index":
        raise PostNameRefused(f"no post can be named {post_name!r}: use a-z, 0-9, - and _, but not `index`")
    title = " ".join(title.split())[:200] or name
    page = Page(name=name, title=title, path=os.path.join(ROOT, f"{name}.html"))
    _replace(
        page.path, _PAGE.format(title=escape(title), author=escape(author), text=escape(text)), durable=True
    )
    return page


def rebuild_index() -> int:
    """Write the front page from the posts there are, and return their number.

    Who lists first may write last, and would then drop a post from the front page.
    So everybody looks once more after the write, and is done when the posts are still those that it wrote:
    the last writer of all has seen every post that was published before.
    """
    posts = _posts()
    while True:
        items = "\n".join(f'<li><a href="{post[0]}">{escape(_title(ROOT, *post))}</a></li>' for post in posts)
        _replace(os.path.join(ROOT, FRONT_PAGE), _FRONT.format(count=len(posts), items=items), durable=False)
        written, posts = posts, _posts()
        if posts == written:
            return len(posts)


def _posts() -> list[tuple[str, int, int]]:
    """Name, inode and time of each post, in order of name: any change of any post changes this list."""
    os.makedirs(ROOT, exist_ok=True)
    found = []
    for entry in os.scandir(ROOT):
        if entry.name.endswith(".html") and not entry.name.startswith(".") and entry.name != FRONT_PAGE:
            facts = entry.stat()
            found.append((entry.name, facts.st_ino, facts.st_mtime_ns))
    return sorted(found)


@lru_cache(maxsize=10_000)
def _title(root: str, name: str, inode: int, time: int) -> str:
    """A post's title; read once for each time that the post is published."""
    with open(os.path.join(root, name), "rb") as page:
        found = _TITLE.search(page.read(_HEAD_BYTES).decode("utf-8", "replace"))
    return unescape(found[1]) if found else name


def _replace(path: str, text: str, *, durable: bool) -> None:
    """Put `text` at `path` by one rename, so that no reader ever sees half a page."""
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    draft = os.path.join(folder, f".{name}.{os.urandom(6).hex()}")
    with open(draft, "wb") as file:
        file.write(text.encode("utf-8", "replace"))
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.rename(draft, path)
    if durable:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
