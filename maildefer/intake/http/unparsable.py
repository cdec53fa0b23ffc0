"""Responses to requests that aiohttp can't read, or has no handler for."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from maildefer.intake.http.admission import problem


class HttpHandler(web.RequestHandler):
    """aiohttp's handler of a connection; its errors are problems in JSON, without its name or what was sent."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # logs it
        return _Unreadable(status=status)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, _Unreadable):
            status = HTTPStatus(resp.status)
            if self.transport is not None:
                self.transport.write(
                    problem(status, "the request can't be read" if status < 500 else status.phrase)
                )
            return resp, True  # and the connection ends
        if isinstance(resp, web.HTTPException):
            response = web.json_response(
                {"status": resp.status, "detail": resp.reason},
                status=resp.status,
                content_type="application/problem+json",
            )
            response.headers.extend((name, resp.headers[name]) for name in resp.headers if name == "Allow")
            resp = response
        return await super().finish_response(request, resp, start_time)


class _Unreadable(web.Response):
    """Takes a status to `finish_response`; aiohttp would put its own name on it."""
