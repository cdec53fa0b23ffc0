"""One entry of the outgoing queue at servers that take it, refuse it, break off or talk nonsense."""

from __future__ import annotations

import re
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from maildefer.handling.outcomes import Defer, DestinationDown
from maildefer.handling.outgoing.delivery import Delivery
from maildefer.handling.outgoing.destinations import Destinations
from maildefer.handling.outgoing.failure import DeliveryFailed
from maildefer.handling.project import queue_paths
from maildefer.handling.retry import RetryPolicy
from maildefer.maildir.layout import create_queue
from maildefer.maildir.upkeep.closures import Closures
from maildefer.message.envelope import block
from maildefer.message.outgoing import mx
from maildefer.message.request import MailRequest, received
from tests.support import certificates, dns_server, next_server
from tests.support.next_server import CLOSE, TAKEN, NextServer

BODY = b"From: s@x\r\nDate: today\r\nMessage-ID: <1@x>\r\n\r\n.hello\r\n"


@pytest.fixture
def server() -> Iterator[NextServer]:
    with next_server.running() as started:
        yield started


class Sender:
    """Sends messages by one setting, as a worker does."""

    def __init__(self, server: NextServer, **config: Any) -> None:
        given = {"host": "127.0.0.1", "port": server.port, **config}
        self.destinations = Destinations({key: value for key, value in given.items() if value != ""})

    def send(self, recipient: str = "bob@b.example", **given: Any) -> None:
        self.delivery(recipient, **given).send()

    def delivery(
        self,
        recipient: str = "bob@b.example",
        *,
        sender: str = "s@x",
        data: bytes = BODY,
        age: float = 0.0,
        attempt: int = 1,
        queue: str | None = None,
    ) -> Delivery:
        stem = f"{int(time.time() - age)}.M1P1Q1R0123456789abcdef.host"
        top = block(stem, sender, recipient, host="host", when=0.0, via="push")
        message = received(top + data, f"{stem},S=1", attempt, queue, None)
        return Delivery(message, self.destinations.of(recipient), RetryPolicy())


@pytest.fixture
def sender(server: NextServer) -> Iterator[Sender]:
    made = Sender(server)
    yield made
    made.destinations.of("x@y").relay.kept.close_all()


def test_what_the_server_takes_is_done_and_its_words_are_logged(
    server: NextServer, sender: Sender, told: list[dict[str, Any]]
) -> None:
    server.replies["MESSAGE"] = "250 2.0.0 queued as 4711"
    sender.send("Bob@b.example", sender="Ann@x")
    [(by, to, data)] = server.messages
    assert by.startswith("MAIL FROM:<Ann@x>")
    assert to == ["Bob@b.example"], "in the case in which it was given"
    assert data.startswith(b"Received: by ")
    assert data.partition(b"\r\n")[2] == BODY.replace(b".hello", b"..hello")
    [line] = [line for line in told if line["event"] == "entry.delivered"]
    assert (line["to"], line["reply"]) == ("Bob@b.example", "250 2.0.0 queued as 4711 (127.0.0.1)")


def test_a_name_of_the_settings_is_what_other_servers_are_told(
    server: NextServer, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mx, "configured_name", Destinations({"hostname": "mx1.osb.example"}).hostname)
    sender.send()
    assert server.lines[0].lower() == "ehlo mx1.osb.example"
    [(_, _, data)] = server.messages
    assert data.startswith(b"Received: by mx1.osb.example (maildefer)")
    records = {"b.example MX": ["10 mx1.osb.example."]}
    with dns_server.answering(records), pytest.raises(DeliveryFailed, match="loops back to this host"):
        Sender(server, host=None).send()


def test_a_refusal_for_good_is_final_with_the_servers_words(server: NextServer, sender: Sender) -> None:
    server.replies["RCPT"] = "550 5.1.1 no such user here"
    with pytest.raises(DeliveryFailed, match=r"550 5.1.1 no such user here \(127.0.0.1\)") as failed:
        sender.send()
    fault = failed.value
    assert (fault.recipient, fault.code, fault.status, fault.server, fault.words) == (
        "bob@b.example",
        550,
        "5.1.1",
        "127.0.0.1",
        "5.1.1 no such user here",
    )


@pytest.mark.parametrize(
    ("verb", "reply"),
    [
        ("MAIL", "451 4.3.0 later"),
        ("RCPT", "450 4.7.1 greylisted"),
        ("DATA", "452 4.3.1 full"),
        ("MESSAGE", "451 4.3.0 later"),
        ("MAIL", "421 4.3.2 going down"),
        ("RCPT", "421 4.3.2 going down"),
        ("DATA", "421 4.3.2 going down"),
        ("MESSAGE", "421 4.3.2 going down"),
        ("MAIL", CLOSE),
        ("RCPT", CLOSE),
        ("MESSAGE", CLOSE),
        ("MAIL", "what is it?"),
        ("RCPT", "999999"),
        ("DATA", "250 ready"),
        ("MESSAGE", "\x00\x01"),
    ],
)
@pytest.mark.parametrize("extension", ["PIPELINING", "8BITMIME"])
def test_whatever_else_the_server_says_it_is_tried_again(
    server: NextServer, sender: Sender, verb: str, reply: str, extension: str
) -> None:
    server.extensions = [extension]
    server.replies[verb] = [reply]
    with pytest.raises(Defer):
        sender.send()
    sender.send()
    assert server.copies("bob@b.example") == 1


@pytest.mark.parametrize("greeting", ["554 go away", "421 too many", "hello", CLOSE])
def test_a_greeting_that_is_none_is_tried_again(server: NextServer, sender: Sender, greeting: str) -> None:
    server.replies["GREETING"] = [greeting]
    with pytest.raises(Defer):
        sender.send()
    sender.send()


def test_an_endless_reply_is_cut_off(server: NextServer, sender: Sender) -> None:
    server.replies["RCPT"] = ["\r\n".join(["250-and more"] * 5000)]
    with pytest.raises(Defer, match="reply of over 200 lines"):
        sender.send()
    server.replies["RCPT"] = ["250 " + "x" * 20000]
    with pytest.raises(Defer, match="endless line"):
        sender.send()


def test_a_250_that_is_lost_is_one_copy_more_and_no_other_host_is_tried(
    server: NextServer, sender: Sender
) -> None:
    server.replies["MESSAGE"] = [TAKEN]
    with pytest.raises(Defer, match="closed the connection"):
        sender.send()
    sender.send()
    assert server.copies("bob@b.example") == 2


def test_messages_for_one_server_go_over_one_connection(server: NextServer, sender: Sender) -> None:
    server.replies["RCPT TO:<no@b.example>"] = "550 5.1.1 unknown"
    for number in range(5):
        sender.send(f"user{number}@other{number}.example")
    with pytest.raises(DeliveryFailed):
        sender.send("no@b.example")
    sender.send("last@b.example")
    assert (server.connections, len(server.messages)) == (1, 6)


def test_where_connections_are_limited_none_is_kept(server: NextServer) -> None:
    limited = Sender(server, connections=2)
    for _ in range(3):
        limited.send()
        assert limited.destinations.of("x@y").relay.kept.take("127.0.0.1") is None
    assert (server.connections, len(server.messages)) == (3, 3)


def test_a_server_that_takes_few_messages_over_a_connection_is_asked_anew_at_once(
    server: NextServer, sender: Sender
) -> None:
    sender.send("a@b.example")
    server.replies["MAIL"] = ["421 4.7.0 one is enough"]
    sender.send("b@b.example")
    assert (server.connections, len(server.messages)) == (2, 2)


def test_a_server_that_has_closed_a_kept_connection_is_asked_anew(server: NextServer, sender: Sender) -> None:
    sender.send("a@b.example")
    server.replies["MAIL"] = [CLOSE]
    sender.send("b@b.example")
    assert (server.connections, len(server.messages)) == (2, 2)


def test_an_address_beyond_ascii_is_final_where_the_server_takes_none(
    server: NextServer, sender: Sender
) -> None:
    sender.send("bärbel@b.example")
    assert server.copies("bärbel@b.example") == 1
    sender.destinations.of("x@y").relay.kept.close_all()
    server.extensions = []
    with pytest.raises(DeliveryFailed, match="SMTPUTF8") as failed:
        sender.send("bärbel@b.example")
    assert failed.value.status == "5.6.7"


@pytest.mark.parametrize("address", ["a@b\r\nRCPT TO:<c@d>", "a@b> SIZE=1", "a b@c", "\udcff@b"])
def test_an_address_that_would_be_a_command_of_its_own_is_final(
    server: NextServer, sender: Sender, address: str
) -> None:
    message = MailRequest(None, "s@x", "bob@b.example", BODY)
    message.To = address
    with pytest.raises(DeliveryFailed) as failed:
        Delivery(message, sender.destinations.of(address), RetryPolicy()).send()
    assert failed.value.status == "5.1.3"
    assert server.lines == []


@pytest.mark.parametrize(
    "address", ["", "@", "u@", "u@a..b.example", f"u@{'x' * 64}.example", "u@[127.0.0.1", "u@[300.1.1.1]"]
)
def test_by_mx_an_address_whose_domain_is_none_is_final(server: NextServer, address: str) -> None:
    message = MailRequest(None, "s@x", "", BODY)
    message.To = address
    by_mx = Sender(server, host=None)
    with pytest.raises(DeliveryFailed) as failed:
        Delivery(message, by_mx.destinations.of(address), RetryPolicy()).send()
    assert failed.value.status.startswith("5.")
    assert server.lines == []


@pytest.mark.parametrize("key", ["x\r\nBcc: y", "x y", "\udcff", "", None])
def test_a_key_that_another_program_chose_forges_no_field(
    server: NextServer, sender: Sender, key: str | None
) -> None:
    message = MailRequest(None, "s@x", "bob@b.example", BODY)
    message.key = key
    Delivery(message, sender.destinations.of("bob@b.example"), RetryPolicy()).send()
    [(_, _, data)] = server.messages
    received_line, rest = data.split(b"\r\n", 1)
    assert re.fullmatch(rb"Received: by \S+ \(maildefer\); [^\r\n]+", received_line)
    assert rest.startswith(b"From: s@x\r\n")


def test_a_message_without_date_and_id_has_them_the_same_at_each_attempt(
    server: NextServer, sender: Sender
) -> None:
    server.replies["MESSAGE"] = [TAKEN]
    delivery = [sender.delivery(data=b"From: s@shop.example\r\n\r\nhello\r\n", age=7200) for _ in range(2)]
    with pytest.raises(Defer):
        delivery[0].send()
    delivery[1].send()
    first, second = (data.split(b"\r\n")[1:] for _, _, data in server.messages)
    assert first == second
    assert first[1].endswith(b".host@shop.example>")
    signed = b"DKIM-Signature: v=1; h=from:date:message-id\r\nFrom: s@x\r\n\r\n"
    sender.send(data=signed)
    assert server.messages[-1][2].partition(b"\r\n")[2] == signed


def test_what_is_too_old_is_given_up_with_the_last_words(server: NextServer, sender: Sender) -> None:
    server.replies["RCPT"] = "450 4.7.1 greylisted"
    with pytest.raises(Defer):
        sender.send(age=5 * 86400, attempt=4)
    with pytest.raises(DeliveryFailed, match=r"given up after 120.0 hours: .*450 4.7.1 greylisted") as failed:
        sender.send(age=5 * 86400, attempt=5)
    assert (failed.value.status, failed.value.is_expired) == ("4.4.7", True)


def test_what_has_waited_for_its_lifetime_for_a_destination_that_is_down_is_given_up_without_an_attempt(
    server: NextServer, sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = create_queue(f"{tmp_path}/home")
    monkeypatch.setattr(queue_paths, "home_queue", lambda otherwise: home)
    monkeypatch.setattr(queue_paths, "queue_at", lambda path: home)
    now = time.time()
    down = Closures(home, now=lambda: now)
    for failures in range(5):
        sender.send(age=6 * 86400, queue=home.path)
        assert len(server.messages) == failures + 1, "it may be up again"
        down.close(f"127.0.0.1:{server.port}", "Connection refused (127.0.0.1)")
        now += 2 * 3600
    with pytest.raises(
        DeliveryFailed, match=r"given up after 144.0 hours: .*Connection refused \(127.0.0.1\)"
    ) as failed:
        sender.send(age=6 * 86400, queue=home.path)
    assert (failed.value.status, failed.value.words) == ("4.4.7", "Connection refused (127.0.0.1)")
    assert len(server.messages) == 5
    sender.send(age=4 * 86400, queue=home.path)


def test_a_refused_connection_is_tried_again(server: NextServer) -> None:
    with next_server.running() as gone:
        pass
    with pytest.raises(Defer, match="Connection refused"):
        Sender(gone).send()


@pytest.mark.slow
def test_a_certificate_that_does_not_match_sends_nothing(server: NextServer, tmp_path: Path) -> None:
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.tls.load_cert_chain(certificates.make(tmp_path))
    with pytest.raises(Defer, match="certificate verify failed"):
        Sender(server, host="localhost", tls="verified").send()
    Sender(server, host="localhost", tls="required").send()
    assert (server.encrypted, len(server.messages)) == (1, 1)


@pytest.mark.slow
def test_a_password_goes_within_verified_tls_alone(
    server: NextServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = certificates.make(tmp_path)
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.tls.load_cert_chain(made)
    server.extensions.append("AUTH PLAIN")
    server.replies["AUTH"] = ["535 5.7.8 wrong password", "235 2.7.0 welcome"]
    config = {"host": "localhost", "username": "us", "password": "secret"}
    with pytest.raises(Defer, match="certificate verify failed") as unverified:
        Sender(server, **config).send()
    assert not [line for line in server.lines if line.startswith("AUTH")], "who is that?"
    monkeypatch.setenv("SSL_CERT_FILE", str(made))
    with pytest.raises(Defer, match=r"^535 5.7.8 wrong password \(localhost\)$") as wrong:
        Sender(server, **config).send()
    assert isinstance(unverified.value, DestinationDown), (
        "what the settings ask for is no word on the message"
    )
    assert isinstance(wrong.value, DestinationDown)
    Sender(server, **config).send()
    plain = b64encode(b"\0us\0secret").decode()
    assert server.lines.count(f"AUTH PLAIN {plain}") == 2
    assert server.copies("bob@b.example") == 1


def test_lmtp_goes_to_its_server(server: NextServer) -> None:
    Sender(server, lmtp=True).send()
    assert server.lines[0].startswith("lhlo ")
    assert server.copies("bob@b.example") == 1


@pytest.mark.parametrize("silent_at", ["the greeting", "MAIL"])
def test_a_message_that_is_broken_off_ends_its_thread(silent_at: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sender = Sender(next_server.NextServer(silent.getsockname()[1]))
        delivery = sender.delivery()
        with ThreadPoolExecutor(1) as threads:
            sent = threads.submit(delivery.send)
            client, _ = silent.accept()
            if silent_at != "the greeting":
                client.sendall(b"220 hello\r\n250 hello\r\n")
                said = b""
                while b"MAIL" not in said:
                    said += client.recv(4096)
            deadline = time.monotonic() + 20
            while not sent.done() and time.monotonic() < deadline:
                delivery.abort()
                time.sleep(0.001)
            with pytest.raises(Defer):
                sent.result()
        client.close()


def broken_off_early(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> Delivery:
    """A delivery that is broken off as its hosts are looked up; there are two."""
    delivery = sender.delivery()

    def looked_up(to: str) -> list[str]:
        delivery.abort()
        return ["127.0.0.1", "127.0.0.1"]

    monkeypatch.setattr(sender.destinations.of("x@y").relay, "relay_hosts", looked_up)
    return delivery


def test_what_is_broken_off_before_it_has_a_connection_is_not_sent(
    server: NextServer, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = broken_off_early(sender, monkeypatch)
    with pytest.raises(Defer, match="broken off"):
        delivery.send()
    assert server.messages == []
    assert server.connections == 1, "no other host is tried"


@pytest.mark.parametrize("is_over", [False, True])
def test_what_is_broken_off_leaves_alone_what_others_send(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, is_over: bool
) -> None:
    """Over a connection that its thread has opened before, or has sent it by."""
    relay = sender.destinations.of("x@y").relay
    sent = sender.delivery()
    sent.send()
    others = relay.kept.take("127.0.0.1")
    assert others is not None
    if is_over:
        sent.abort()
    else:
        delivery = broken_off_early(sender, monkeypatch)
        with pytest.raises(Defer, match="broken off"):
            delivery.send()
    assert others.noop()[0] == 250
    others.close()


def test_by_mx_all_hosts_of_the_domain_are_tried_in_their_order(server: NextServer) -> None:
    records = {
        "b.example MX": ["10 gone.invalid.", "20 localhost."],
        "null.example MX": ["0 ."],
        "broken.example MX": ["SERVFAIL"],
        "localhost A": ["127.0.0.1"],
    }
    with dns_server.answering(records), next_server.running("::1", server.port) as by_ipv6:
        by_mx = Sender(server, host=None)
        by_mx.send("a@b.example")
        by_mx.send("a@localhost")
        by_mx.send("a@[127.0.0.1]")
        by_mx.send("a@[IPv6:::1]")
        taken = [to for _, [to], _ in server.messages + by_ipv6.messages]
        assert sorted(taken) == ["a@[127.0.0.1]", "a@[IPv6:::1]", "a@b.example", "a@localhost"]
        assert by_ipv6.copies("a@[IPv6:::1]") == 1
        with pytest.raises(DeliveryFailed, match="takes no mail") as failed:
            by_mx.send("a@null.example")
        assert (failed.value.code, failed.value.server) == (556, "")
        for address, why in (
            ("a@nowhere.example", "does not exist"),
            ("a@[192.0.2]", "no address literal"),
            ("postmaster", "no domain whose server"),
        ):
            with pytest.raises(DeliveryFailed, match=why):
                by_mx.send(address)
        with pytest.raises(Defer, match="SERVFAIL"):
            by_mx.send("a@broken.example")


def test_what_the_dns_has_said_is_kept(server: NextServer) -> None:
    with dns_server.answering({"b.example MX": ["10 localhost."]}) as records:
        by_mx = Sender(server, host=None)
        by_mx.send()
        by_mx.send()
        records["b.example MX"] = ["SERVFAIL"]
        by_mx.send()
    assert len(server.messages) == 3


def test_an_mx_that_is_ourselves_is_final(server: NextServer) -> None:
    records = {"b.example MX": [f"10 {mx.own_name().lower()}."]}
    with dns_server.answering(records), pytest.raises(DeliveryFailed, match="loops back to this host"):
        Sender(server, host=None).send()
    assert server.lines == []


@pytest.mark.parametrize(
    ("replies", "told"),
    [
        ({"GREETING": "554 5.3.2 no mail here"}, "554 5.3.2 no mail here"),
        ({"GREETING": "450 4.3.2 later"}, "450 4.3.2 later"),
        ({"GREETING": "HTTP/1.1 400 Bad Request"}, "this is no SMTP: HTTP/1.1 400 Bad Request"),
        ({"STARTTLS": "454 4.7.0 TLS not available"}, "454 4.7.0 TLS not available"),
    ],
)
def test_what_a_server_says_before_the_message_is_told_in_its_words_and_is_not_final(
    server: NextServer, replies: dict[str, str | list[str]], told: str
) -> None:
    server.replies, server.extensions = replies, [*server.extensions, "STARTTLS"]
    with pytest.raises(Defer) as deferred:
        Sender(server, tls="required").send()
    assert str(deferred.value).startswith(told)
