"""A front end by HTTP: a real process, real requests, two queues."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maildefer.maildir.layout import create_queue
from maildefer.message.envelope import Envelope
from tests.support.front_end import ROOT, SECONDS, stored, wait_until

ALL, POSTS = "token-for-all-queues", "token-for-posts-only"
MESSAGE = b"Subject: hello\r\n\r\nIt works.\r\n"


def tokens_in(folder: Path) -> Path:
    path = folder / "tokens"
    path.write_text(f"# who may push\n{ALL}   # the web application\n\n{POSTS}   posts, other\n")
    path.chmod(0o640)
    return path


class Web:
    """A running process, and its two queues."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, folder: Path, log_path: Path) -> None:
        self.process = process
        self.port = port
        self.folder = folder
        self.log_path = log_path

    def dial(self, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS, source_address=(source, 0))

    def post(
        self,
        body: object = MESSAGE,
        path: str = "/queues/queue",
        token: str | None = ALL,
        headers: Mapping[str, str] = {},
        method: str = "POST",
        source: str = "127.0.0.1",
    ) -> tuple[int, dict[str, Any], http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=SECONDS, source_address=(source, 0)
        )
        given = {**({"Authorization": f"Bearer {token}"} if token else {}), **headers}
        connection.request(method, path, body, given)  # type: ignore[arg-type]
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, json.loads(data) if data[:1] == b"{" else {}, response

    def entries(self, queue: str = "queue") -> list[tuple[Envelope | None, bytes]]:
        return stored(self.folder / queue)

    def drafts(self) -> list[str]:
        return os.listdir(self.folder / "queue" / "tmp")


@contextmanager
def serving(
    folder: Path, token_file: Path, *options: str, log: Path, host: str = "127.0.0.1"
) -> Iterator[Web]:
    """The queues are in the folder."""
    command = [sys.executable, "-m", "maildefer.intake.http", "--token-file", str(token_file)]
    for name in ("queue", "posts"):
        command += ["--queue", f"{name}={create_queue(str(folder / name)).path}"]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family, backlog=512) as listener,
        open(log, "ab") as stderr,
    ):
        port = listener.getsockname()[1]
        process = subprocess.Popen(
            [*command, "--socket-fd", str(listener.fileno()), *options],
            pass_fds=[listener.fileno()],
            stderr=stderr,
            cwd=ROOT,
        )
    try:
        wait_until(lambda: b"intake.listening" in log.read_bytes() or process.poll() is not None)
        yield Web(process, port, folder, log)
    finally:
        process.terminate()
        process.wait(SECONDS)


def head(path: str = "/queues/queue", *more: str, token: str = ALL, size: int = len(MESSAGE)) -> bytes:
    """A request's, without the empty line at its end."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {token}",
        f"Content-Length: {size}",
        *more,
    ]
    return "".join(f"{line}\r\n" for line in lines).encode()
