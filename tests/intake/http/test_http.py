"""The front end by HTTP: a real process, real requests."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from maildefer.errors import ConfigurationError
from maildefer.intake.client import Client
from maildefer.intake.http.admission import Admission
from maildefer.intake.http.api_tokens import ApiTokens
from maildefer.intake.http.options import parse
from maildefer.intake.options import FrontEndOptions
from maildefer.intake.settings import arguments, check_web_config
from maildefer.maildir.layout import create_queue
from maildefer.message.envelope import Envelope
from tests.support.front_end import ROOT, SECONDS, wait_until
from tests.support.http_front_end import ALL, MESSAGE, POSTS, Web, head, serving, tokens_in

GUEST = 61_003

# Tokens


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    return tokens_in(tmp_path)


@pytest.mark.parametrize(
    ("header", "queue", "allowed"),
    [
        (f"Bearer {ALL}", "queue", True),
        (f"bearer {ALL}", "posts", True),
        (f"Bearer {POSTS}", "posts", True),
        (f"Bearer {POSTS}", "queue", False),
        (f"Bearer {POSTS}x", "posts", None),
        (f"Bearer {POSTS[:-1]}", "posts", None),
        (f"Basic {ALL}", "queue", None),
        (ALL, "queue", None),
        ("Bearer ", "queue", None),
        ("Bearer \udcff", "queue", None),
        ("", "queue", None),
    ],
)
def test_a_token_opens_the_queues_that_it_is_for(
    token_file: Path, header: str, queue: str, allowed: bool | None
) -> None:
    assert ApiTokens(str(token_file)).allows(header, queue) is allowed


def test_all_tokens_are_compared_in_constant_time(token_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    tokens = ApiTokens(str(token_file))
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    tokens.allows(f"Bearer {ALL}", "queue")
    assert [token for token, _ in compared] == [ALL.encode(), POSTS.encode()]


@pytest.mark.parametrize("mode", [0o644, 0o666, 0o642])
def test_a_token_file_that_everybody_can_read_or_write_is_refused(token_file: Path, mode: int) -> None:
    token_file.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod o="):
        ApiTokens(str(token_file))


def test_a_token_that_can_be_guessed_is_refused_and_the_old_ones_stay(token_file: Path) -> None:
    tokens = ApiTokens(str(token_file))
    token_file.write_text("short\n")
    with pytest.raises(ConfigurationError, match=":1: a token of less than 16"):
        tokens.read()
    assert tokens.allows(f"Bearer {ALL}", "queue")


def test_without_a_token_file_nobody_may_push() -> None:
    with pytest.raises(ConfigurationError, match="token_file"):
        check_web_config({"port": 1})
    with pytest.raises(ConfigurationError, match="tokenfile"):
        check_web_config({"token_file": "x", "tokenfile": "y"})
    with pytest.raises(ConfigurationError, match="can't be read"):
        ApiTokens("/nowhere/tokens")


def test_what_settings_say_reaches_the_process() -> None:
    said = arguments(
        {"max_bytes": 5, "hostname": "mx", "port": 1, "token_file": "t", "user": None}, http=True
    )
    options = parse(["--socket-fd", "3", "--queue", "q=run/q", "--token-file", "t", *said])
    assert (options.max_bytes, options.hostname, options.queues) == (5, "mx", {"q": "run/q"})


# The process


@pytest.fixture
def start(tmp_path: Path, token_file: Path, request: pytest.FixtureRequest):
    def begin(*options: str, folder: Path = tmp_path) -> Web:
        running = serving(folder, token_file, *options, log=tmp_path / "log")
        request.addfinalizer(lambda: running.__exit__(None, None, None))
        return running.__enter__()

    return begin


pytestmark = pytest.mark.lifecycle


@pytest.fixture
def web(start) -> Web:
    return start()


@pytest.mark.invariant(9)
def test_a_message_is_an_entry_as_it_was_sent_and_its_key_is_told(web: Web) -> None:
    status, told, response = web.post()
    assert (status, told["queue"]) == (201, "queue")
    assert response.getheader("Server") is None
    assert os.listdir(web.folder / "queue" / "new") == [told["key"]] == told["keys"]
    assert web.entries() == [(None, MESSAGE)]
    webhook = b'{"status": "firing"}'
    assert web.post(webhook, headers={"Content-Type": "application/json"})[0] == 201
    assert (None, webhook) in web.entries()


def test_the_query_is_the_envelope_with_an_entry_for_each_recipient(web: Web) -> None:
    path = "/queues/posts?sender=a%2Bb@s.example&recipient=c@d.example&recipient=e@d.example"
    status, told, _ = web.post(path=path)
    assert status == 201
    assert len(told["keys"]) == 2
    assert sorted(web.entries("posts")) == [
        (Envelope("a+b@s.example", recipient), MESSAGE) for recipient in ("c@d.example", "e@d.example")
    ]
    (name, _) = sorted(os.listdir(web.folder / "posts" / "new"))
    assert b" (maildefer) with HTTP id " in (web.folder / "posts" / "new" / name).read_bytes()


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("sender=a@b", "a sender without a recipient"),
        ("recipient=a%0AX:y@b", "is refused"),
        ("recipient=", "empty"),
        ("recipient=a@b&sender=%3Ca", "is refused"),
        ("recipient=%FF@b", "UTF-8"),
        ("recipients=a@b", "no such parameter recipients: give sender, and recipient"),
        ("recipient=a@b&x%5C%0A=1", "no such parameter: give sender, and recipient"),
        ("recipient=a@b&sender=a@b&sender=c@d", "sender is given more than once"),
    ],
)
def test_an_envelope_that_cannot_be_is_refused(web: Web, query: str, detail: str) -> None:
    status, told, _ = web.post(path=f"/queues/queue?{query}")
    assert status == 400
    assert detail in told["detail"]
    assert "\\" not in told["detail"]  # no echo, and no language's notation
    assert web.entries() == []


def test_a_misspelt_field_is_refused_and_nothing_is_stored(web: Web) -> None:
    status, told, _ = web.post(headers={"Maildefer-Aftr": "5"})
    assert status == 400
    assert told["detail"].startswith("no such field Maildefer-Aftr: give Maildefer-After")
    assert web.entries() == []


@pytest.mark.parametrize("token", [None, "not-one-of-the-tokens"])
def test_who_has_no_token_is_refused(web: Web, token: str | None) -> None:
    status, _, response = web.post(token=token)
    assert (status, response.getheader("WWW-Authenticate")) == (401, 'Bearer realm="maildefer"')
    assert web.entries() == []


def test_a_token_for_another_queue_does_not_tell_whether_there_is_one(web: Web) -> None:
    assert web.post(token=POSTS)[0] == 404
    assert web.post(path="/queues/nothing")[0] == 404
    assert web.post(path="/queues/posts", token=POSTS)[0] == 201


def test_other_methods_and_an_empty_message_are_refused(web: Web) -> None:
    status, told, response = web.post(method="GET", body=None)
    assert (status, told, response.getheader("Allow")) == (
        405,
        {"status": 405, "detail": "Method Not Allowed"},
        "POST",
    )
    assert web.post(path="/nowhere")[:2] == (404, {"status": 404, "detail": "Not Found"})
    assert web.post(body=b"")[0] == 400


def test_a_request_that_cannot_be_read_is_one_line_of_the_log(web: Web) -> None:
    wrong = [b"\0\1\r\n\r\n", b"EHLO x\r\nevent=forged\r\n\r\n", b"POST / HTTP/1.1\r\nevent=forged\r\n\r\n"]
    wrong += [head("/queues/queue", "Content-Length: 3") + b"\r\n", head(size=-1) + b"\r\n"]
    for request in wrong:
        with web.dial() as client:
            client.sendall(request)
            answer = b"".join(iter(lambda: client.recv(4096), b""))
            assert b" 400 " in answer
            assert not re.search(rb"(?i)^server:", answer, re.MULTILINE)
            assert b"aiohttp" not in answer
            assert (
                answer.partition(b"\r\n\r\n")[2] == b'{"status": 400, "detail": "the request can\'t be read"}'
            )
    told = web.log_path.read_text().splitlines()[1:]
    assert len(told) == len(wrong)
    assert all(" event=intake.refused reason=" in line for line in told)


@pytest.mark.parametrize(
    "line",
    [
        b"Authorization: Bearer %s\n\n",
        b"Authorization: Bearer %s\x00\r\n\r\n",
        b"Authorization : Bearer %s\r\n\r\n",
        b"Authorization: Bearer\r\n %s\r\n\r\n",
        b"Authorization: Bearer %s\r\r\n\r\n",
        b"Authorization: Bearer %s" + b"x" * 9000 + b"\r\n\r\n",
    ],
)
def test_no_token_comes_into_the_log_by_a_request_that_cannot_be_read(web: Web, line: bytes) -> None:
    with web.dial() as client:
        client.sendall(b"POST /queues/queue HTTP/1.1\r\nHost: x\r\n" + line.replace(b"%s", b"secret-of-ours"))
        assert b" 400 " in b"".join(iter(lambda: client.recv(4096), b""))
    told = web.log_path.read_text()
    assert "event=intake.refused reason=" in told
    assert "secret-of-ours" not in told


def test_what_is_too_large_is_refused_announced_or_not(start) -> None:
    web = start("--max-bytes", "20000")
    assert web.post(b"x" * 30_000)[0] == 413
    assert web.post(iter([b"x" * 5000] * 6))[0] == 413
    assert web.entries() == []


@pytest.mark.parametrize("path", ["/queues/queue", "/nowhere"])
def test_a_client_that_says_no_more_has_its_answer(web: Web, path: str) -> None:
    with web.dial() as client:
        client.sendall(head(path) + b"\r\n" + MESSAGE)
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 201" if path == "/queues/queue" else b"HTTP/1.1 404")
    assert len(web.entries()) == (path == "/queues/queue")


@pytest.mark.parametrize("sent", [head() + b"\r\n" + MESSAGE[:-1], head() + b"X: "])
def test_a_client_that_says_no_more_in_the_middle_is_told_so(web: Web, sent: bytes) -> None:
    with web.dial() as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'broke off"' in answer
    assert web.entries() == []


def test_a_body_that_breaks_off_is_one_line_of_the_log(web: Web) -> None:
    with web.dial() as client:
        client.sendall(head(size=900) + b"\r\n" + MESSAGE)
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert b'"detail": "the message broke off"' in answer
    web.process.terminate()
    assert web.process.wait(SECONDS) == 0
    told = web.log_path.read_text()
    assert told.count("event=intake.refused") == 1
    assert "Traceback" not in told


def test_no_transfer_coding_but_chunked_is_taken(web: Web) -> None:
    chunked = b"5\r\nx: y\n\r\n0\r\n\r\n"
    for coding, status in (
        ("chunked", 201),
        ("Chunked", 201),
        ("gzip, chunked", 501),
        ("gzip\r\nTransfer-Encoding: chunked", 400),
        ("gzip\r\n chunked", 400),
        ("gzip", 400),
        ("identity", 400),
        ("xchunked", 400),
        ("chunked, gzip", 400),
    ):
        lines = f"POST /queues/queue HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALL}\r\n"
        with web.dial() as client:
            client.sendall(f"{lines}Transfer-Encoding: {coding}\r\n\r\n".encode() + chunked)
            assert b" %d " % status in client.recv(4096).partition(b"\r\n")[0], coding
            if status != 201:
                assert client.recv(4096) == b""
    assert len(web.entries()) == 2


def test_an_expectation_that_nobody_knows_is_refused(web: Web) -> None:
    assert web.post(headers={"Expect": "200-ok"})[0] == 417
    assert web.post(headers={"Expect": "100-Continue"})[0] == 201
    assert len(web.entries()) == 1


def test_an_address_whose_parts_are_too_long_is_refused(web: Web) -> None:
    assert web.post(path=f"/queues/queue?recipient={'a' * 65}@b")[0] == 400
    assert web.post(path=f"/queues/queue?recipient=c@d&sender=a@{'b' * 256}")[0] == 400
    assert web.post(path=f"/queues/queue?recipient={'a' * 64}@{'b' * 255}")[0] == 201


def test_who_waits_for_leave_is_refused_before_the_message(web: Web) -> None:
    head = b"POST /queues/queue HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n"
    with socket.create_connection(("127.0.0.1", web.port), timeout=SECONDS) as client:
        client.sendall(head + b"\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 401")
    with socket.create_connection(("127.0.0.1", web.port), timeout=SECONDS) as client:
        client.sendall(head + f"Authorization: Bearer {ALL}\r\n\r\n".encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 100 Continue")
        client.sendall(b"x: y\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 201")


def test_nothing_is_unpacked(web: Web) -> None:
    assert web.post(b"\x1f\x8b", headers={"Content-Encoding": "gzip"})[0] == 415


def test_a_shortage_is_a_503_with_a_time_to_come_again_until_it_is_over(start) -> None:
    web = start("--max-backlog", "1")
    assert web.post()[0] == 201

    def refused() -> bool:
        status, told, response = web.post()
        if status == 503:
            assert int(response.getheader("Retry-After") or 0) > 0
            assert "insufficient system storage" in told["detail"]
        return status == 503

    wait_until(refused)
    assert web.post(path="/queues/posts")[0] in (201, 503)  # each queue has its own backlog
    for path in (web.folder / "queue" / "new").iterdir():
        path.unlink()
    wait_until(lambda: web.post()[0] == 201)


def test_a_queue_that_went_away_is_a_503(web: Web) -> None:
    shutil.rmtree(web.folder / "queue")
    status, told, _ = web.post()
    assert status == 503
    assert str(web.folder) not in told["detail"]


@pytest.mark.invariant(9)
def test_a_large_message_goes_to_tmp_as_it_comes_and_is_whole_in_the_end(web: Web) -> None:
    body = os.urandom(3_000_000)
    path = "/queues/queue?recipient=a@b&recipient=c@d"
    assert web.post(body, path=path)[0] == 201
    assert [data for _, data in web.entries()] == [body, body]
    assert web.drafts() == []


def test_a_client_that_leaves_in_the_middle_leaves_nothing(web: Web) -> None:
    head = f"POST /queues/queue HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALL}\r\nContent-Length: 9999999\r\n\r\n"
    with socket.create_connection(("127.0.0.1", web.port), timeout=SECONDS) as client:
        client.sendall(head.encode() + b"x" * 2_000_000)
        wait_until(web.drafts)
    wait_until(lambda: not web.drafts())
    assert web.entries() == []


def test_a_message_that_does_not_end_has_its_time(start) -> None:
    web = start("--data-seconds", "0.5")
    head = (
        f"POST /queues/queue HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALL}\r\nContent-Length: 99\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", web.port), timeout=SECONDS) as client:
        client.sendall(head.encode() + b"x")
        assert client.recv(4096).startswith(b"HTTP/1.1 408")
    assert web.entries() == []


def test_a_hup_reads_the_tokens_again(web: Web, token_file: Path) -> None:
    token_file.write_text("another-token-for-all\n")
    web.process.send_signal(signal.SIGHUP)
    wait_until(lambda: web.post(token=ALL)[0] == 401)
    assert web.post(token="another-token-for-all")[0] == 201


def test_when_a_writer_dies_the_process_ends_for_another_to_take_its_place(web: Web) -> None:
    children = Path(f"/proc/{web.process.pid}/task/{web.process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    assert web.process.wait(SECONDS) == 1


def test_tokens_that_cannot_be_used_end_the_process_with_78(start, token_file: Path) -> None:
    token_file.chmod(0o644)
    web = start()
    assert web.process.wait(SECONDS) == 78
    assert b"chmod o=" in web.log_path.read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_by_ipv6_the_log_names_the_address_as_such(tmp_path: Path, token_file: Path) -> None:
    with serving(tmp_path, token_file, log=tmp_path / "log", host="::1") as running:
        assert f"at=http://[::1]:{running.port} " in (tmp_path / "log").read_text()


def test_it_gives_up_its_privileges_before_it_listens(start) -> None:
    with tempfile.TemporaryDirectory(prefix="maildefer-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        for name in ("queue", "posts"):
            layout = create_queue(f"{folder}/{name}")
            for path in (Path(layout.path), *Path(layout.path).rglob("*")):
                os.chown(path, GUEST, GUEST)
        web = start("--user", str(GUEST), "--group", str(GUEST), folder=Path(folder))
        status, told, _ = web.post()
        assert status == 201
        assert os.stat(f"{folder}/queue/new/{told['key']}").st_uid == GUEST
        ids = re.findall(r"^[UG]id:(.*)", Path(f"/proc/{web.process.pid}/status").read_text(), re.MULTILINE)
        assert {word for line in ids for word in line.split()} == {str(GUEST)}


@pytest.mark.invariant(11)
def test_no_handler_code_is_in_it(web: Web) -> None:
    code = "import maildefer.intake.http.server, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert [name for name in loaded if name.startswith(("maildefer.handling", "maildefer.routing"))] == []


# The end


def test_term_lets_a_request_finish(start) -> None:
    web = start("--drain-seconds", "20")
    with web.dial() as client, web.dial() as idle:
        client.sendall(head("/queues/queue", "Expect: 100-continue") + b"\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 100 ")
        idle.sendall(b"GET /queues HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.recv(4096).startswith(b"HTTP/1.1 404 ")  # so it was let in
        web.process.terminate()
        assert idle.recv(4096) == b""
        client.sendall(MESSAGE)
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 201 ")
    assert web.process.wait(SECONDS) == 0
    assert len(web.entries()) == 1


def test_a_connection_that_was_accepted_just_before_the_end_is_refused() -> None:
    """It would keep the process from ending, as what drains has been told to close already."""

    async def refused() -> bytes:
        admission = Admission(FrontEndOptions(), asyncio.Protocol)
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.setblocking(False)
            admission.begin_connection(ours, Client(address="192.0.2.1"))
            assert await admission.connections.drain(0) == 0
            loop = asyncio.get_running_loop()
            return await asyncio.wait_for(loop.sock_recv(theirs, 4096), SECONDS)

    answer = asyncio.run(refused())
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"closing; try again later" in answer


def test_a_request_that_has_not_ended_by_then_is_to_come_again(start) -> None:
    web = start("--drain-seconds", "0.2", "--buffer-bytes", "10")
    with web.dial() as client:
        client.sendall(head("/queues/queue", "Expect: 100-continue", size=100) + b"\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 100 ")
        client.sendall(MESSAGE)
        wait_until(web.drafts)
        web.process.terminate()
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: " in answer
    assert web.process.wait(SECONDS) == 0
    assert (web.entries(), web.drafts()) == ([], [])
