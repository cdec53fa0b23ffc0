"""`make screenshots`: pictures of the page of `maildefer web` for docs/, of a pool that is at work.

A project of its own, a pool, and a headless Chromium (`.ci/setup test` installs it).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image

from benchmarks.browser import Tab, browser
from benchmarks.places import APPLICATIONS
from maildefer.maildir.layout import create_queue
from maildefer.queue import Queue

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "images"
_COLOURS = 128  # of a picture, so that it stays small
_HOSTILE = "</pre><script>document.title = 'taken'</script><img src=x onerror=alert(1)> \u202egnp.exe"


@contextmanager
def project() -> Iterator[Path]:
    """A fresh project whose pool is at work: orders, deferred invoices, dead letters of three reasons."""
    home = Path(tempfile.mkdtemp()) / "shop"
    shutil.copytree(APPLICATIONS / "shop", home)
    environ = os.environ | {"MAILDEFER_RUNTIME_DIR": str(home / "runtime"), "PYTHONPATH": str(ROOT)}
    (home / "run").mkdir()
    orders, newsletter = (
        Queue(create_queue(str(home / "run" / name)).path) for name in ("orders", "newsletter")
    )
    load = [("order", "One mug"), ("order", "A shirt"), ("invoice", "Nr. 17")] * 40
    load += [("complaint", "It is broken"), ("order", f"One {_HOSTILE}"), ("complaint", "Where is it?")]
    load += [("order", "A teapot")] * 3
    for number, (name, subject) in enumerate(load):
        _push(orders, f"customer{number}@example.com", f"{name}@shop.example", subject)
    command = [sys.executable, "-m", "maildefer"]
    pool = subprocess.Popen([*command, "supervise"], cwd=home, env=environ, stderr=subprocess.DEVNULL)
    try:
        page = subprocess.Popen(
            [*command, "web", "--port", "0", "--hours", "0.02"], cwd=home, env=environ, stdout=subprocess.PIPE
        )
        try:
            assert page.stdout is not None
            (home / "address").write_bytes(page.stdout.readline())
            for number in range(72):
                _push(newsletter, "shop@shop.example", f"news{number}@example.com", "News")
            yield home
        finally:
            _end(page)
    finally:
        _end(pool)
        shutil.rmtree(home.parent, ignore_errors=True)


def _push(queue: Queue, sender: str, recipient: str, subject: str) -> None:
    text = f"From: {sender}\nTo: {recipient}\nSubject: {subject}\n\nHello,\n\n{subject}, please.\n"
    queue.push(text.encode(), sender=sender, recipient=recipient)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def take(home: Path, pictures: Path, settle_seconds: float = 25.0) -> None:
    address = (home / "address").read_text().strip()
    async with browser() as tab:
        await tab.show(1180, 860)
        await tab.go(address)
        await tab.until(
            "document.querySelector('#queues td.warn') && document.querySelector('#workers tbody tr')"
        )
        await tab.until("+document.querySelector('#queues tr:nth-child(2) td.warn').textContent >= 6")
        await asyncio.sleep(settle_seconds)  # for a history to be seen
        await _save(tab, pictures / "web.png")
        await tab.show(1180, 860, dark=True)
        await _save(tab, pictures / "web-dark.png")
        await tab.show(390, 760, phone=True)
        await _save(tab, pictures / "web-phone.png")
        await tab.show(1180, 860)
        await tab.evaluate("document.querySelector('#queues tr:nth-child(2) td.warn a').click()")
        await tab.until("location.pathname == '/entries' && document.readyState == 'complete'")
        await _save(tab, pictures / "web-dead.png")
        rows = "[...document.querySelectorAll('#entries-table tr')]"
        await tab.evaluate(
            f"{rows}.find((e) => e.innerText.includes('telephone')).querySelector('a').click()"
        )
        await tab.until("location.pathname == '/entry' && document.readyState == 'complete'")
        await _save(tab, pictures / "web-entry.png")
        assert tab.entries == [], tab.entries


async def _save(tab: Tab, path: Path) -> None:
    picture = (
        Image.open(BytesIO(await tab.picture())).convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)
    print(
        f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}: {path.stat().st_size // 1000} kB"
    )


def main() -> int:
    began = time.monotonic()
    with project() as home:
        asyncio.run(take(home, PICTURES))
    print(f"done in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
