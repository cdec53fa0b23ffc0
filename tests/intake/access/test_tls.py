"""Encryption: STARTTLS, TLS from the start, and certificates that change."""

from __future__ import annotations

import os
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from maildefer.intake import replies
from maildefer.intake.access.tls import Certificate
from tests.support import certificates
from tests.support.front_end import ROOT, SECONDS, FrontEnd, front_end, wait_until

pytestmark = pytest.mark.lifecycle


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return certificates.make(tmp_path)


@pytest.fixture
def server(tmp_path: Path, certificate: Path) -> Iterator[FrontEnd]:
    with front_end(tmp_path, "--tls-certificate", str(certificate), "--hostname", "mx.test") as running:
        yield running


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


def talk(client: socket.socket, *commands: bytes) -> list[bytes]:
    """The last line of the reply to each."""
    answers = []
    with client.makefile("rb") as lines:
        for command in commands:
            client.sendall(command)
            line = lines.readline()
            while line[3:4] == b"-":
                line = lines.readline()
            answers.append(line.rstrip(b"\r\n"))
    return answers


def test_starttls_encrypts_what_follows(server: FrontEnd, certificate: Path) -> None:
    with server.connect() as client:
        client.ehlo()
        assert client.has_extn("starttls")
        client.starttls(context=trusting(certificate))
        client.ehlo()
        assert not client.has_extn("starttls")
        client.sendmail("a@b", "c@d", b"hi\r\n")
    (name,) = os.listdir(server.queue / "new")
    assert b" by mx.test (maildefer) with ESMTPS id " in (server.queue / "new" / name).read_bytes()


def test_what_was_said_before_starttls_is_forgotten(server: FrontEnd, certificate: Path) -> None:
    with server.connect() as client:
        client.ehlo()
        client.mail("a@b")
        client.starttls(context=trusting(certificate))
        assert client.docmd("RCPT TO:<c@d>") == (503, str(replies.MAIL_FIRST)[4:].encode())
        assert client.docmd("MAIL FROM:<a@b>") == (503, str(replies.HELO_FIRST)[4:].encode())
        client.ehlo()
        assert client.docmd("STARTTLS") == (503, str(replies.ALREADY_TLS)[4:].encode())


def test_commands_smuggled_in_behind_starttls_are_never_obeyed(server: FrontEnd, certificate: Path) -> None:
    """CVE-2011-0411: what comes with STARTTLS in one packet came in the clear."""
    with server.dial() as client:
        assert talk(client, b"", b"EHLO c\r\n")[-1] == b"250 SMTPUTF8"
        client.sendall(b"STARTTLS\r\nEHLO evil\r\nMAIL FROM:<evil@b>\r\nRCPT TO:<c@d>\r\n")
        with client.makefile("rb", buffering=0) as replies_:
            assert replies_.readline() == str(replies.TLS_READY).encode() + b"\r\n"
        with trusting(certificate).wrap_socket(client, server_hostname="localhost") as secure:
            assert talk(secure, b"MAIL FROM:<a@b>\r\n") == [str(replies.HELO_FIRST).encode()]
    wait_until(lambda: "ahead of encryption" in server.log())


def test_who_speaks_no_tls_after_starttls_is_cut_off(server: FrontEnd) -> None:
    with server.dial() as client:
        assert talk(client, b"", b"EHLO c\r\n", b"STARTTLS\r\n")[-1] == str(replies.TLS_READY).encode()
        client.sendall(b"MAIL FROM:<a@b>\r\n" * 10)
        assert b"250" not in b"".join(iter(lambda: _received(client), b""))
    wait_until(lambda: "no encryption" in server.log())
    server.connect().close()  # and all others go on


def test_the_log_says_why_a_handshake_was_none(server: FrontEnd, tmp_path: Path, certificate: Path) -> None:
    with server.dial() as client:
        assert talk(client, b"", b"EHLO c\r\n", b"STARTTLS\r\n")[-1] == str(replies.TLS_READY).encode()
    wait_until(lambda: "no encryption: the client has left" in server.log())
    folder = tmp_path / "smtps"
    folder.mkdir()
    with front_end(folder, "--tls-certificate", str(certificate), kind="smtps") as encrypted:
        encrypted.dial().close()
        wait_until(lambda: "it has not begun: nothing came" in encrypted.log())


def test_a_client_that_waits_with_its_handshake_does_not_hold_up_the_end(server: FrontEnd) -> None:
    with server.dial() as client:
        client.settimeout(20)  # the handshake may take 30
        assert talk(client, b"", b"EHLO c\r\n", b"STARTTLS\r\n")[-1] == str(replies.TLS_READY).encode()
        server.process.terminate()
        # uvloop's own transport still takes words in the clear.
        assert client.recv(100) in (b"", f"{replies.CLOSING}\r\n".encode())
        assert server.process.wait(20) == 0


@pytest.mark.parametrize("leaves", ["by FIN alone", "by close_notify"])
def test_a_whole_message_is_stored_though_its_client_has_left_by_tls(
    server: FrontEnd, certificate: Path, leaves: str
) -> None:
    with server.dial() as client:
        assert talk(client, b"", b"EHLO c\r\n", b"STARTTLS\r\n")[-1] == str(replies.TLS_READY).encode()
        with trusting(certificate).wrap_socket(client, server_hostname="localhost") as secure:
            assert talk(secure, b"EHLO c\r\n", b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<c@d>\r\n", b"DATA\r\n")
            secure.sendall(b"hi\r\n.\r\n")
            if leaves == "by FIN alone":
                with socket.socket(fileno=os.dup(secure.fileno())) as bare:
                    bare.shutdown(socket.SHUT_WR)
    wait_until(lambda: len(server.entries()) == 1)


def _received(client: socket.socket) -> bytes:
    try:
        return client.recv(4096)
    except ConnectionResetError:
        return b""


def test_versions_before_1_2_are_refused(certificate: Path) -> None:
    assert Certificate(str(certificate), None).context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_smtps_begins_with_tls(tmp_path: Path, certificate: Path) -> None:
    with front_end(tmp_path, "--tls-certificate", str(certificate), kind="smtps") as running:
        context = trusting(certificate)
        with smtplib.SMTP_SSL("localhost", running.port, context=context, timeout=SECONDS) as client:
            client.sendmail("a@b", ["c@d"], b"x" * 300_000 + b"\r\n")
        assert [len(data) for _, data in running.entries()] == [300_001]


def test_a_client_in_the_clear_gets_no_word_out_of_smtps(tmp_path: Path, certificate: Path) -> None:
    with (
        front_end(tmp_path, "--tls-certificate", str(certificate), kind="smtps") as running,
        running.dial() as client,
    ):
        client.sendall(b"EHLO c\r\nMAIL FROM:<a@b>\r\n")
        assert b"250" not in b"".join(iter(lambda: _received(client), b""))


def test_one_client_that_begins_no_encryption_leaves_room_for_others(
    tmp_path: Path, certificate: Path
) -> None:
    share = ("--max-connections-per-client", "2", "--exempt-networks", "")
    with (
        front_end(tmp_path, "--tls-certificate", str(certificate), *share, kind="smtps") as running,
        ExitStack() as stack,
    ):

        def connected(source: str) -> socket.socket:
            address = ("127.0.0.1", running.port)
            return stack.enter_context(
                socket.create_connection(address, timeout=SECONDS, source_address=(source, 0))
            )

        silent = [connected("127.0.0.1"), connected("127.0.0.1")]
        assert connected("127.0.0.1").recv(1) == b""
        assert _greets(connected("127.0.0.2"), certificate)
        silent[0].close()
        wait_until(lambda: _greets(connected("127.0.0.1"), certificate))


def _greets(sock: socket.socket, certificate: Path) -> bool:
    try:
        with trusting(certificate).wrap_socket(sock, server_hostname="localhost") as client:
            return client.recv(512).startswith(b"220 ")
    except OSError:
        return False


def test_without_encryption_nothing_is_taken_where_it_is_required(tmp_path: Path, certificate: Path) -> None:
    with front_end(tmp_path, "--tls-certificate", str(certificate), "--tls-required") as running:
        with running.connect() as client:
            assert client.ehlo()[0] == 250
            assert client.docmd("MAIL FROM:<a@b>") == (530, str(replies.TLS_FIRST)[4:].encode())
            assert client.noop()[0] == 250
            client.starttls(context=trusting(certificate))
            client.sendmail("a@b", "c@d", b"hi\r\n")
        assert len(running.entries()) == 1


def test_a_new_certificate_is_shown_after_hup_and_a_broken_one_is_not(
    tmp_path: Path, server: FrontEnd, certificate: Path
) -> None:
    first = certificate.read_bytes()
    assert shown(server) == ssl.PEM_cert_to_DER_cert(certificate_in(first))
    second = certificates.make(tmp_path, "renewed").read_bytes()
    certificate.write_bytes(second)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: shown(server) == ssl.PEM_cert_to_DER_cert(certificate_in(second)))
    certificate.write_bytes(b"no certificate\n")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "intake.stale" in server.log())
    assert shown(server) == ssl.PEM_cert_to_DER_cert(certificate_in(second))


def certificate_in(pem: bytes) -> str:
    text = pem.decode()
    return text[text.index("-----BEGIN CERTIFICATE") :].split("-----END CERTIFICATE-----")[0] + (
        "-----END CERTIFICATE-----\n"
    )


def shown(server: FrontEnd) -> bytes | None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with server.connect() as client:
        client.starttls(context=context)
        assert isinstance(client.sock, ssl.SSLSocket)
        return client.sock.getpeercert(binary_form=True)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--tls-certificate", "nowhere.pem"], "nowhere.pem can't be used"),
        (["--tls-required"], "tls_required needs encryption"),
        (["--auth-file", "passwords"], "auth_file needs encryption"),
        (["--tls-key", "key.pem"], "tls_key needs encryption"),
        (["--auth-required"], "auth_required needs somebody"),
        (["--proxy-networks", "everywhere"], "'everywhere' is no network"),
    ],
)
def test_what_makes_no_sense_ends_it_with_78(tmp_path: Path, arguments: list[str], reason: str) -> None:
    with front_end(tmp_path, *arguments) as running:
        assert running.process.wait(SECONDS) == 78
        assert reason in running.log()


def test_ssl_is_in_no_process_without_a_certificate(tmp_path: Path) -> None:
    """It would be 4 MB for each; the writer has no use for it at all."""
    code = """
import atexit, os, sys
atexit.register(lambda: open(f"modules-{os.getpid()}", "w").write(" ".join(sys.modules)))
from maildefer.intake.writer import process as writer
run = writer.Writer.run
def tell(self):
    run(self)
    open("writers", "w").write(" ".join(sys.modules))
writer.Writer.run = tell
from maildefer.intake.__main__ import main
sys.exit(main())
"""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-c", code, "--socket-fd", str(listener.fileno()), "--queue", "queue"]
        process = subprocess.Popen(
            command,
            pass_fds=[listener.fileno()],
            cwd=tmp_path,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        with smtplib.SMTP("127.0.0.1", listener.getsockname()[1], timeout=SECONDS) as client:
            client.sendmail("a@b", "c@d", b"hi\r\n")
        process.terminate()
        assert process.wait(SECONDS) == 0
    ours = (tmp_path / f"modules-{process.pid}").read_text().split()
    wait_until(lambda: (tmp_path / "writers").exists())
    writers = (tmp_path / "writers").read_text().split()
    uvloops = "uvloop" in ours  # does not come without it
    # Where None stands for it.
    assert {"ssl", "_ssl"} & set(ours) <= ({"ssl", "_ssl"} if uvloops else {"ssl"})
    assert not {"ssl", "_ssl", "asyncio", "hashlib", "email"} & set(writers)
    assert not {"aiosmtpd", "hashlib"} & set(ours)
