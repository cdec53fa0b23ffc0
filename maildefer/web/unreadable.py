"""aiohttp's side of a connection, but for what it says of a request that it can't read."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from maildefer.web.gate import SERVER


class Conversation(web.RequestHandler):
    """Such a request never reaches the application; the answer tells neither a server's version nor what was sent."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # logs it
        told = "the request can't be read" if status < 500 else HTTPStatus(status).phrase
        response = web.json_response(
            {"status": status, "detail": told},
            status=status,
            headers={"Server": SERVER},
            content_type="application/problem+json",
        )
        response.force_close()
        return response
