"""The front end with the programs that people have: swaks, curl, openssl, smtplib, and Postfix in front of it."""

from __future__ import annotations

import json
import os
import smtplib
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from maildefer.intake.access import passwords
from maildefer.message.authentication import authentication_of, trusted_servers
from maildefer.message.dsn.parameters import parsed
from maildefer.message.envelope import Envelope
from tests.support import certificates, milter, postfix
from tests.support.front_end import SECONDS, FrontEnd, front_end, wait_until

pytestmark = pytest.mark.lifecycle
Begin = Callable[..., AbstractContextManager[FrontEnd]]


@pytest.fixture
def secured(tmp_path: Path) -> Begin:
    """Starts a front end with a certificate, that knows ann's password."""
    certificate = certificates.make(tmp_path)
    passwords.write(str(tmp_path / "passwords"), {"ann": passwords.hashed("sesame")})

    @contextmanager
    def start(kind: str = "smtp", *arguments: str) -> Iterator[FrontEnd]:
        trust = ("--tls-certificate", str(certificate), "--auth-file", "passwords", "--auth-required")
        with front_end(tmp_path, *trust, *arguments, kind=kind) as running:
            yield running

    return start


def run(*command: str, text: bytes = b"") -> bytes:
    """Its output. Fails the test when the program fails."""
    done = subprocess.run(command, input=text, capture_output=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
    return done.stdout


def via(server: FrontEnd) -> str:
    """The protocol that the one entry came by."""
    (name,) = os.listdir(server.queue / "new")
    text = (server.queue / "new" / name).read_text()
    return text.split(" (maildefer) with ")[1].split(" id ")[0]


# swaks

SWAKS = ("--from", "a@b", "--to", "c@d,e@f", "--body", "hi", "--helo", "swaks.test", "--timeout", "60")


def swaks(server: FrontEnd, *options: str) -> str:
    program = certificates.need("swaks")
    return run(program, "--server", "127.0.0.1", "--port", str(server.port), *SWAKS, *options).decode()


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_with_starttls_and_auth(secured: Begin, mechanism: str) -> None:
    with secured() as server:
        swaks(server, "--tls", "--auth", mechanism, "--auth-user", "ann", "--auth-password", "sesame")
        assert {envelope for envelope, _ in server.entries()} == {
            Envelope("a@b", "c@d"),
            Envelope("a@b", "e@f"),
        }


def test_swaks_with_tls_on_connect(secured: Begin) -> None:
    with secured("smtps") as server:
        swaks(server, "--tlsc", "--auth", "PLAIN", "--auth-user", "ann", "--auth-password", "sesame")
        assert len(server.entries()) == 2


def test_swaks_is_told_that_its_password_is_wrong(secured: Begin) -> None:
    with secured("smtps") as server:
        command = [certificates.need("swaks"), "--server", "127.0.0.1", "--port", str(server.port), *SWAKS]
        command += ["--tlsc", "--auth", "PLAIN", "--auth-user", "ann", "--auth-password", "open"]
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        assert done.returncode == 28  # an authentication error, by its manual
        assert b"535 5.7.8" in done.stdout


def test_swaks_by_lmtp_and_pipelined(tmp_path: Path) -> None:
    with front_end(tmp_path, kind="lmtp") as server:
        said = swaks(server, "--protocol", "LMTP", "--pipeline")
        assert said.count("<-  250 2.0.0 queued") == 2


@pytest.mark.parametrize(
    "options",
    [
        ("--proxy-version", "1", "--proxy-family", "TCP4"),
        ("--proxy-version", "2", "--proxy-family", "AF_INET", "--proxy-protocol", "STREAM"),
    ],
    ids=["version 1", "version 2"],
)
def test_swaks_behind_a_proxy(tmp_path: Path, options: tuple[str, ...]) -> None:
    source = ("--proxy-source", "192.0.2.1", "--proxy-source-port", "1234")
    target = ("--proxy-dest", "192.0.2.2", "--proxy-dest-port", "25")
    with front_end(tmp_path, "--proxy-networks", "127.0.0.1") as server:
        swaks(server, *options, *source, *target)
        assert "swaks.test ([192.0.2.1])" in server.log()


def test_swaks_with_xclient(tmp_path: Path) -> None:
    with front_end(tmp_path, "--xclient-networks", "127.0.0.1") as server:
        swaks(server, "--xclient", "NAME=mx.test ADDR=192.0.2.1")
        assert "swaks.test (mx.test [192.0.2.1])" in server.log()


# curl


def test_curl_with_starttls_and_auth(secured: Begin, tmp_path: Path) -> None:
    with secured() as server:
        url, mail = f"smtp://localhost:{server.port}/curl.test", ["--mail-from", "a@b", "--mail-rcpt", "c@d"]
        trust = ["--ssl-reqd", "--cacert", str(tmp_path / "localhost.pem"), "--user", "ann:sesame"]
        curl = certificates.need("curl")
        run(curl, "-sS", "-4", "--url", url, *trust, *mail, "-T", "-", text=b"Subject: x\r\n\r\n.dot\r\n")
        assert server.entries() == [(Envelope("a@b", "c@d"), b"Subject: x\n\n.dot\n")]
        assert via(server) == "ESMTPSA"


def test_curl_with_tls_from_the_start(secured: Begin, tmp_path: Path) -> None:
    with secured("smtps") as server:
        url = f"smtps://localhost:{server.port}/curl.test"
        trust = ["--cacert", str(tmp_path / "localhost.pem"), "--user", "ann:sesame"]
        mail = ["--mail-from", "a@b", "--mail-rcpt", "c@d"]
        body = b"x" * 2_000_000 + b"\r\n"
        run(certificates.need("curl"), "-sS", "-4", "--url", url, *trust, *mail, "-T", "-", text=body)
        assert [len(data) for _, data in server.entries()] == [2_000_001]


# openssl


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_speaks_to_it(tmp_path: Path, version: str) -> None:
    certificate = certificates.make(tmp_path)
    with front_end(tmp_path, "--tls-certificate", str(certificate)) as server:
        command = [certificates.need("openssl"), "s_client", "-connect", f"127.0.0.1:{server.port}", version]
        command += ["-starttls", "smtp", "-quiet", "-ign_eof", "-verify_return_error"]
        command += ["-CAfile", str(certificate)]
        said = b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nhi\r\n.\r\nQUIT\r\n"
        assert b"250 2.0.0 queued" in run(*command, text=said)
        assert via(server) == "ESMTPS"


# smtplib


def test_smtplib_many_at_once_over_tls(secured: Begin) -> None:
    with secured() as server:

        def send(number: int) -> None:
            with server.connect() as client:
                client.starttls()
                client.login("ann", "sesame")
                for _ in range(5):
                    client.sendmail("a@b", [f"r{number}@d", f"s{number}@d"], b"x" * 100_000 + b"\r\n")

        threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        assert len(server.entries()) == 80


# Postfix in front


ROUTES = [{"pattern": r"^[a-z]+@blog\.test$"}, {"pattern": "^bj\xf6rn@blog\\.test$"}]


@contextmanager
def lmtp_file(folder: Path, *arguments: str) -> Iterator[FrontEnd]:
    """A front end on `folder/lmtp`."""
    front = folder / "front"
    front.mkdir()
    (front / "routes").write_text(json.dumps(ROUTES))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "lmtp"))
        os.chmod(folder / "lmtp", 0o666)
        listener.listen(64)
        with front_end(front, "--routes", "routes", *arguments, kind="lmtp", listener=listener) as running:
            yield running


def send(relay: postfix.Relay, data: bytes, *recipients: str, options: tuple[str, ...] = ()) -> None:
    with smtplib.SMTP("127.0.0.1", relay.port, local_hostname="spike.test", timeout=SECONDS) as client:
        client.sendmail("ann@blog.test", recipients, data, options)


def test_postfix_delivers_by_lmtp_on_a_socket_file_and_bounces_who_is_refused() -> None:
    with (
        postfix.home() as folder,
        lmtp_file(folder, "--xclient-networks", "unix") as server,
        postfix.relaying(folder, f"lmtp:unix:{folder}/lmtp", "lmtp_send_xforward_command = yes") as relay,
    ):
        send(relay, b"Subject: x\r\n\r\n.hi\r\n" + b"y" * 998 + b"\r\n", "post@blog.test", "no.one@blog.test")
        wait_until(lambda: len(server.entries()) == 2)
        found = {envelope: data for envelope, data in server.entries() if envelope}
        assert set(found) == {Envelope("ann@blog.test", "post@blog.test"), Envelope("", "ann@blog.test")}
        taken = found[Envelope("ann@blog.test", "post@blog.test")]
        assert taken.endswith(b"\n\n.hi\n" + b"y" * 998 + b"\n")
        assert b"550 5.1.1" in found[Envelope("", "ann@blog.test")]  # the notice tells what we said
        assert "(for spike.test [127.0.0.1])" in server.log()


def test_postfix_relays_by_smtp_with_tls_and_keeps_one_connection_for_many() -> None:
    with postfix.home() as folder:
        (folder / "front").mkdir()
        certificate = certificates.make(folder)
        with (
            front_end(folder / "front", "--tls-certificate", str(certificate), "--tls-required") as server,
            postfix.relaying(
                folder,
                f"smtp:[127.0.0.1]:{server.port}",
                "smtp_tls_security_level = encrypt",
                "smtp_tls_connection_reuse = no",
                "smtp_destination_recipient_limit = 5",
            ) as relay,
        ):
            send(relay, b"Subject: x\r\n\r\nhi\r\n", *(f"r{number}@blog.test" for number in range(20)))
            wait_until(lambda: len(server.entries()) == 20)
            (line,) = {_received(server)}
            assert "from relay.test ([127.0.0.1])" in line
            assert " with ESMTPS id " in line


def _received(server: FrontEnd) -> str:
    name = min(os.listdir(server.queue / "new"))
    return (server.queue / "new" / name).read_text().split("\n")[2]


def test_postfix_passes_on_addresses_beyond_ascii_and_what_is_asked_of_reports() -> None:
    with (
        postfix.home() as folder,
        lmtp_file(folder, "--dsn") as server,
        postfix.relaying(folder, f"lmtp:unix:{folder}/lmtp") as relay,
    ):
        asked = ("SMTPUTF8", "RET=HDRS", "ENVID=QQ+2B314")
        with smtplib.SMTP("127.0.0.1", relay.port, local_hostname="spike.test", timeout=SECONDS) as client:
            data = "Subject: grüße\r\n\r\nhi\r\n".encode()
            client.sendmail("ann@blog.test", "björn@blog.test", data, asked, ["NOTIFY=FAILURE,DELAY"])
        wait_until(server.entries)
        envelope = server.entries()[0][0]
        assert envelope == Envelope("ann@blog.test", "björn@blog.test")
        assert envelope.dsn.startswith("RET=HDRS ENVID=QQ+2B314 NOTIFY=FAILURE,DELAY ORCPT=")
        assert parsed(envelope.dsn).orcpt == "utf-8;bj\\x{F6}rn@blog.test"
        assert via(server) == "UTF8LMTP"


def test_behind_postfix_its_milters_results_are_believed_and_no_forged_ones() -> None:
    """The milters write as OpenDKIM and OpenDMARC do; `header_checks` removes what comes in the server's name."""
    forged = (
        "Authentication-Results: relay.test; dmarc=pass header.from=bank.test\r\n"
        "authentication-results: relay.test; dkim=pass header.d=bank.test\r\n"
    )
    written = [
        ("Authentication-Results", "relay.test;\n\tdkim=pass (2048-bit key) header.d=s.test"),
        ("Authentication-Results", "relay.test; dmarc=pass (p=none dis=none) header.from=s.test"),
    ]
    with (
        postfix.home() as folder,
        lmtp_file(folder) as server,
        milter.inserting(*written) as port,
        postfix.relaying(
            folder,
            f"lmtp:unix:{folder}/lmtp",
            f"smtpd_milters = inet:127.0.0.1:{port}",
            "header_checks = regexp:{{/^Authentication-Results:/ IGNORE}}",
        ) as relay,
    ):
        for author in ("ann@s.test", "ceo@bank.test"):
            send(relay, f"{forged}From: {author}\r\n\r\nhi\r\n".encode(), "post@blog.test")
        wait_until(lambda: len(server.entries()) == 2)
        assert not any(b"=bank.test" in data for _, data in server.entries())
        trusted = trusted_servers({"servers": ["relay.test"], "fields": 2})
        found = {
            one.author: one for one in (authentication_of(data, trusted) for _, data in server.entries())
        }
        assert [one.method for one in found["ann@s.test"].results] == ["dmarc", "dkim"]
        assert found["ann@s.test"].verified_by == "dmarc"
        assert found["ceo@bank.test"].verified_by is None


def test_postfix_tries_again_what_is_refused_for_now() -> None:
    with (
        postfix.home() as folder,
        lmtp_file(folder, "--max-backlog", "1") as server,
        postfix.relaying(folder, f"lmtp:unix:{folder}/lmtp") as relay,
    ):
        waiting = server.queue / "new" / "1.M1P1Q1.other"
        waiting.touch()
        send(relay, b"Subject: x\r\n\r\n", "post@blog.test")
        wait_until(lambda: "452 4.3.1" in relay.log())
        waiting.unlink()
        wait_until(server.entries)
        assert server.entries()[0][0] == Envelope("ann@blog.test", "post@blog.test")
