"""Where mail goes, as `outgoing_config` says, and what it may not say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maildefer.errors import ConfigurationError
from maildefer.handling.outgoing import destinations as destinations_module
from maildefer.handling.outgoing.destinations import MX_CONNECTIONS, Destinations
from tests.support.in_project import enter_project


def limits(destinations: Destinations, recipient: str) -> list[tuple[str, str]]:
    closes, *own = destinations.of(recipient).uses
    assert closes.limit.closes
    return [(str(use.limit).partition(" by ")[0], use.key) for use in own]


def test_without_settings_all_goes_to_the_server_on_this_host() -> None:
    destinations = Destinations()
    relay = destinations.of("ann@b.example").relay
    assert (relay.hostname, relay.port, relay.tls) == ("127.0.0.1", 25, "opportunistic")
    assert destinations.only is not None
    assert destinations.only.name == "127.0.0.1:25"


def test_by_mx_each_domain_is_a_destination_in_any_case_of_its_name() -> None:
    destinations = Destinations({"host": None, "rate": "10/s"})
    assert destinations.only is None
    assert destinations.of("ann@B.example.").name == "b.example"
    assert limits(destinations, "ann@B.example") == [
        (f"{MX_CONNECTIONS} at a time", "b.example"),
        ("10 in 1s", "b.example"),
    ]


def test_by_mx_it_takes_dnspython(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destinations_module, "_has_dns", lambda: False)
    Destinations({"host": "a"})
    for config in ({"host": None}, {"destinations": {"b.example": {"host": None}}}):
        with pytest.raises(ConfigurationError, match="takes dnspython"):
            Destinations(config)


def test_a_relative_socket_is_in_the_projects_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_project(tmp_path, monkeypatch)
    destinations = Destinations({"host": "run/lmtp", "lmtp": True})
    assert destinations.of("a@b.example").relay.hostname == str(tmp_path / "run/lmtp")


def test_a_domain_may_have_limits_of_its_own_and_a_server_of_its_own() -> None:
    destinations = Destinations(
        {
            "host": "mail.example",
            "username": "u",
            "password": "p",
            "connections": 9,
            "destinations": {
                "Big.example": {"connections": 2},
                "inside.example": {"host": "/run/lmtp", "lmtp": True},
                "mx.example": {"host": None},
            },
        }
    )
    assert destinations.of("a@b.example").name == "mail.example:25"
    assert limits(destinations, "a@b.example") == [("9 at a time", "mail.example:25")]
    big = destinations.of("a@big.example")
    assert (big.name, big.relay.password) == ("mail.example:25", "p"), "it goes by the same server"
    assert limits(destinations, "a@big.example") == [("2 at a time", "big.example")]
    inside = destinations.of("a@inside.example")
    assert (inside.name, inside.relay.lmtp, inside.relay.password) == ("inside.example", True, None)
    by_mx = destinations.of("a@mx.example").relay
    assert (by_mx.hostname, by_mx.password) == (None, None), "no password goes to another server"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("mail.example", "give a mapping"),
        ({"hots": "a"}, "has 'hots': give some of host, port"),
        ({"port": "25"}, "port is '25': give int"),
        ({"port": True}, "port is True: give int"),
        ({"port": 0}, "from 1 to 65535"),
        ({"host": ""}, "a host's name"),
        ({"host": "a\r\nb"}, "a host's name"),
        ({"host": "/run/x"}, "add lmtp=True"),
        ({"host": "run/x"}, "add lmtp=True"),
        ({"host": "127.0.0.1:25"}, "the port beside it"),
        ({"host": "smtp://mail.example"}, "the port beside it"),
        ({"destinations": {"@x.example": {}}}, "give a recipient's domain"),
        ({"destinations": {"*.x.example": {}}}, "give a recipient's domain"),
        ({"destinations": {"": {}}}, "give a recipient's domain"),
        ({"host": None, "lmtp": True}, "LMTP goes to one server"),
        ({"tls": "maybe"}, "give one of off, opportunistic, required, verified"),
        ({"ssl": True, "tls": "required"}, "ssl goes neither with starttls"),
        ({"ssl": True, "tls": "off"}, "leave out tls='off', or ssl"),
        ({"hostname": "mx 1"}, "by which others know this host"),
        ({"hostname": 1}, "by which others know this host"),
        ({"destinations": {"a.example": {"hostname": "mx1"}}}, "has 'hostname': give some of host.*rate$"),
        ({"username": "u"}, "username and password, or neither"),
        ({"username": "u", "password": "p", "tls": "off"}, "within TLS only"),
        ({"host": None, "username": "u", "password": "p"}, "for one server"),
        ({"connections": 0}, "0 at a time: give a number from 1"),
        ({"rate": "often"}, "is no rate"),
        ({"destinations": {"a.example": {"rate": "0/s"}}}, r"\['destinations'\]\['a.example'\]: '0/s'"),
        ({"destinations": {"a.example": "b"}}, r"\['a.example'\] is 'b': give a mapping"),
        ({"destinations": ["a.example"]}, "destinations is .*: give a mapping"),
    ],
)
def test_settings_that_mean_nothing_are_refused(config: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Destinations(config)
