"""`GET /live` and `GET /ready`: what `maildefer probe` says, as 200 or 503 and its reasons; and `GET /metrics`."""

from __future__ import annotations

from aiohttp import web

from maildefer.control import health
from maildefer.control.local_processes import LocalStatus, problems_of
from maildefer.intake.http.service import begin_request
from maildefer.monitoring.looks import Looks
from maildefer.monitoring.metrics import exposition


class Endpoints:
    """Handles all requests of the process. Event loop only."""

    def __init__(self, looks: Looks) -> None:
        self._looks = looks

    def application(self) -> web.Application:
        application = web.Application(client_max_size=1)
        application.router.add_get("/live", self.live)
        application.router.add_get("/ready", self.ready)
        application.router.add_get("/metrics", self.metrics)
        return application

    async def live(self, request: web.Request) -> web.Response:
        """Fail for what had better be started anew."""
        return await self._judge(request, "live", health.why_dead)

    async def ready(self, request: web.Request) -> web.Response:
        """Fail for what takes no messages now, or not by its newest code."""
        return await self._judge(request, "ready", health.why_unready)

    async def metrics(self, request: web.Request) -> web.Response:
        """All metrics, in Prometheus' format or OpenMetrics'. A queue that can't be looked at has none."""
        begin_request(request)
        process = await self._looks.process.result()
        paths = process.record.queues if isinstance(process, LocalStatus) else ()
        accept = ",".join(request.headers.getall("Accept", []))
        body, content_type = exposition(process, await self._looks.queues(paths), accept)
        return web.Response(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    async def _judge(self, request: web.Request, word: str, judge: health.Judge) -> web.Response:
        begin_request(request)
        problems = problems_of(await self._looks.process.result(), judge)
        text = "".join(f"{problem}\n" for problem in problems) or f"{word}\n"
        return web.Response(text=text, status=503 if problems else 200, headers={"Cache-Control": "no-store"})
