"""A headless Chromium, driven by the DevTools protocol over its websocket."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium")
_SECONDS = 60.0


class Tab:
    """One page. `entries` is what the browser has logged of it: errors, violations of its policy."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: str) -> None:
        self.entries: list[str] = []
        self._socket = socket
        self._session = session
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        text = {"id": self._number, "method": method, "params": parameters, "sessionId": self._session}
        await self._socket.send_str(json.dumps(text))
        return await asyncio.wait_for(answer, _SECONDS)

    async def go(self, url: str) -> None:
        """Until the page and what belongs to it are loaded."""
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), _SECONDS)

    async def evaluate(self, script: str) -> Any:
        """The value of an expression, or of the promise that it makes."""
        answer = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, script: str) -> None:
        """Until an expression is true."""
        async with asyncio.timeout(_SECONDS):
            while not await self.evaluate(f"!!({script})"):
                await asyncio.sleep(0.05)

    async def press(self, key: str) -> None:
        """Press a named key, such as Tab or Enter."""
        codes = {"Tab": 9, "Enter": 13}
        facts = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        await self.call(
            "Input.dispatchKeyEvent", type="keyDown", text="\r" if key == "Enter" else "", **facts
        )
        await self.call("Input.dispatchKeyEvent", type="keyUp", **facts)

    async def show(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """Give the page that size and those colours."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self) -> bytes:
        """What the page shows, as PNG."""
        answer = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(answer["data"])

    async def _read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if told.get("id") in self._answers:
                self._answers.pop(told["id"]).set_result(
                    told.get("result", {"exceptionDetails": told.get("error")})
                )
                continue
            match told.get("method"):
                case "Page.loadEventFired":
                    self._loaded.set()
                case "Log.entryAdded":
                    self.entries.append(str(told["params"]["entry"]["text"]))
                case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Page.javascriptDialogOpening":
                    self.entries.append(json.dumps(told["params"]))


@asynccontextmanager
async def browser() -> AsyncIterator[Tab]:
    """A browser of its own, with one page, that ends with the block."""
    assert CHROMIUM, "no chromium: .ci/setup test installs it"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        process = await asyncio.create_subprocess_exec(
            CHROMIUM,
            *"--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --hide-scrollbars".split(),
            "--remote-debugging-port=0",
            f"--user-data-dir={home}",
            "about:blank",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        draining = None
        try:
            address = await asyncio.wait_for(_address(process), _SECONDS)
            assert process.stderr is not None
            draining = asyncio.create_task(process.stderr.read())
            async with aiohttp.ClientSession() as http, http.ws_connect(address, max_msg_size=0) as socket:
                await socket.send_str('{"id": 1, "method": "Target.getTargets"}')
                targets = json.loads((await socket.receive()).data)["result"]["targetInfos"]
                page = next(one["targetId"] for one in targets if one["type"] == "page")
                attach = {"targetId": page, "flatten": True}
                await socket.send_str(
                    json.dumps({"id": 2, "method": "Target.attachToTarget", "params": attach})
                )
                told: dict[str, Any] = {}
                while told.get("id") != 2:
                    told = json.loads((await socket.receive()).data)
                tab = Tab(socket, told["result"]["sessionId"])
                for domain in ("Page", "Log", "Runtime"):
                    await tab.call(f"{domain}.enable")
                yield tab
                tab._reader.cancel()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            if draining is not None:
                draining.cancel()


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async for line in process.stderr:
        if line.startswith(b"DevTools listening on "):
            return line.split()[-1].decode()
    raise AssertionError("chromium has ended")
