"""The process of `maildefer web`: its pages, and a stream of news for each page that is open."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import jinja2
from aiohttp import web
from markupsafe import Markup, escape

from maildefer.cli import output
from maildefer.cli.live import letters
from maildefer.cli.live.overview import QueueRow
from maildefer.cli.live.watch import RATE, Watch
from maildefer.cli.web.access import Guard, add_headers
from maildefer.cli.web.plots import plot
from maildefer.errors import MaildeferError
from maildefer.host.bounded_async import call_bounded
from maildefer.host.bounded_call import CallFailed, TimedOut, hangs_still
from maildefer.intake.http.service import HttpService, begin_request
from maildefer.intake.options import FrontEndOptions
from maildefer.maildir.operator.entries import FOLDERS
from maildefer.pool.frontend.listeners import WebListener

OPTIONS: Final = FrontEndOptions(
    max_connections=100,
    max_connections_per_client=0,
    idle_seconds=30.0,
    command_seconds=5.0,
    drain_seconds=0.5,
)
_FILES: Final = os.path.join(os.path.dirname(__file__), "files")
_STATIC: Final = {"style.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
_MOST_STREAMS: Final = 32
_MOST_STUCK: Final = 8
_QUIET_SECONDS: Final = 15.0  # then a comment is sent, by which a dead client is noticed
_SLOW_SECONDS: Final = 10.0  # a client that takes nothing for so long is dropped


class Pages:
    """Handles all requests. Event loop only."""

    def __init__(self, watch: Watch, *, slow_seconds: float = _SLOW_SECONDS) -> None:
        self.streams: set[asyncio.Task[Any]] = set()
        self._watch = watch
        self._slow_seconds = slow_seconds
        self._late: list[TimedOut] = []  # looks that hang, or did
        self._frame: tuple[int, bytes] = (-1, b"")
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_FILES),
            autoescape=True,
            auto_reload=False,
            undefined=jinja2.StrictUndefined,
            finalize=_shown,
        )
        self._environment.filters |= {"duration": output.duration, "size": output.size, "lines": _lines}
        self._environment.globals |= {"plot": self._plot, "clock": _clock}
        self._static = {name: (_read(name), kind) for name, kind in _STATIC.items()}
        for name in self._environment.list_templates(extensions=["html"]):  # now, and not while a mount hangs
            self._environment.get_template(name)

    def application(self, guard: Guard) -> web.Application:
        application = web.Application(middlewares=[guard.middleware], client_max_size=1)
        application.on_response_prepare.append(add_headers)
        routes = {"/": self._overview, "/news": self._news, "/entries": self._entries, "/entry": self._entry}
        for path, handler in routes.items():
            application.router.add_get(path, handler)
        for name in self._static:
            application.router.add_get(f"/{name}", self._file)
        return application

    def news(self) -> bytes:
        """The newest overview as an event (HTML Living Standard, 9.2); rendered once for all who want it."""
        if self._frame[0] != self._watch.version:
            html = self._render("live.html", overview=self._watch.overview)
            lines = "".join(f"data: {line}\n" for line in html.splitlines())
            self._frame = self._watch.version, f"{lines}\n".encode()
        return self._frame[1]

    # Requests

    async def _overview(self, request: web.Request) -> web.Response:
        return self._page("overview.html", overview=self._watch.overview)

    async def _entries(self, request: web.Request) -> web.Response:
        queue, folder = self._queue(request), request.query.get("in", "dead")
        if folder not in (*FOLDERS, "undeliverable"):
            raise web.HTTPNotFound(text="There is no such folder.")
        reason = request.query.get("reason")
        found = await self._look(partial(letters.folder_page, queue.path, queue.name, folder, reason))
        return self._page("entries.html", queue=queue, folder=folder, reason=reason, found=found)

    async def _entry(self, request: web.Request) -> web.Response:
        queue, key = self._queue(request), request.query.get("key", "")
        found = await self._look(partial(letters.entry_page, queue.path, queue.name, key))
        return self._page("entry.html", queue=queue, key=key, found=found)

    async def _file(self, request: web.Request) -> web.Response:
        body, kind = self._static[request.path.rpartition("/")[2]]
        return web.Response(body=body, content_type=kind)

    async def _news(self, request: web.Request) -> web.StreamResponse:
        """Send what is newest whenever there is news: a slow client misses some, and holds up nobody."""
        if len(self.streams) >= _MOST_STREAMS:
            raise web.HTTPServiceUnavailable(text="Too many pages are open.")
        task = asyncio.current_task()
        assert task is not None
        self.streams.add(task)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            await response.prepare(request)
            begin_request(request)  # its answer goes on, so the connection does not count as idle
            version = -1
            while True:
                try:
                    async with asyncio.timeout(_QUIET_SECONDS):
                        version = await self._watch.next(version)
                    data = self.news()
                except TimeoutError:
                    data = b":\n\n"
                async with asyncio.timeout(self._slow_seconds):
                    await response.write(data)
        except (TimeoutError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()  # what it did not take is not kept for it
        finally:
            self.streams.discard(task)
        return response

    # Parts

    def _queue(self, request: web.Request) -> QueueRow:
        """The queue that a request names: only what the overview shows is ever opened."""
        row = self._watch.overview.queue(request.query.get("queue", ""))
        if row is None:
            raise web.HTTPNotFound(text="There is no such queue here, or nothing is known of it yet.")
        return row

    async def _look(self, look: Callable[[], Any]) -> Any:
        """What a look at a mount finds. Raises HTTPError with the reason for which nothing is known."""
        self._late = [late for late in self._late if hangs_still(late)]
        if len(self._late) >= _MOST_STUCK:
            raise web.HTTPGatewayTimeout(text="Its filesystem hangs, as earlier looks do.")
        try:
            found = await call_bounded(look, letters.SECONDS + 4.0)
        except OSError as fault:
            why = f"No process can be had to look: {fault.strerror}"
            raise web.HTTPServiceUnavailable(text=why) from fault
        match found:
            case TimedOut():
                self._late.append(found)
                why = f"No answer within {found.seconds:g} s: its filesystem hangs."
                raise web.HTTPGatewayTimeout(text=why)
            case CallFailed(error=MaildeferError() as error):
                raise web.HTTPNotFound(text=output.clean(error))
            case CallFailed(error=OSError() as error):
                raise web.HTTPNotFound(text=output.clean(error.strerror))
            case CallFailed(error=error):
                raise error
        return found

    def _page(self, template: str, **facts: object) -> web.Response:
        return web.Response(text=self._render(template, **facts), content_type="text/html", charset="utf-8")

    def _render(self, template: str, **facts: object) -> str:
        return self._environment.get_template(template).render(**facts)

    def _plot(self, what: str, path: str = "") -> Markup:
        history, at = self._watch.history, self._watch.overview.at
        series = f"{what} {path}" if path else what
        label = "messages a second" if what == RATE else f"entries {what}"
        return plot(history.means(at, series), history.step_seconds, label)


async def serve(watch: Watch, guard: Guard, listener: WebListener) -> None:
    """Answer until TERM or INT."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    pages = Pages(watch)
    service = HttpService(pages.application(guard), OPTIONS)
    await service.open([listener.socket])
    looking = loop.create_task(watch.keep_looking())
    stopping = loop.create_task(stop.wait())
    await asyncio.wait([looking, stopping], return_when=asyncio.FIRST_COMPLETED)
    for stream in [*pages.streams, looking, stopping]:
        stream.cancel()
    await service.close()
    if looking.done() and not looking.cancelled():
        looking.result()


def _shown(value: object) -> object:
    """What a template prints of untrusted text: nothing that changes a line's direction or can't be seen."""
    return value if isinstance(value, Markup) else output.clean("" if value is None else value)


def _lines(text: str) -> Markup:
    return escape(output.clean_lines(text))


def _clock(at: float) -> str:
    """The time of day of a moment on the monotonic clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(time.time() - time.monotonic() + at))


def _read(name: str) -> bytes:
    with open(os.path.join(_FILES, name), "rb") as file:
        return file.read()
