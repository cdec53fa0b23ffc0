"""The front end's limits, and what becomes of those who break them."""

from __future__ import annotations

import json
import os
import signal
import smtplib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from maildefer.intake import replies
from maildefer.intake.access.connection_limits import ConnectionLimits, LimitReached, one_client
from maildefer.intake.options import FrontEndOptions
from maildefer.intake.smtp.error_limits import ErrorLimits
from tests.support.front_end import ROOT, SECONDS, FrontEnd, front_end, wait_until

HELLO = b"EHLO c\r\n"
ENVELOPE = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
QUEUED = replies.queued(["KEY"])
NO = replies.NO_ROUTE

# Errors and commands


def error_limits(**limits: float) -> ErrorLimits:
    return ErrorLimits(FrontEndOptions(**limits), exempt=False)  # type: ignore[arg-type]


def test_the_first_half_of_the_errors_is_free_then_each_waits_longer() -> None:
    client = error_limits(max_errors=12, tarpit_seconds=1, tarpit_max_seconds=10)
    assert [client.note_replies(NO) for _ in range(12)] == [0] * 6 + [1, 2, 4, 8, 10, 10]
    assert client.limit_reached() == replies.TOO_MANY_ERRORS


def test_what_is_no_error_is_not_slowed_down() -> None:
    client = error_limits(max_errors=2)
    client.note_replies(NO)
    client.note_replies(NO)
    assert client.note_replies(QUEUED) == client.note_replies(replies.RECIPIENT_OK) == 0


def test_a_message_clears_the_account() -> None:
    client = error_limits(max_errors=4, max_commands=9)
    for _ in range(3):
        client.note_replies(NO)
    client.note_replies(QUEUED)
    assert client.note_replies(NO) == client.note_replies(NO) == 0
    assert client.limit_reached() is None


def test_one_of_lmtps_recipients_is_enough_to_clear_it() -> None:
    client = error_limits(max_errors=2)
    client.note_replies(NO)
    client.note_replies(NO, QUEUED)
    client.note_replies(NO)
    assert client.limit_reached() is None


def test_commands_that_bring_no_message_on_come_to_an_end_and_those_that_do_never() -> None:
    client = error_limits(max_commands=3)
    for _ in range(1000):
        client.note_replies(replies.RECIPIENT_OK)
    client.note_replies(replies.NOOP)
    client.note_replies(replies.RESET)
    assert client.limit_reached() is None
    client.note_replies(replies.RESET)
    assert client.limit_reached() == replies.TOO_MANY_COMMANDS


def test_our_own_relays_are_borne_with() -> None:
    client = ErrorLimits(FrontEndOptions(max_errors=1, max_commands=1), exempt=True)
    assert [client.note_replies(NO) for _ in range(10)] == [0] * 10
    assert client.limit_reached() is None


def test_no_tarpit_means_no_wait() -> None:
    client = error_limits(max_errors=2, tarpit_seconds=0)
    assert [client.note_replies(NO) for _ in range(2)] == [0, 0]


def connection_limits(most: int = 100, of_one: int = 0, exempt: str = "") -> ConnectionLimits:
    return ConnectionLimits(
        FrontEndOptions(max_connections=most, max_connections_per_client=of_one, exempt_networks=exempt)
    )


def figures(here: ConnectionLimits) -> tuple[object, object]:
    facts = here.facts()
    return facts["connections"], facts["clients"]


def test_a_client_has_its_share_of_connections() -> None:
    here = connection_limits(of_one=2)
    assert [here.enter("192.0.2.1") for _ in range(3)] == [None, None, LimitReached.FOR_THIS_CLIENT]
    assert here.enter("192.0.2.2") is None
    here.leave("192.0.2.1")
    assert here.enter("192.0.2.1") is None
    assert figures(here) == (3, 2)
    for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
        here.leave(address)
    assert figures(here) == (0, 0)


def test_without_a_limit_for_one_client_there_is_that_for_all() -> None:
    here = connection_limits(most=10)
    entered = [here.enter("192.0.2.1") for _ in range(11)]
    assert entered == [None] * 10 + [LimitReached.FOR_ANYBODY]


def test_our_own_networks_and_socket_files_count_in_all_and_not_for_themselves() -> None:
    here = connection_limits(most=4, of_one=1, exempt="127.0.0.0/8")
    assert [here.enter(address) for address in ("127.0.0.1", "127.0.0.1", "", "")] == [None] * 4
    assert figures(here) == (4, 0)
    assert here.enter("192.0.2.1") == LimitReached.FOR_ANYBODY
    here.leave("127.0.0.1")
    here.leave("")
    assert here.enter("192.0.2.1") is None


def test_a_network_of_ipv6_is_one_client() -> None:
    assert one_client("2001:db8:1:2:3:4:5:6") == one_client("2001:db8:1:2::9")
    assert one_client("2001:db8:1:3::9") != one_client("2001:db8:1:2::9")


def test_no_two_clients_are_one_and_each_is_somebody() -> None:
    addresses = ["192.0.2.1", "0.0.0.0", "::c000:201", "2001:db8:c000:201::", "2001:db8::", "0:1:c000:201::"]
    known = [one_client(address) for address in addresses]
    assert all(known)
    assert len(set(known[:-1])) == len(addresses) - 1
    assert known[-1] == known[0]  # which nobody has: 0000::/8 is reserved


# A real front end


@pytest.fixture
def start(tmp_path: Path, request: pytest.FixtureRequest):
    def begin(
        *arguments: str,
        policy: str | None = None,
        routes: object = None,
        kind: str = "smtp",
        inherited: tuple[int, ...] = (),
    ) -> FrontEnd:
        if policy is not None:
            (tmp_path / "mypolicy.py").write_text(policy)
            arguments = ("--policy", "mypolicy.accept", "--policy-seconds", f"{SECONDS}", *arguments)
        if routes is not None:
            (tmp_path / "routes.json").write_text(json.dumps(routes))
            arguments = (*arguments, "--routes", "routes.json")
        running = front_end(tmp_path, *arguments, kind=kind, inherited=inherited)
        request.addfinalizer(lambda: running.__exit__(None, None, None))
        return running.__enter__()

    return begin


pytestmark = pytest.mark.lifecycle
STRICT = ("--exempt-networks", "")


def test_a_client_that_makes_too_many_errors_is_sent_away(start) -> None:
    answers = start(*STRICT, "--max-errors", "3", "--tarpit-seconds", "0").speak(HELLO + b"WHAT\r\n" * 9)
    assert answers.count(b"500 5.5.1") == 3
    assert answers.endswith(b"421 4.7.0 too many errors; closing connection\r\n")


def test_a_client_that_only_chats_is_sent_away(start) -> None:
    answers = start(*STRICT, "--max-commands", "5").speak(HELLO + b"NOOP\r\n" * 9)
    assert answers.count(b"250 2.0.0") == 4
    assert answers.endswith(b"421 4.7.0 too many commands without a message; closing connection\r\n")


def test_our_own_networks_may_make_errors(start) -> None:
    answers = start("--max-errors", "3").speak(HELLO + b"WHAT\r\n" * 9)
    assert answers.count(b"500 5.5.1") == 9


def test_errors_are_answered_late_and_nobody_else_is(start) -> None:
    """The reply to the third error waits for a minute; another client's message goes through meanwhile."""
    front = start(*STRICT, "--max-errors", "4", "--tarpit-seconds", "60", "--tarpit-max-seconds", "60")
    with front.dial() as slow:
        slow.sendall(HELLO + b"WHAT\r\n" * 3)
        heard = b""
        while heard.count(b"500 5.5.1") < 2:
            heard += slow.recv(4096)
        front.speak(HELLO + ENVELOPE + b"DATA\r\nx\r\n.\r\n")
        assert len(front.entries()) == 1
        slow.setblocking(False)
        with pytest.raises(BlockingIOError):
            slow.recv(4096)


def test_one_client_has_only_so_many_connections(start) -> None:
    front = start(*STRICT, "--max-connections-per-client", "2")
    clients = [front.connect(), front.connect()]
    with pytest.raises(smtplib.SMTPConnectError) as caught:
        front.connect()
    assert (caught.value.smtp_code, caught.value.smtp_error[:5]) == (421, b"4.7.0")
    clients.pop().close()
    wait_until(lambda: _is_let_in(front))
    clients.pop().close()


def _is_let_in(front: FrontEnd) -> bool:
    try:
        front.connect().close()
    except smtplib.SMTPConnectError:
        return False
    return True


def test_a_command_that_comes_byte_by_byte_has_its_time(start) -> None:
    front = start("--command-seconds", "1", "--idle-seconds", "600")
    with front.dial() as client:
        assert client.recv(100).startswith(b"220")
        stop = threading.Event()
        threading.Thread(target=_drip, args=(client, stop), daemon=True).start()
        answers = _until_end(client)
        stop.set()
    assert answers.startswith(b"421 4.4.2")


def test_a_message_that_comes_line_by_line_has_its_time(start) -> None:
    front = start("--data-seconds", "1", "--idle-seconds", "600")
    with front.dial() as client:
        client.sendall(HELLO + ENVELOPE + b"DATA\r\n")
        stop = threading.Event()
        threading.Thread(target=_drip, args=(client, stop), daemon=True).start()
        answers = _until_end(client)
        stop.set()
    assert (
        answers.endswith(b"\r\n421 4.4.2 timeout exceeded; closing connection\r\n") or b"421 4.4.2" in answers
    )
    assert front.entries() == []


def test_a_message_in_chunks_has_the_time_of_one_message(start) -> None:
    front = start("--data-seconds", "1", "--idle-seconds", "600")
    with front.dial() as client:
        client.sendall(HELLO + ENVELOPE)
        stop = threading.Event()
        threading.Thread(target=_drip, args=(client, stop, b"BDAT 2\r\nx\n"), daemon=True).start()
        answers = _until_end(client)
        stop.set()
    assert b"421 4.4.2" in answers
    assert front.entries() == []


@pytest.fixture
def slow_client(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[FrontEnd, socket.socket]]:
    """A client to which less can be sent at a time than it has replies to read: a hundredth of what is usual."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(60)
        with front_end(
            tmp_path, "--idle-seconds", getattr(request, "param", "3"), listener=listener
        ) as front:
            client.connect(("127.0.0.1", front.port))
            yield front, client


@pytest.mark.parametrize("end", [b"", b"QUIT\r\n"])
@pytest.mark.parametrize("half_closed", [False, True])
def test_a_client_that_does_not_read_is_sent_away(slow_client, end: bytes, half_closed: bool) -> None:
    front, client = slow_client
    descriptors = Path(f"/proc/{front.process.pid}/fd")
    assert client.recv(100).startswith(b"220")
    with_client = len(list(descriptors.iterdir()))
    client.sendall(b"HELP\r\n" * 350 + end)  # not so much that no more is read
    if half_closed:
        client.shutdown(socket.SHUT_WR)
    wait_until(lambda: len(list(descriptors.iterdir())) < with_client)


@pytest.mark.parametrize("slow_client", ["60"], indirect=True)
def test_what_comes_before_the_end_is_answered_also_to_a_client_that_reads_late(slow_client) -> None:
    front, client = slow_client
    client.sendall(HELLO + b"HELP\r\n" * 1000)
    while b"\r\n214" not in client.recv(4096):
        pass
    client.sendall(ENVELOPE + b"DATA\r\nx\r\n.\r\n")
    client.shutdown(socket.SHUT_WR)
    assert _until_end(client).splitlines()[-1].startswith(b"250 2.0.0 queued")
    assert len(front.entries()) == 1


def _until_end(client: socket.socket) -> bytes:
    """All that comes; what is sent behind the end is answered by a reset."""
    answers = b""
    with suppress(ConnectionResetError):
        while data := client.recv(4096):
            answers += data
    return answers


def _drip(client: socket.socket, stop: threading.Event, piece: bytes = b"x") -> None:
    while not stop.wait(0.05):
        try:
            client.sendall(piece)
        except OSError:
            return


def test_what_is_too_large_is_refused_at_mail_from_and_while_it_comes(start) -> None:
    front = start("--max-bytes", "20000")
    assert b"\r\n552 5.3.4" in front.speak(HELLO + b"MAIL FROM:<a@b> SIZE=30000\r\n")
    answers = front.speak(HELLO + ENVELOPE + b"DATA\r\n" + b"x" * 30_000 + b"\r\n.\r\nNOOP\r\n")
    assert b"\r\n552 5.3.4" in answers
    assert b"\r\n250 2.0.0 ok" in answers


# Policy

POLICY = """
import os, time

def accept(session, sender, recipient):
    if recipient == "no@d":
        return f"554 5.7.1 {sender} at {session.address} ({session.helo}) may not write to {recipient}"
    if recipient == "crash@d":
        os._exit(1)
    if recipient == "hang@d":
        time.sleep(600)
"""


def test_the_policy_decides_about_each_recipient(start) -> None:
    front = start(policy=POLICY)
    answers = front.speak(HELLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<no@d>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n")
    assert b"\r\n554 5.7.1 a@b at 127.0.0.1 (c) may not write to no@d\r\n250 2.1.5" in answers
    assert [envelope.recipient for envelope, _ in front.entries() if envelope] == ["c@d"]
    assert "not write to no@d" in front.log()


def test_the_policy_is_not_asked_about_whom_no_route_takes(start) -> None:
    front = start(
        policy="def accept(*asked):\n    print('ASKED', *asked[1:])\n", routes=[{"pattern": "^c@d$"}]
    )
    answers = front.speak(HELLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<x@d>\r\nRCPT TO:<c@d>\r\n")
    assert b"\r\n550 5.1.1" in answers
    assert b"\r\n250 2.1.5" in answers
    assert "ASKED a@b c@d" in front.log()
    assert "ASKED a@b x@d" not in front.log()


def test_a_policy_that_crashes_or_hangs_is_a_451_and_the_front_end_goes_on(start) -> None:
    front = start("--policy-seconds", "1", "--policy-processes", "1", policy=POLICY)
    answers = front.speak(HELLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<crash@d>\r\nRCPT TO:<hang@d>\r\n")
    assert answers.count(b"\r\n451 4.3.5") == 2

    def is_asked_again() -> bool:
        return b"\r\n250 2.1.5" in front.speak(HELLO + ENVELOPE)

    wait_until(is_asked_again)
    assert front.log().count("policy.failed") >= 2


def test_a_reload_loads_the_policy_anew(start, tmp_path: Path) -> None:
    front = start(policy=POLICY)
    assert b"250 2.1.5" in front.speak(HELLO + ENVELOPE)
    (tmp_path / "mypolicy.py").write_text("def accept(*asked):\n    return False\n")
    front.process.send_signal(signal.SIGHUP)
    wait_until(lambda: b"\r\n550 5.7.1 refused by the policy" in front.speak(HELLO + ENVELOPE))


def test_after_the_log_was_moved_away_the_policy_prints_to_the_new_file(start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    front = start(
        "--log-file", str(log), policy="def accept(*asked):\n    print('ASKED', asked[2], flush=True)\n"
    )
    assert b"\r\n250 2.1.5" in front.speak(HELLO + ENVELOPE)
    assert "ASKED c@d" in front.log()
    log.rename(tmp_path / "log.1")
    front.process.send_signal(signal.SIGUSR1)
    wait_until(log.exists)

    def is_printed() -> bool:
        front.speak(HELLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<new@d>\r\n")
        return "ASKED new@d" in front.log()

    wait_until(is_printed)


def test_after_the_log_was_moved_away_a_writer_reports_to_the_new_file(tmp_path: Path) -> None:
    code = (
        "import os; from maildefer import events; from maildefer.intake.writer import process\n"
        "events.configure(log_file='log'); os.rename('log', 'log.1')\n"
        "process.journal._report('journal.failed', queue='q', kind='pushed', error='x')\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environ, check=True, timeout=SECONDS)
    assert "journal.failed" in (tmp_path / "log").read_text()
    assert (tmp_path / "log.1").read_text() == ""


# Loops


def test_a_message_that_was_delivered_to_its_recipient_before_is_refused(start) -> None:
    front = start()
    message = b"DATA\r\nDelivered-To: C@D\r\n\r\nx\r\n.\r\n"
    assert b"\r\n554 5.4.6" in front.speak(HELLO + ENVELOPE + message)
    assert b"\r\n554 5.4.6" in front.speak(HELLO + ENVELOPE + b"RCPT TO:<e@f>\r\n" + message)
    assert front.entries() == []
    assert "mail loop" in front.log()
    assert b"\r\n250 2.0.0 queued" in front.speak(HELLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<e@f>\r\n" + message)


@pytest.mark.parametrize("padding", [0, 900_000])
def test_lmtp_refuses_the_recipient_that_had_it(start, padding: int) -> None:
    front = start(kind="lmtp")
    message = b"DATA\r\nDelivered-To: c@d\r\n\r\n" + b"x" * padding + b"\r\n.\r\n"
    answers = front.speak(b"LHLO c\r\n" + ENVELOPE + b"RCPT TO:<e@f>\r\n" + message)
    assert b"\r\n554 5.4.6" in answers
    assert b"\r\n250 2.0.0 queued" in answers
    assert [envelope.recipient for envelope, _ in front.entries() if envelope] == ["e@f"]


def test_a_large_message_that_goes_around_leaves_nothing_in_tmp(start) -> None:
    front = start("--max-hops", "2")
    message = b"DATA\r\n" + b"Received: x\r\n" * 2 + b"\r\n" + b"x" * 900_000 + b"\r\n.\r\n"
    assert b"\r\n554 5.4.6" in front.speak(HELLO + ENVELOPE + message)
    wait_until(lambda: not list((front.queue / "tmp").iterdir()))
    assert front.entries() == []


# Large messages, back-pressure


@pytest.mark.invariant(9)
def test_a_large_message_is_in_tmp_as_it_comes_and_whole_in_the_end(start) -> None:
    front = start()
    body = b"".join(b"%07d line\r\n" % number for number in range(100_000))
    with front.dial() as client:
        client.sendall(HELLO + ENVELOPE + b"RCPT TO:<e@f>\r\nDATA\r\n" + body[:1_000_000])
        wait_until(lambda: sum(path.stat().st_size for path in (front.queue / "tmp").iterdir()) > 500_000)
        assert front.entries() == []
        client.sendall(body[1_000_000:] + b".\r\nQUIT\r\n")
        answers = b"".join(iter(lambda: client.recv(65536), b""))
    assert b"\r\n250 2.0.0 queued" in answers
    assert [data for _, data in front.entries()] == [body.replace(b"\r\n", b"\n")] * 2
    assert list((front.queue / "tmp").iterdir()) == []


def test_of_large_messages_a_bounded_buffer_each_is_in_memory(start, tmp_path: Path) -> None:
    """Ten clients are in the middle of 3 MB each: nearly all of it is in tmp/, and what is held is accounted for."""
    report = os.memfd_create("report")
    os.set_inheritable(report, True)
    front = start("--report-fd", str(report), "--buffer-bytes", "100000", inherited=(report,))
    clients = [front.dial() for _ in range(10)]
    for client in clients:
        client.sendall(HELLO + ENVELOPE + b"DATA\r\n" + b"x" * 3_000_000)

    def is_in_tmp() -> bool:
        sizes = [path.stat().st_size for path in (front.queue / "tmp").iterdir()]
        return len(sizes) == 10 and min(sizes) > 2_800_000

    wait_until(is_in_tmp)
    wait_until(lambda: json.loads(os.pread(report, 4096, 0) or b"{}").get("connections") == 10)
    held = json.loads(os.pread(report, 4096, 0))["held_bytes"]
    assert held <= 10 * (100_000 + 65_536)
    for client in clients:
        client.close()
    wait_until(lambda: json.loads(os.pread(report, 4096, 0))["held_bytes"] == 0)
    os.close(report)


def test_a_client_that_leaves_in_the_middle_leaves_nothing(start) -> None:
    front = start()
    with front.dial() as client:
        client.sendall(HELLO + ENVELOPE + b"DATA\r\n" + b"x" * 2_000_000)
        wait_until(lambda: list((front.queue / "tmp").iterdir()))
    wait_until(lambda: not list((front.queue / "tmp").iterdir()))
    assert front.entries() == []


def test_a_shortage_passes_by_itself(start) -> None:
    front = start("--max-backlog", "1")
    front.speak(HELLO + ENVELOPE + b"DATA\r\nx\r\n.\r\n")
    wait_until(lambda: b"\r\n452 4.3.1" in front.speak(HELLO + ENVELOPE))
    for path in (front.queue / "new").iterdir():
        path.unlink()
    wait_until(lambda: b"\r\n250 2.1.5" in front.speak(HELLO + ENVELOPE))
