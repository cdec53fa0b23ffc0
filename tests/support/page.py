"""The page of `maildefer web` in a test's own process, of an overview that the test makes up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from maildefer.cli.live.history import History
from maildefer.cli.live.overview import Overview, PoolRow, QueueRow, WorkerRow
from maildefer.cli.live.watch import Watch
from maildefer.cli.web.access import Guard
from maildefer.cli.web.server import OPTIONS, Pages
from maildefer.control.queue_status import EntryCounts
from maildefer.intake.http.service import HttpService
from maildefer.pool.frontend.listeners import bound

TOKEN = "a-token-for-the-page-0123"
HOSTILE = (
    "</td></section><script>document.title='taken'</script><img src=x onerror=alert(1)>\u202e\r\ndata: x"
)


class Site:
    """A page that is being served; `publish` gives it news."""

    def __init__(self, **options: Any) -> None:
        self.watch = Watch(list, None, History(step_seconds=60.0, length=360))
        self.pages = Pages(self.watch, **options)
        listener = bound("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.service = HttpService(
            self.pages.application(Guard(token=TOKEN, cookie=f"c-{self.port}")), OPTIONS
        )
        self.listener = listener

    def publish(self, *paths: str, waiting: int = 0, text: str = "quiet", at: float | None = None) -> None:
        self.watch.publish(overview(*paths, waiting=waiting, text=text, at=at))

    async def open_stream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        head = f"GET /news HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        writer.write(head.encode())
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        return reader, writer


@asynccontextmanager
async def site(**options: Any) -> AsyncIterator[Site]:
    one = Site(**options)
    await one.service.open([one.listener])
    try:
        yield one
    finally:
        for stream in one.pages.streams:
            stream.cancel()
        await one.service.close()


def overview(*paths: str, waiting: int = 0, text: str = "quiet", at: float | None = None) -> Overview:
    """One pool with two workers, and these queues; `text` is wherever others may write."""
    workers = tuple(
        WorkerRow(
            host="a",
            pid=pid,
            state="handling",
            seconds=1.5,
            queue=text,
            entry=text,
            handler=text,
            handled=waiting,
            failed=0,
        )
        for pid in (11, 12)
    )
    pool = PoolRow(
        host=text, kind="supervise", pid=10, state=text, rate=float(waiting), workers=workers, notes=(text,)
    )
    queues = tuple(
        QueueRow(
            path=path,
            name=path,
            counts=EntryCounts(
                queue=path,
                waiting=waiting,
                oldest_seconds=None,
                claimed=0,
                deferred=0,
                later=0,
                dead=1,
                complete=True,
                partial=(),
                serving=(),
            ),
            notes=(text,),
        )
        for path in paths
    )
    now = time.time() if at is None else at
    return Overview(at=now, pools=(pool,), queues=queues, problems=(text,), workers=workers)
