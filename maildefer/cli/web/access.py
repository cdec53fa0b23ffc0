"""Who may see the pages: whoever has the token, or a session that began with it, and asks for a host that we know."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from aiohttp import web

from maildefer.intake.http.api_tokens import ApiTokens, bearer
from maildefer.intake.http.service import begin_request

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Nothing may be loaded, executed or sent but by our own two files; what is shown is untrusted.
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """Lets requests in. `tokens` is None where one was made for this process, or where a socket file's mode guards."""

    def __init__(
        self,
        *,
        tokens: ApiTokens | None = None,
        token: str = "",
        names: Collection[str] = (),
        cookie: str = "",
    ) -> None:
        """`names`: of this host, beside localhost. `cookie`: its name; a browser has one of a name for all ports."""
        self._tokens = tokens
        self._token = token
        self._names = {"localhost", *(name.lower() for name in names)}
        self._cookie = cookie
        # Not the token, so that nothing that reads cookies learns it.
        self._session = secrets.token_urlsafe(32)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        begin_request(request)
        try:
            if not self.knows(request.host):
                refused = "This host is not known by that name: `maildefer web --name` adds one."
                raise web.HTTPForbidden(text=refused)
            if self._is_token(request.query.get("token", "")):
                return self._begin_session()
            if not self._lets_in(request):
                refused = "Open the address that `maildefer web` has printed, or give the token as a bearer."
                raise web.HTTPUnauthorized(text=refused)
            return await handler(request)
        except web.HTTPException as error:
            return web.Response(status=error.status, text=f"{error.text}\n")

    def knows(self, host: str) -> bool:
        """Whether a Host header is ours: else a page of elsewhere, by a name that leads here, could read ours."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        name = name.lower().rstrip(".")
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name in self._names
        return True

    def _lets_in(self, request: web.Request) -> bool:
        if self._tokens is None and not self._token:
            return True
        header = request.headers.get("Authorization", "")
        session = request.cookies.get(self._cookie, "")
        return hmac.compare_digest(session.encode(errors="replace"), self._session.encode()) or (
            header.lower().startswith("bearer ") and self._is_token(bearer(header).decode(errors="replace"))
        )

    def _is_token(self, given: str) -> bool:
        if self._tokens is not None:
            return self._tokens.allows(f"Bearer {given}", "") is True  # one that is for all queues
        return bool(self._token) and hmac.compare_digest(given.encode(errors="replace"), self._token.encode())

    def _begin_session(self) -> web.StreamResponse:
        """Go on to the same page without the token, which is to stay out of histories."""
        response = web.Response(status=303, headers={"Location": "./"})
        response.set_cookie(self._cookie, self._session, httponly=True, samesite="Strict", path="/")
        return response


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers that all responses have."""
    response.headers.update(HEADERS)
