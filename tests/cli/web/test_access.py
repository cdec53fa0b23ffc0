from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from maildefer.cli.web.access import HEADERS, Guard
from maildefer.intake.http.api_tokens import ApiTokens

TOKEN = "0123456789abcdef-token"
GUARD = Guard(token=TOKEN, cookie="maildefer-8824")


def ask(guard: Guard, path: str = "/", **headers: str) -> Any:
    async def page(request: web.Request) -> web.Response:
        return web.Response(text="page")

    async def run() -> web.StreamResponse:
        given = {"Host": "127.0.0.1:8824", **headers}
        return await guard.middleware(make_mocked_request("GET", path, headers=given), page)

    return asyncio.run(run())


def session(guard: Guard) -> str:
    return str(ask(guard, f"/?token={TOKEN}").cookies["maildefer-8824"].value)


def test_without_a_token_nothing_is_shown() -> None:
    assert ask(GUARD).status == 401
    assert ask(GUARD, "/?token=").status == 401
    assert ask(GUARD, "/?token=0123456789abcdef-tokem").status == 401
    assert ask(GUARD, Cookie="maildefer-8824=").status == 401


def test_the_token_begins_a_session_and_leaves_the_address() -> None:
    first = ask(GUARD, f"/?token={TOKEN}")
    assert (first.status, first.headers["Location"]) == (303, "./")
    cookie = first.cookies["maildefer-8824"]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Strict")
    assert TOKEN not in cookie.value
    assert ask(GUARD, Cookie=f"maildefer-8824={cookie.value}").text == "page"


def test_a_session_ends_with_its_process() -> None:
    again = Guard(token=TOKEN, cookie="maildefer-8824")
    assert ask(again, Cookie=f"maildefer-8824={session(GUARD)}").status == 401


def test_a_program_gives_the_token_as_a_bearer() -> None:
    assert ask(GUARD, Authorization=f"Bearer {TOKEN}").text == "page"
    assert ask(GUARD, Authorization=f"Basic {TOKEN}").status == 401
    assert ask(GUARD, Authorization="Bearer tökén").status == 401


@pytest.mark.parametrize("lines", ["", "# none\n", f"{TOKEN}  posts\n"])
def test_a_file_without_a_token_for_all_queues_opens_no_page(
    maildefer: Any, tmp_path: Path, lines: str
) -> None:
    (tmp_path / "tokens").write_text(lines)
    (tmp_path / "tokens").chmod(0o600)
    ended = maildefer("web", "--token-file", str(tmp_path / "tokens"))
    assert (ended.code, "has no token that opens a page" in ended.err) == (78, True)


def test_tokens_of_a_file_are_those_for_all_queues(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"{TOKEN}\n{TOKEN}-posts  posts\n")
    (tmp_path / "tokens").chmod(0o600)
    guard = Guard(tokens=ApiTokens(str(tmp_path / "tokens")), cookie="c")
    assert ask(guard, Authorization=f"Bearer {TOKEN}").status == 200
    assert ask(guard, Authorization=f"Bearer {TOKEN}-posts").status == 401
    assert ask(guard).status == 401


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:99", "[::1]:8824", "localhost", "LOCALHOST:1", "mail.example:443"]
)
def test_addresses_localhost_and_given_names_are_ours(host: str) -> None:
    assert ask(Guard(names=["Mail.example"]), Host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil.example:8824", "@localhost"]
)
def test_a_name_of_elsewhere_that_leads_here_is_refused_even_with_the_token(host: str) -> None:
    assert ask(GUARD, f"/?token={TOKEN}", Host=host).status == 403
    assert ask(GUARD, Host=host, Authorization=f"Bearer {TOKEN}").status == 403


def test_nothing_inline_and_nothing_from_elsewhere_may_be_executed() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
