"""The front end: a real process, real SMTP."""

from __future__ import annotations

import json
import os
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from maildefer.errors import ConfigurationError, MountFault, NoSpace, PermissionRefused, QuotaExceeded
from maildefer.intake import replies
from maildefer.intake.access.recipients import RecipientTable
from maildefer.intake.options import parse
from maildefer.intake.outcomes import Refusal, refusal_of
from maildefer.intake.replies import Reply
from maildefer.intake.writer.capacity import QueueCapacity
from maildefer.intake.writer.process import Writer
from maildefer.intake.writer.protocol import FrameReader, Job, Message, pack, unpack
from maildefer.intake.writer.shared_memory import SharedBlocks, make_links
from maildefer.maildir import journal
from maildefer.maildir.layout import Layout, create_queue
from maildefer.matching import index
from maildefer.message.envelope import Envelope
from tests.support.front_end import stored, wait_until

pytestmark = pytest.mark.lifecycle
SENDER, RECIPIENT = "author@example.org", "post@osb.example"


@dataclass
class FrontEnd:
    """A running intake process."""

    process: subprocess.Popen[bytes]
    port: int
    queue: Path
    log: Path
    lifeline: int
    clients: list[smtplib.SMTP] = field(default_factory=list)

    def connect(self, kind: type[smtplib.SMTP] = smtplib.SMTP) -> smtplib.SMTP:
        client = kind("127.0.0.1", self.port, local_hostname="client.example", timeout=60)
        self.clients.append(client)
        return client

    def send(self, data: bytes, *recipients: str, sender: str = SENDER, options: Sequence[str] = ()) -> None:
        with smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.example", timeout=60) as client:
            client.sendmail(sender, recipients or (RECIPIENT,), data, options)

    def speak(self, wire: bytes) -> bytes:
        """Bare bytes in, all replies out; QUIT is added."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as client:
            client.sendall(wire + b"QUIT\r\n")
            return b"".join(iter(lambda: client.recv(65536), b""))

    def entries(self) -> list[tuple[Envelope | None, bytes]]:
        return stored(self.queue)

    def writer_pid(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])


Start = Callable[..., FrontEnd]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts front ends, and ends them."""
    started: list[FrontEnd] = []

    def begin(*arguments: str, routes: object = None, listen: int = 1) -> FrontEnd:
        queue, log = tmp_path / "queue", tmp_path / f"log-{len(started)}"
        if routes is not None:
            (tmp_path / "routes.json").write_text(json.dumps(routes))
            arguments = (*arguments, "--routes", str(tmp_path / "routes.json"))
        theirs, lifeline = os.pipe()
        with socket.create_server(("127.0.0.1", 0), backlog=64) as listener, open(log, "wb") as stderr:
            port = listener.getsockname()[1]
            command = [sys.executable, "-m", "maildefer.intake", "--socket-fd", str(listener.fileno())]
            command += ["--queue", str(queue), "--lifeline-fd", str(theirs), *arguments]
            process = subprocess.Popen(
                command, pass_fds=[listener.fileno(), theirs], stderr=stderr, cwd=tmp_path
            )
        os.close(theirs)
        front_end = FrontEnd(process, port, queue, log, lifeline)
        started.append(front_end)
        wait_until(lambda: b"intake.listening" in log.read_bytes() or process.poll() is not None)
        return front_end

    yield begin
    for front_end in started:
        for client in front_end.clients:
            client.close()
        if front_end.lifeline >= 0:
            os.close(front_end.lifeline)
        front_end.process.terminate()
        front_end.process.wait(60)


# What is stored


@pytest.mark.invariant(9)
def test_what_is_stored_is_what_was_sent_with_maildirs_line_ends(start: Start) -> None:
    front_end = start()
    front_end.send(
        b"Subject: \xc3\xbc \xff\r\n\r\n.dot\r\n..dots\r\nbare\rcr\r\n" + b"x" * 70_000 + b"\r\n.\tend.\r\n"
    )
    ((envelope, data),) = front_end.entries()
    assert envelope == Envelope(SENDER, RECIPIENT)
    assert data.startswith(b"Subject: \xc3\xbc \xff\n\n.dot\n..dots\n")
    assert data.endswith(b"x\n.\tend.\n")
    assert len(data) == len(b"Subject: \xc3\xbc \xff\n\n.dot\n..dots\nbare\rcr\n") + 70_000 + len(
        b"\n.\tend.\n"
    ) + (
        data.count(b"bare\ncr")  # smtplib makes a line end of a bare CR
    )


@pytest.mark.invariant(9)
@pytest.mark.parametrize(
    ("wire", "stored"),
    [
        (b"", b""),
        (b"a\r\n", b"a\n"),
        (b"..\r\n", b".\n"),
        (b".a\r\n", b"a\n"),
        (b"ends with a dot.\r\n", b"ends with a dot.\n"),
        (b"bare lf\n.\nbare\rcr\r\n", b"bare lf\n.\nbare\rcr\n"),
        (b"half\n.\r\nmore\r\n", b"half\n.\nmore\n"),
        (b"other half\r\n.\nmore\r\n", b"other half\n\nmore\n"),
        (b"\r\r\n", b"\r\n"),
        (b"y" * 200_000 + b"\r\n", b"y" * 200_000 + b"\n"),
    ],
)
def test_only_a_lone_dot_between_crlfs_ends_a_message(start: Start, wire: bytes, stored: bytes) -> None:
    front_end = start()
    answers = front_end.speak(b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n" + wire + b".\r\n")
    assert answers.count(b"\r\n250 2.0.0 queued") == 1
    assert front_end.entries() == [(Envelope("a@b", "c@d"), stored)]


def test_a_message_whose_end_comes_byte_by_byte_is_whole(start: Start) -> None:
    front_end = start()
    with socket.create_connection(("127.0.0.1", front_end.port), timeout=60) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
        for byte in b"a.\r\n.b\r\n.\r\n":
            client.sendall(bytes([byte]))
            time.sleep(0.002)
        client.sendall(b"QUIT\r\n")
        answers = b"".join(iter(lambda: client.recv(4096), b""))
    assert b"250 2.0.0 queued" in answers
    assert front_end.entries()[0][1] == b"a.\nb\n"


def test_each_recipient_gets_an_entry_of_its_own(start: Start) -> None:
    front_end = start()
    front_end.send(b"x\r\n", "a@osb.example", "b@osb.example", "c@osb.example")
    assert sorted(envelope.recipient for envelope, _ in front_end.entries() if envelope) == [
        "a@osb.example",
        "b@osb.example",
        "c@osb.example",
    ]
    assert {data for _, data in front_end.entries()} == {b"x\n"}


def test_a_recipient_named_twice_gets_one_entry(start: Start) -> None:
    front_end = start()
    front_end.send(b"x\r\n", RECIPIENT, RECIPIENT)
    assert len(front_end.entries()) == 1


def test_a_bounce_keeps_its_null_sender(start: Start) -> None:
    front_end = start()
    front_end.send(b"x\r\n", sender="")
    assert front_end.entries() == [(Envelope("", RECIPIENT), b"x\n")]


def test_addresses_beyond_ascii_are_kept(start: Start) -> None:
    front_end = start()
    with front_end.connect() as client:
        client.ehlo()
        assert "smtputf8" in client.esmtp_features
        client.sendmail("jürgen@exämple.org", "größe@osb.example", b"x\r\n", ["SMTPUTF8", "BODY=8BITMIME"])
    assert front_end.entries()[0][0] == Envelope("jürgen@exämple.org", "größe@osb.example")
    (name,) = os.listdir(front_end.queue / "new")
    assert b" with UTF8SMTP id " in (front_end.queue / "new" / name).read_bytes()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (b'<"a b"@osb.example>', '"a b"@osb.example'),
        (b'<"post"@osb.example>', "post@osb.example"),
        (b'<"p\\o\\st.a"@osb.example>', "post.a@osb.example"),
        (b'<"a\\ \\"\\b\\\\"@osb.example>', '"a \\"b\\\\"@osb.example'),
        (b'<".a"@osb.example>', '".a"@osb.example'),
        (b'<""@osb.example>', '""@osb.example'),
        (b'<"a@b"@osb.example>', '"a@b"@osb.example'),
        (b"<postmaster>", "postmaster"),
        (b" <Post@OSB.example>", "Post@OSB.example"),
        (b"post@osb.example", "post@osb.example"),
        (b"<post@[192.0.2.1]>", "post@[192.0.2.1]"),
    ],
)
def test_unusual_addresses_are_taken(start: Start, given: bytes, kept: str) -> None:
    front_end = start()
    front_end.speak(b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:" + given + b"\r\nDATA\r\nx\r\n.\r\n")
    assert front_end.entries()[0][0] == Envelope("a@b", kept)


def test_the_received_line_tells_client_protocol_and_key(start: Start) -> None:
    front_end = start("--hostname", "mx.osb.example")
    front_end.send(b"x\r\n")
    (key,) = os.listdir(front_end.queue / "new")
    line = (front_end.queue / "new" / key).read_text().split("\n")[2]
    stem = key.partition(",")[0]
    assert line.startswith(
        f"Received: from client.example ([127.0.0.1]) by mx.osb.example (maildefer) with ESMTP id {stem};"
    )


def test_pipelined_transactions_are_all_answered(start: Start) -> None:
    front_end = start()
    one = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n"
    answers = front_end.speak(b"EHLO c\r\n" + one * 20)
    assert answers.count(b"250 2.0.0 queued") == 20
    assert len(front_end.entries()) == 20


@pytest.mark.skipif(shutil.which("swaks") is None, reason="swaks is not installed")
def test_swaks_delivers(start: Start) -> None:
    front_end = start()
    command = [
        "swaks",
        "--server",
        f"127.0.0.1:{front_end.port}",
        "--from",
        SENDER,
        "--to",
        RECIPIENT,
        "--body",
        "hi",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert front_end.entries()[0][0] == Envelope(SENDER, RECIPIENT)


# I1 and I11


@pytest.mark.invariant(1)
def test_no_250_before_file_and_directory_are_synced(start: Start, tmp_path: Path) -> None:
    """Seen from outside: the system calls of the writer, in their order, before the reply goes out."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    front_end, trace = start("--threads", "1"), tmp_path / "trace"
    traced = "trace=openat,fsync,io_submit,io_getevents,rename,sendto,write"
    command = ["strace", "-f", "-s", "400", "-e", traced, "-o", str(trace)]
    tracer = subprocess.Popen([*command, "-p", str(front_end.process.pid), "-p", str(front_end.writer_pid())])
    try:
        wait_until(lambda: trace.exists() and _is_traced(front_end))
        front_end.send(b"x\r\n", "a@osb.example", "b@osb.example")
    finally:
        tracer.terminate()
        tracer.wait(60)
    calls = trace.read_text().split("\n")
    replied = _first(calls, "250 2.0.0 queued")
    done = [call for call in calls[:replied] if " = " in call or "resumed" in call]
    [submitted] = [call for call in done if "io_submit(" in call]
    assert submitted.count("aio_lio_opcode=IOCB_CMD_FSYNC") == 2
    both_synced = next(at for at, call in enumerate(done) if "io_getevents" in call)
    assert done[both_synced].count("res=0,") == 2
    renames = [at for at, call in enumerate(done) if "rename(" in call]
    assert both_synced < renames[0]
    last_rename = renames[-1]
    opened = max(at for at, call in enumerate(done) if "/new" in call and "O_DIRECTORY" in call)
    synced = max(at for at, call in enumerate(done) if "fsync" in call)
    assert last_rename < opened < synced


def _is_traced(front_end: FrontEnd) -> bool:
    pids = (front_end.process.pid, front_end.writer_pid())
    return all("TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text() for pid in pids)


def _first(calls: list[str], text: str) -> int:
    return next(at for at, call in enumerate(calls) if text in call)


@pytest.mark.invariant(1)
def test_what_was_acknowledged_survives_the_kill_of_the_front_end(start: Start) -> None:
    front_end = start()
    acknowledged = 0
    with front_end.connect() as client:
        for _ in range(10):
            client.sendmail(SENDER, RECIPIENT, b"x\r\n")
            acknowledged += 1
        os.kill(front_end.writer_pid(), signal.SIGKILL)
        front_end.process.kill()
        client.close()
    assert len(front_end.entries()) >= acknowledged == 10


@pytest.mark.invariant(11)
def test_no_handler_code_is_in_the_process_that_talks_to_the_network(tmp_path: Path) -> None:
    """The real process's modules, when a message has been taken: no handling, no routing, nothing of the project's."""
    (tmp_path / "workers").mkdir()
    (tmp_path / "conf").mkdir()
    for module in ("workers/__init__.py", "workers/posting.py", "conf/__init__.py", "conf/settings.py"):
        (tmp_path / module).write_text("raise AssertionError('imported')\n")
    code = """
import atexit, os, sys
parent = os.getpid()
def tell():
    if os.getpid() == parent:
        open("modules", "w").write(" ".join(sys.modules))
atexit.register(tell)
from maildefer.intake.__main__ import main
sys.exit(main())
"""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, "-c", code, "--socket-fd", str(listener.fileno()), "--queue", "queue"]
        process = subprocess.Popen(
            command, pass_fds=[listener.fileno()], cwd=tmp_path, stderr=subprocess.DEVNULL
        )
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.sendmail(SENDER, RECIPIENT, b"x\r\n")
    process.terminate()
    assert process.wait(60) == 0
    loaded = (tmp_path / "modules").read_text().split()
    forbidden = ("maildefer.handling", "maildefer.routing", "maildefer.server", "workers", "conf", "jinja2")
    assert [name for name in loaded if name.startswith(forbidden)] == []
    assert "maildefer.intake.smtp.session" in loaded


# Who is refused


ROUTES = {
    "routes": [
        {"pattern": r"^(?P<name>[a-z]+)@osb\.example$", "module": "workers.posting", "queue": "queue"},
        {"pattern": r"^other@osb\.example$", "module": "workers.index", "queue": "elsewhere"},
        {"pattern": r"^for-all@osb\.example$"},
    ]
}


@pytest.mark.parametrize(
    ("recipient", "code"),
    [
        ("post@osb.example", 250),
        ("POST@OSB.Example", 250),
        ("post1@osb.example", 550),
        ("post@elsewhere.example", 554),
        ("for-all@osb.example", 250),
    ],
)
def test_a_recipient_that_no_route_takes_is_refused(start: Start, recipient: str, code: int) -> None:
    front_end = start(routes=ROUTES)
    with front_end.connect() as client:
        client.ehlo()
        client.mail(SENDER)
        answer = client.rcpt(recipient)
    assert answer[0] == code
    if code != 250:
        assert answer[1].startswith(b"5.1.1 " if code == 550 else b"5.7.1 relay access denied")


def test_the_routes_of_other_queues_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("routes").write_text(json.dumps({"routes": [ROUTES["routes"][1]]}))
    recipients = RecipientTable(str(tmp_path / "queue"), "routes")
    assert not recipients.takes("other@osb.example")
    assert recipients.empty
    assert RecipientTable("elsewhere", "routes").takes("other@osb.example")


def test_a_route_that_backtracks_without_end_holds_up_the_front_end_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(index, "LIMIT_SECONDS", 0.05)
    table = tmp_path / "routes"
    table.write_text(json.dumps([{"pattern": "^(a+)+@osb[.]example$"}, {"pattern": "^b@(([a-z]+)+)+$"}]))
    recipients = RecipientTable("queue", str(table))
    assert recipients.refusal("aaa@osb.example") is None
    assert recipients.refusal("a" * 60 + "!@osb.example") is None  # the dead letters will tell why
    assert recipients.refusal("c@osb.example") is None
    assert capfd.readouterr().err.count("route.slow") == 1
    recipients.read()
    assert recipients.refusal("c@osb.example") is not None


def test_a_domain_that_backtracks_without_end_holds_up_the_front_end_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(index, "LIMIT_SECONDS", 0.05)
    table = tmp_path / "routes"
    table.write_text(json.dumps([{"pattern": "^b@(([a-z]+)+)+$"}]))
    recipients = RecipientTable("queue", str(table))
    assert recipients.refusal("z@osb.1") == replies.NO_RELAY
    for _ in range(3):
        assert recipients.refusal("z@" + "a" * 60 + "!") == replies.NO_ROUTE
    assert capfd.readouterr().err.count("route.slow") == 1
    assert recipients.refusal("b@osb") is None
    recipients.read()
    assert recipients.refusal("z@osb.1") == replies.NO_RELAY


def test_what_re_itself_fails_on_is_taken_so_that_the_dead_letters_tell_of_it(tmp_path: Path) -> None:
    table = tmp_path / "routes"
    table.write_text(json.dumps([{"pattern": r"^a@((x)|y|z)*+$"}, {"pattern": r"^b@osb[.]example$"}]))
    recipients = RecipientTable("queue", str(table))
    assert recipients.refusal("a@xyz") is None  # in some versions of `re`: gh-101955 of CPython's
    assert recipients.refusal("c@xyz") == replies.NO_ROUTE
    assert recipients.refusal("c@osb.example") == replies.NO_ROUTE


def test_a_table_without_a_route_for_the_queue_is_no_permanent_refusal(start: Start) -> None:
    front_end = start(routes={"routes": []})
    with front_end.connect() as client:
        client.ehlo()
        client.mail(SENDER)
        assert client.rcpt(RECIPIENT)[0] == 451


def test_routes_are_read_again_at_hup(start: Start, tmp_path: Path) -> None:
    front_end = start(routes=ROUTES)
    (tmp_path / "routes.json").write_text(json.dumps([{"pattern": "^new@osb.example$"}]))
    front_end.process.send_signal(signal.SIGHUP)

    def taken() -> bool:
        with front_end.connect() as client:
            client.ehlo()
            client.mail(SENDER)
            return client.rcpt("new@osb.example")[0] == 250

    wait_until(taken)


def test_a_broken_table_at_hup_leaves_the_old_one(start: Start, tmp_path: Path) -> None:
    front_end = start(routes=ROUTES)
    (tmp_path / "routes.json").write_text("{")
    front_end.process.send_signal(signal.SIGHUP)
    wait_until(lambda: b"application.broken" in front_end.log.read_bytes())
    front_end.send(b"x\r\n")
    assert len(front_end.entries()) == 1


@pytest.mark.parametrize("table", ["{", "[1]", '[{"pattern": "("}]', '{"routes": 1}', '[{"module": "m"}]'])
def test_a_table_that_cannot_be_used_is_a_configuration_error(tmp_path: Path, table: str) -> None:
    (tmp_path / "routes").write_text(table)
    with pytest.raises(ConfigurationError, match="routes"):
        RecipientTable("queue", str(tmp_path / "routes"))


def test_a_missing_table_ends_the_process_with_78(start: Start) -> None:
    assert start("--routes", "nowhere.json").process.wait(60) == 78


def test_a_message_that_has_gone_around_fifty_times_is_refused(start: Start) -> None:
    front_end = start()
    with pytest.raises(smtplib.SMTPDataError) as caught:
        front_end.send(b"Received: from a by b; now\r\n" * 50 + b"\r\nx\r\n")
    assert (caught.value.smtp_code, caught.value.smtp_error[:6]) == (554, b"5.4.6 ")
    front_end.send(b"Received: from a by b; now\r\n" * 49 + b"\r\nx\r\n")
    assert len(front_end.entries()) == 1


def test_a_message_over_the_limit_is_refused_when_announced_and_when_not(start: Start) -> None:
    front_end = start("--max-bytes", "20000")
    with front_end.connect() as client:
        client.ehlo()
        limit = int(client.esmtp_features["size"])
        assert limit == 20_000 - 4096
        assert client.mail(SENDER, [f"SIZE={limit + 1}"])[0] == 552
        client.mail(SENDER)
        client.rcpt(RECIPIENT)
        assert client.data(b"x" * (limit - 2) + b"\r\n")[0] == 250
        client.mail(SENDER)
        client.rcpt(RECIPIENT)
        assert client.data(b"x" * (limit - 1) + b"\r\n")[0] == 552
        client.mail(SENDER)
        client.rcpt(RECIPIENT)
        assert client.data(b"small\r\n")[0] == 250
    assert len(front_end.entries()) == 2
    assert all(len(data) <= limit for _, data in front_end.entries())


def test_a_client_that_never_ends_its_message_is_cut_off(start: Start) -> None:
    front_end = start("--max-bytes", "20000")
    with socket.create_connection(("127.0.0.1", front_end.port), timeout=60) as client:
        client.sendall(b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            client.sendall(b"x" * 100_000_000)
    front_end.send(b"x\r\n")


def test_there_is_a_limit_to_recipients_and_the_rest_comes_later(start: Start) -> None:
    front_end = start("--max-recipients", "2")
    with front_end.connect() as client:
        refused = client.sendmail(SENDER, ["a@b", "c@d", "e@f"], b"x\r\n")
    assert refused["e@f"][0] == 452
    assert len(front_end.entries()) == 2


def test_there_is_a_limit_to_connections(start: Start) -> None:
    front_end = start("--max-connections", "1")
    front_end.connect()
    with pytest.raises(smtplib.SMTPConnectError) as caught:
        front_end.connect()
    assert caught.value.smtp_code == 421


def test_there_is_a_limit_to_bytes_in_hand_and_it_is_given_back(start: Start) -> None:
    front_end = start("--max-held-bytes", "50000")
    with pytest.raises(smtplib.SMTPDataError) as caught:
        front_end.send(b"x" * 60_000 + b"\r\n")
    assert caught.value.smtp_code == 452
    for _ in range(3):
        front_end.send(b"x" * 40_000 + b"\r\n")
    with front_end.connect() as client:  # goes away in the middle
        client.ehlo()
        client.docmd("MAIL", "FROM:<a@b>")
        client.docmd("RCPT", "TO:<c@d>")
        client.docmd("DATA")
        client.send(b"x" * 40_000)
        client.close()
    wait_until(lambda: _is_taken(front_end, b"x" * 40_000 + b"\r\n"))


def _is_taken(front_end: FrontEnd, data: bytes) -> bool:
    try:
        front_end.send(data)
    except smtplib.SMTPDataError:
        return False
    return True


@pytest.mark.parametrize("address", ['<a"b@c>', "<a b@c>", "<a\x01b@c>", "<" + "a" * 1000 + "@c>"])
def test_addresses_that_cannot_stand_in_an_envelope_are_refused(start: Start, address: str) -> None:
    front_end = start()
    answers = front_end.speak(f"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:{address}\r\nDATA\r\n".encode())
    assert b"\r\n553 " in answers or b"\r\n501 5.5.2 " in answers
    assert b"\r\n503 5.5.1 no valid recipients" in answers


def test_a_silent_client_is_dismissed(start: Start) -> None:
    front_end = start("--idle-seconds", "0.2")
    with socket.create_connection(("127.0.0.1", front_end.port), timeout=60) as client:
        answers = b"".join(iter(lambda: client.recv(4096), b""))
    assert answers.endswith(b"closing connection\r\n")
    assert b"421 4.4.2" in answers


# When the queue can't take it


def test_a_backlog_over_the_limit_is_refused_for_now(start: Start) -> None:
    front_end = start("--max-backlog", "2")
    front_end.send(b"x\r\n")
    front_end.send(b"x\r\n")

    def refused() -> bool:
        with front_end.connect() as client:
            client.ehlo()
            code, text = client.mail(SENDER)
            assert code == 250 or text.startswith(b"4.3.1 ")
            return code == 452

    wait_until(refused)


def test_too_little_free_space_is_refused_for_now(start: Start) -> None:
    front_end = start("--min-free-bytes", str(1 << 60))

    def is_refused() -> bool:
        with front_end.connect() as client:
            client.ehlo()
            return client.mail(SENDER)[0] == 452

    wait_until(is_refused)  # the writer may not have told yet what is short


def test_a_queue_that_went_away_is_a_temporary_failure(start: Start, tmp_path: Path) -> None:
    front_end = start()
    front_end.queue.rename(tmp_path / "elsewhere")
    with pytest.raises(smtplib.SMTPDataError) as caught:
        front_end.send(b"x\r\n")
    assert (caught.value.smtp_code, caught.value.smtp_error[:6]) == (451, b"4.3.0 ")
    assert str(tmp_path).encode() not in caught.value.smtp_error


def test_when_the_writer_dies_the_front_end_refuses_for_now_and_ends(start: Start) -> None:
    front_end = start()
    client = front_end.connect()
    client.ehlo()
    client.mail(SENDER)
    client.rcpt(RECIPIENT)
    os.kill(front_end.writer_pid(), signal.SIGKILL)
    assert client.data(b"x\r\n")[0] == 451
    assert front_end.process.wait(60) == 1


@pytest.mark.parametrize(
    ("fault", "reply"),
    [
        (NoSpace("new", OSError(28, "full")), replies.FULL),
        (QuotaExceeded("new", OSError(122, "quota")), replies.FULL),
        (MountFault("new", OSError(5, "io")), replies.FAULT),
        (PermissionRefused("new", OSError(13, "no")), replies.FAULT),
    ],
)
def test_storage_faults_are_temporary_failures(fault: NoSpace, reply: Reply) -> None:
    assert replies.refused(refusal_of(fault)) == reply
    assert reply.failed
    assert not reply.permanent


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    layout = create_queue(str(tmp_path / "queue"))
    options = parse(["--socket-fd", "0", "--queue", layout.path, "--min-free-bytes", "0"])
    ours, theirs = make_links(options.buffer_bytes, local=True)
    yield Writer(layout, options, theirs)
    ours.socket.close()
    theirs.socket.close()


def message(*recipients: str, together: bool = True) -> Message:
    return Message("a@b", recipients, (b"x\n",), "ESMTP", "client", together)


def test_when_one_push_fails_the_others_of_its_message_are_withdrawn(writer: Writer) -> None:
    bad = "not\nan address"
    (answer,) = writer.answer([Job(1, message("c@d", bad, "e@f"))])
    assert [bool(each.key) for each in answer.stored] == [True, False, True]
    assert os.listdir(writer._capacity._layout.new) == []


def test_lmtp_keeps_what_could_be_pushed(writer: Writer) -> None:
    bad = "not\nan address"
    (answer,) = writer.answer([Job(1, message("c@d", bad, together=False))])
    assert [each.fault for each in answer.stored] == [None, Refusal.ADDRESS_REFUSED]
    assert len(os.listdir(writer._capacity._layout.new)) == 1


@pytest.mark.invariant(1)
def test_a_directory_sync_that_fails_fails_the_whole_batch(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str, **system: object) -> None:
        raise OSError(5, "input/output error")

    monkeypatch.setattr("maildefer.maildir.durable.sync_directory", fail)
    answers = writer.answer([Job(1, message("a@b")), Job(2, message("c@d", "e@f"))])
    assert [each.fault for answer in answers for each in answer.stored] == [Refusal.STORAGE_FAILED] * 3


def test_a_batch_shares_one_directory_sync(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(
        "maildefer.maildir.durable.sync_directory",
        lambda path, **system: synced.append(len(os.listdir(path))),
    )
    answers = writer.answer([Job(number, message(f"r{number}@b")) for number in range(10)])
    assert synced == [10]
    assert all(answer.stored[0].key for answer in answers)


def test_room_is_looked_at_once_a_second(tmp_path: Path) -> None:
    layout, now, looks = create_queue(str(tmp_path / "q")), [100.0], []

    def statvfs(path: str) -> os.statvfs_result:
        looks.append(path)
        return os.statvfs(path)

    room = QueueCapacity(layout, min_free_bytes=0, max_backlog=1, clock=lambda: now[0], statvfs=statvfs)
    assert room.shortage() is None
    Path(layout.new, "1.M1P1Q1R1.host").touch()
    assert room.shortage() is None
    now[0] += 1
    assert "backlog" in (room.shortage() or "")
    assert len(looks) == 2


def test_room_leaves_faults_to_the_push(tmp_path: Path) -> None:
    assert (
        QueueCapacity(Layout(str(tmp_path / "nowhere")), min_free_bytes=1, max_backlog=1).shortage() is None
    )


@pytest.mark.parametrize("local", [True, False])
def test_files_are_synced_at_the_same_time_on_a_disk_and_one_by_one_on_a_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    """Whose kernel's threads nobody can kill while its server is gone."""
    together: list[int] = []
    monkeypatch.setattr(
        "maildefer.intake.writer.process.fsync_all",
        lambda fds: together.append(len(fds)) or [None] * len(fds),
    )
    layout = create_queue(str(tmp_path / "queue"))
    journal.begin_journal(layout)
    options = parse(["--socket-fd", "0", "--queue", layout.path, "--min-free-bytes", "0"])
    ours, theirs = make_links(options.buffer_bytes, local=local)
    answers = Writer(layout, options, theirs).answer([Job(1, message("a@b")), Job(2, message("c@d"))])
    keys = [answer.stored[0].key for answer in answers]
    assert sorted(os.listdir(layout.new)) == sorted(keys)
    assert together == ([2] if local else [])
    [record] = Path(layout.journal).iterdir()
    assert all(key in record.read_text() for key in keys), "the journal has them"
    ours.socket.close()
    theirs.socket.close()


def test_frames_come_out_whole_however_the_stream_is_cut() -> None:
    jobs = [Job(1, message("a@b")), Job(2, None), Job(3, message("c@d", "e@f", together=False))]
    batches = [(1, jobs[:1]), (2, jobs[1:]), (3, jobs)]
    stream = b"".join(pack(number, [(job, None) for job in batch]) for number, batch in batches)
    for cut in (1, 3, 7, len(stream)):
        frames, found = FrameReader(), []
        for at in range(0, len(stream), cut):
            frames.feed(stream[at : at + cut])
            while (frame := frames.next_frame()) is not None:
                found.append(unpack(frame, SharedBlocks(1 << 16, blocks=1)))
        assert found == batches


# The end


def test_term_ends_an_idle_front_end_at_once(start: Start) -> None:
    front_end = start("--drain-seconds", "600")
    client = front_end.connect()
    client.ehlo()
    front_end.process.terminate()
    assert front_end.process.wait(60) == 0
    assert client.sock is not None
    assert client.sock.recv(100).startswith(b"421 4.3.2")


def test_term_lets_a_transaction_finish(start: Start) -> None:
    front_end = start("--drain-seconds", "60")
    client = front_end.connect()
    client.ehlo()
    client.mail(SENDER)
    client.rcpt(RECIPIENT)
    front_end.process.terminate()
    wait_until(lambda: _refuses(front_end.port))
    assert client.data(b"x\r\n")[0] == 250
    assert front_end.process.wait(60) == 0
    assert len(front_end.entries()) == 1


def test_term_waits_only_so_long(start: Start) -> None:
    front_end = start("--drain-seconds", "0.2")
    client = front_end.connect()
    client.ehlo()
    client.mail(SENDER)
    front_end.process.terminate()
    assert front_end.process.wait(60) == 0


@pytest.mark.parametrize(
    "said", [b"", b"RCPT TO:<c@d>\r\nDATA\r\nhi\r\n", b"RCPT TO:<c@d>\r\nBDAT 9\r\nhi\r\n"]
)
def test_who_has_not_finished_by_then_is_told_to_come_again(start: Start, said: bytes) -> None:
    front_end = start("--drain-seconds", "0.2")
    with socket.create_connection(("127.0.0.1", front_end.port), timeout=60) as client:
        client.sendall(b"EHLO c\r\nMAIL FROM:<a@b>\r\n" + said)
        heard = b""
        while (b"354 " if b"DATA" in said else b"2.1.5" if said else b"2.1.0") not in heard:
            heard += client.recv(4096)
        front_end.process.terminate()
        assert b"".join(iter(lambda: client.recv(4096), b"")).startswith(b"421 4.3.2")
    assert front_end.process.wait(60) == 0
    assert front_end.entries() == []
    assert os.listdir(front_end.queue / "tmp") == []


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    except OSError:
        return True
    return False


def test_it_ends_when_its_starter_is_gone(start: Start) -> None:
    front_end = start()
    writer = front_end.writer_pid()
    os.close(front_end.lifeline)
    front_end.lifeline = -1
    assert front_end.process.wait(60) == 0
    wait_until(lambda: not os.path.exists(f"/proc/{writer}"))


# Many at once, and LMTP


def test_many_connections_at_once_are_all_served(start: Start) -> None:
    front_end = start()

    def send() -> None:
        with smtplib.SMTP("127.0.0.1", front_end.port, timeout=60) as client:
            for _ in range(10):
                client.sendmail(SENDER, RECIPIENT, b"x\r\n")

    threads = [threading.Thread(target=send) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(front_end.entries()) == 160


def test_lmtp_has_one_reply_for_each_recipient(start: Start) -> None:
    front_end = start("--lmtp", routes=ROUTES)
    answers = front_end.speak(
        b"LHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<post@osb.example>\r\nRCPT TO:<no@where.example>\r\n"
        b"RCPT TO:<post@osb.example>\r\nRCPT TO:<for-all@osb.example>\r\nDATA\r\nx\r\n.\r\n"
    )
    assert answers.count(b"\r\n250 2.0.0 queued") == 3
    assert answers.count(b"\r\n554 5.7.1") == 1
    assert len(front_end.entries()) == 2


def test_lmtp_knows_no_helo(start: Start) -> None:
    answers = start("--lmtp").speak(b"HELO c\r\nEHLO c\r\n")
    assert answers.count(b"\r\n500 ") == 2


@pytest.mark.parametrize(
    "routes", [None, {"routes": [{"queue": None, "pattern": "^.+$"}]}], ids=["any", "table"]
)
def test_no_stranger_calls_a_task(start: Start, routes: object) -> None:
    front = start(routes=routes)
    with front.connect() as client:
        client.ehlo()
        client.mail("ann@example.org")
        assert client.rcpt("workers.index.rebuild@Task.invalid")[0] == 554 - 4 * (routes is not None)
        assert client.rcpt("bob@example.org")[0] == 250
