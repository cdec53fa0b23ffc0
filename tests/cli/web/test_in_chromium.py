"""The page in a real browser: live, by keyboard, on a phone, in both colours, and under attack."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from urllib.parse import urlencode

import pytest

from benchmarks.browser import CHROMIUM, Tab, browser
from maildefer.maildir.layout import Layout
from maildefer.queue import Queue
from tests.support.page import HOSTILE, TOKEN, Site, site

pytestmark = [
    pytest.mark.slow,
    pytest.mark.lifecycle,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: .ci/setup test installs it"),
]


def in_browser(test: Callable[[Site, Tab], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(120), site() as one, browser() as tab:
            one.publish("run/queue", waiting=1)
            await tab.show(1200, 900)
            await tab.go(f"{one.address}/?token={TOKEN}")
            await test(one, tab)

    asyncio.run(run())


def test_the_page_is_live_and_can_be_used_by_keyboard() -> None:
    async def test(one: Site, tab: Tab) -> None:
        await tab.until("document.getElementById('state').textContent == 'live'")
        assert await tab.evaluate("location.search") == ""
        await tab.press("Tab")
        assert await tab.evaluate("document.activeElement.textContent") == "Skip to the content"
        await tab.press("Enter")
        assert await tab.evaluate("document.activeElement.id") == "main"
        await tab.evaluate("document.querySelector('#queues td a').focus()")
        for number in (2, 3):  # the focus stays where it was while all around it is renewed
            one.publish("run/queue", waiting=number)
            await tab.until(f"document.querySelector('#queues td a').textContent == '{number}'")
            assert await tab.evaluate("document.activeElement.textContent") == str(number)
        await tab.press("Tab")
        assert (
            await tab.evaluate("document.activeElement.getAttribute('href')")
            == "entries?queue=run%2Fqueue&in=claimed"
        )
        assert tab.entries == []

    in_browser(test)


def test_hostile_text_does_nothing_and_a_command_is_copied(queue: Layout) -> None:
    key = Queue(queue.path).push(
        f"Subject: {HOSTILE}\n\n{HOSTILE}", sender="a@b.example", recipient="c@d.example"
    )

    async def test(one: Site, tab: Tab) -> None:
        one.publish(queue.path, text=HOSTILE)
        await tab.until("document.body.innerText.includes('taken')")
        for path in (
            "entries?in=waiting&queue=" + queue.path,
            "entry?" + urlencode({"queue": queue.path, "key": key}),
        ):
            await tab.go(f"{one.address}/{path}")
            assert await tab.evaluate("document.querySelectorAll('img, iframe').length") == 0
            assert await tab.evaluate("document.title") != "taken"
        assert "<img src=x" in await tab.evaluate("document.querySelector('main > .scroll').innerText")
        permission = {"name": "clipboard-write"}
        await tab.call("Browser.setPermission", permission=permission, setting="granted")
        await tab.evaluate("document.querySelector('button[data-copy]').click()")
        await tab.until(
            "document.querySelector('button[data-copy]').textContent == 'Copied' || getSelection().toString()"
        )
        assert tab.entries == []
        await tab.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), {text: 'document.title=1'}))"
        )
        assert await tab.evaluate("document.title") == key
        await tab.until("true")
        assert any("Content Security Policy" in entry for entry in tab.entries)

    in_browser(test)


def test_all_is_named_and_nothing_is_wider_than_a_phone() -> None:
    """What axe checks first: language, title, landmarks, headings, names of links, buttons, pictures, table heads."""

    async def test(one: Site, tab: Tab) -> None:
        unnamed = """[...document.querySelectorAll('a, button, svg, [role=region], section')]
            .filter((e) => !(e.getAttribute('aria-label') || document.getElementById(e.getAttribute('aria-labelledby'))
                || e.textContent.trim()) ).map((e) => e.outerHTML)"""
        assert await tab.evaluate(unnamed) == []
        assert await tab.evaluate("document.documentElement.lang") == "en"
        for landmark in ("header", "main", "h1"):
            assert await tab.evaluate(f"document.querySelectorAll('{landmark}').length") == 1
        assert await tab.evaluate("document.querySelectorAll('th:not([scope])').length") == 0
        ids = await tab.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
        assert len(ids) == len(set(ids))
        levels = await tab.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((e) => +e.tagName[1])")
        assert all(after - before <= 1 for before, after in pairwise(levels))
        await tab.show(360, 640, phone=True)
        assert await tab.evaluate("document.documentElement.scrollWidth") <= 360
        assert await tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        await tab.show(360, 640, dark=True, phone=True)
        assert await tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 28)"

    in_browser(test)
