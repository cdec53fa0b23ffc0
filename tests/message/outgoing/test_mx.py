"""Which hosts are asked to take a domain's mail, by a real DNS server (RFC 5321, section 5.1)."""

from __future__ import annotations

import importlib
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import dns.resolver
import pytest

from maildefer import log_context
from maildefer.handling.outcomes import Buried
from maildefer.handling.results import outcome_of
from maildefer.mail import MailRequest
from maildefer.message.outgoing.kept_relay import KeptRelay
from maildefer.message.outgoing.mx import RelayUnresolved, exchangers
from maildefer.message.outgoing.relay import Relay
from maildefer.message.smtp_error import SMTPError
from tests.support import dns_server


@pytest.fixture(scope="module", autouse=True)
def _dns() -> Iterator[None]:
    records = {
        "three.example MX": ["20 second.example.", "10 First.example.", "30 third.example."],
        "plain.example A": ["192.0.2.1"],
        "null.example MX": ["0 ."],
        "ours.example MX": ["10 us.test.", "20 backup.example."],
        "backed.example MX": ["10 main.example.", "20 us.test.", "20 peer.example.", "30 last.example."],
        "ill.example MX": ["SERVFAIL"],
        "xn--bcher-kva.example MX": ["10 mx.example."],
    }
    with dns_server.answering(records):
        yield


@pytest.fixture(autouse=True)
def _no_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str, port: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)


def test_the_preferred_host_is_first() -> None:
    assert exchangers("three.example") == ["first.example", "second.example", "third.example"]


def test_a_domain_without_mx_takes_its_mail_itself() -> None:
    assert exchangers("plain.example") == ["plain.example"]


@pytest.mark.parametrize(
    ("domain", "code", "said"),
    [
        ("null.example", 556, "null MX"),
        ("missing.example", 550, "does not exist"),
        ("ours.example", 554, "loops back"),
        ("[300.1.1.1]", 501, "no address literal"),
        ("[IPv6:zz]", 501, "no address literal"),
    ],
)
def test_where_no_mail_can_arrive_it_is_final(domain: str, code: int, said: str) -> None:
    with pytest.raises(RelayUnresolved, match=said) as refused:
        exchangers(domain, ["us.test"])
    assert refused.value.final_code == code


def test_a_host_that_only_the_system_knows_takes_its_mail_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda name, port: [("found",)])
    assert exchangers("in-hosts.example") == ["in-hosts.example"]


def test_a_backup_passes_mail_on_only_to_hosts_that_are_preferred_to_it() -> None:
    assert exchangers("backed.example", ["us.test"]) == ["main.example"]


@pytest.mark.parametrize(
    ("literal", "address"), [("[192.0.2.7]", "192.0.2.7"), ("[IPv6:2001:db8::7]", "2001:db8::7")]
)
def test_an_address_literal_is_its_address(literal: str, address: str) -> None:
    assert exchangers(literal) == [address]


def test_a_name_server_that_fails_is_no_word_on_the_domain() -> None:
    with pytest.raises(dns.resolver.NoNameservers):
        exchangers("ill.example")


def test_names_beyond_ascii_are_asked_for_in_the_form_of_the_dns() -> None:
    assert exchangers("bücher.example") == ["mx.example"]


def test_in_a_handler_a_domain_that_takes_no_mail_is_a_final_reply() -> None:
    request = MailRequest("p", "a@x", "r@y", b"")
    request.key = "1.M1P1Q1Rdeadbeef.h,S=1"

    def send(request: MailRequest) -> None:
        log_context.begin_handler(request, "m.START")
        Relay(host=None).deliver(b"x\r\n", To="a@null.example", From="s@x")

    with pytest.raises(SMTPError, match="556") as refused:
        log_context.run_handlers(send, request)
    assert isinstance(refused.value, RelayUnresolved)
    assert isinstance(outcome_of(refused.value, "m"), Buried)


SLOW = """
import threading
threading.loading.set()
assert threading.go.wait(30)
class LRUCache: ...
class Resolver: cache = None
def get_default_resolver(): return Resolver
"""


def test_a_thread_waits_for_the_resolver_that_another_one_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dns").mkdir()
    (tmp_path / "dns/__init__.py").touch()
    (tmp_path / "dns/resolver.py").write_text(SLOW)
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "dns"}
    for name in before:
        del sys.modules[name]
    monkeypatch.syspath_prepend(str(tmp_path))
    loading, go = threading.Event(), threading.Event()
    monkeypatch.setattr(threading, "loading", loading, raising=False)
    monkeypatch.setattr(threading, "go", go, raising=False)
    monkeypatch.setattr(Relay, "relay_hosts", lambda relay, To: ["mx.b.example"])
    loads = threading.Thread(target=importlib.import_module, args=("dns.resolver",))
    loads.start()
    try:
        assert loading.wait(30)
        threading.Timer(0.2, go.set).start()
        assert KeptRelay(None).relay_hosts("a@b.example") == ["mx.b.example"]
    finally:
        go.set()
        loads.join()
        for name in [name for name in sys.modules if name.partition(".")[0] == "dns"]:
            del sys.modules[name]
        sys.modules.update(before)
