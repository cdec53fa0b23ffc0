"""`health_config` and its variable: what is understood, and what is refused."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from maildefer.errors import ConfigurationError
from maildefer.handling.project.monitoring_settings import health_address


def address(config: object = None, variable: str = "") -> dict[str, Any] | None:
    module = ModuleType("conf.settings")
    module.health_config = config  # type: ignore[attr-defined]
    return health_address(module, {"MAILDEFER_HEALTH": variable})


def test_without_a_setting_there_is_none() -> None:
    assert address() is None


@pytest.mark.parametrize(
    "config", [{"port": 8827}, {"host": "::", "port": 1}, {"socket": "run/h", "socket_mode": "660"}]
)
def test_an_address_is_taken_as_it_is(config: dict[str, object]) -> None:
    assert address(config) == config


def test_the_variable_comes_before_the_setting() -> None:
    assert address({"port": 1}, "0.0.0.0:8827") == {"host": "0.0.0.0", "port": 8827}
    assert address({"port": 1}, "[::1]:8827") == {"host": "::1", "port": 8827}
    assert address({"port": 1}, ":8827") == {"host": "127.0.0.1", "port": 8827}
    assert address({"port": 1}, "run/h.sock") == {"socket": "run/h.sock"}
    assert address({"port": 1}, "off") is None


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "give a mapping such as"),
        ("127.0.0.1:8827", "give a mapping such as"),
        ({"prot": 1}, "give a mapping such as"),
        ({"port": "8827"}, "port is '8827': give a number"),
        ({"port": True}, "give a number"),
        ({"port": 70000}, "from 1 to 65535"),
        ({"port": 0}, "from 1 to 65535"),
        ({"host": "::1"}, "give a port or a socket, not both"),
        ({"port": 1, "socket": "x"}, "give a port or a socket, not both"),
        ({"socket": ""}, "give a text"),
        ({"socket": "x", "socket_mode": "rw"}, "give digits"),
    ],
)
def test_what_is_no_address_is_refused(config: object, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        address(config)


@pytest.mark.parametrize("text", ["8827", "on", "host:port", "1:2:", "127.0.0.1:70000"])
def test_a_variable_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="MAILDEFER_HEALTH"):
        address(variable=text)


def test_what_it_needs_and_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maildefer.handling.project.monitoring_settings.find_spec", lambda name: None)
    with pytest.raises(
        ConfigurationError, match=r"needs aiohttp and prometheus_client: install maildefer\[web\]"
    ):
        address({"port": 1})
