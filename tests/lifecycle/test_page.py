"""`maildefer web` as people start it."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from maildefer.maildir.layout import create_queue
from tests.lifecycle.pool import ROOT

pytestmark = pytest.mark.lifecycle


@contextmanager
def page(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    environ = os.environ | {"PYTHONPATH": str(ROOT), "MAILDEFER_RUNTIME_DIR": str(folder / "runtime")}
    command = [sys.executable, "-m", "maildefer", "web", *options]
    process = subprocess.Popen(
        command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_a_printed_address_opens_the_page_until_term(tmp_path: Path) -> None:
    create_queue(str(tmp_path / "q"))
    with page(tmp_path, "--port", "0", "q") as (process, address):
        url = urlsplit(address)
        assert url.hostname == "127.0.0.1"

        def get(path: str, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
            with closing(http.client.HTTPConnection("127.0.0.1", url.port or 0, timeout=60)) as connection:
                connection.request("GET", path, headers=headers)
                with connection.getresponse() as answer:
                    return answer.status, answer.headers, answer.read()

        status, headers, _ = get(f"/?{url.query}")
        assert (status, headers["Location"]) == (303, "./")
        status, _, body = get("/", Cookie=headers["Set-Cookie"].partition(";")[0])
        assert (status, b"live.js" in body) == (200, True)
        with socket.create_connection(("127.0.0.1", url.port or 0), timeout=60) as stream:
            bearer = f"Authorization: Bearer {url.query.partition('=')[2]}"
            stream.sendall(f"GET /news HTTP/1.1\r\nHost: localhost\r\n{bearer}\r\n\r\n".encode())
            news = b""
            while b">q</th>" not in news:  # the queue, by its name from here
                news += stream.recv(1 << 16)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_a_socket_file_is_guarded_by_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "run" / "web.sock"
    with page(tmp_path, "--socket", str(path), "--mode", "660") as (process, address):
        assert address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.recv(15) == b"HTTP/1.1 200 OK"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert not path.exists()


def test_the_socket_file_of_another_page_is_left(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with page(tmp_path, "--socket", "web.sock") as (process, _):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.recv(15) == b"HTTP/1.1 200 OK"
        path.unlink()
        with socket.socket(socket.AF_UNIX) as another:
            another.bind(str(path))
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert path.exists()


def test_a_token_file_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("0123456789abcdef\n")
    (tmp_path / "tokens").chmod(0o644)
    with page(tmp_path, "--port", "0", "--token-file", "tokens") as (process, address):
        assert (process.wait(60), address) == (78, "")
