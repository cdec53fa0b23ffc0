from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from maildefer.host import status_socket


def serve_once(sock: socket.socket, status: dict[str, object]) -> threading.Thread:
    sock.setblocking(True)

    def serve() -> None:
        status_socket.answer_status(sock.accept()[0], status)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize("directory", ["x", "x" * 200])
def test_a_question_is_answered_however_long_the_path(tmp_path: Path, directory: str) -> None:
    (tmp_path / directory).mkdir()
    path = str(tmp_path / directory / "status.sock")
    status: dict[str, object] = {"workers": [{"pid": n, "entry": "x" * 200} for n in range(200)]}
    for _ in range(2):  # the second takes the place of what the first left
        with status_socket.listen_at(path) as sock:
            thread = serve_once(sock, status)
            assert status_socket.ask_status(path) == status
            thread.join()


def test_a_process_that_does_not_answer_costs_no_more_than_the_limit(tmp_path: Path) -> None:
    path = str(tmp_path / "status.sock")
    with status_socket.listen_at(path), pytest.raises(TimeoutError):
        status_socket.ask_status(path, 0.1)


def test_a_socket_nobody_listens_at_is_an_error(tmp_path: Path) -> None:
    path = str(tmp_path / "status.sock")
    status_socket.listen_at(path).close()
    with pytest.raises(ConnectionRefusedError):
        status_socket.ask_status(path)


@pytest.mark.parametrize("data", [b"", b"[]", b"{broken"])
def test_an_answer_that_is_no_object_is_an_error(tmp_path: Path, data: bytes) -> None:
    path = str(tmp_path / "status.sock")
    with status_socket.listen_at(path) as sock:
        sock.setblocking(True)

        def serve() -> None:
            connection = sock.accept()[0]
            connection.sendall(data)
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ValueError, match=r"Expecting|JSON"):
            status_socket.ask_status(path)
        thread.join()


def test_a_client_that_left_disturbs_nobody(tmp_path: Path) -> None:
    path = str(tmp_path / "status.sock")
    with status_socket.listen_at(path) as sock:
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        client.close()
        sock.setblocking(True)
        status_socket.answer_status(sock.accept()[0], {"a": 1})
