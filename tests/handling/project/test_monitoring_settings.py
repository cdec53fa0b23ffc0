"""`health_config` and its variable: what is understood, and what is refused."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from maildefer.errors import ConfigurationError
from maildefer.handling.decorators import keep
from maildefer.handling.project.monitoring_settings import (
    alert_command,
    dead_retention,
    health_address,
    kept_messages,
)


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


# Alerts


def alerts(argv: object, limits: object = None) -> dict[str, Any] | None:
    module = ModuleType("conf.settings")
    module.alerts = argv  # type: ignore[attr-defined]
    if limits is not None:
        module.alert_limits = limits  # type: ignore[attr-defined]
    return alert_command(module, "/p")


def test_without_alerts_there_is_no_command() -> None:
    assert alert_command(ModuleType("m"), "/p") is None
    assert alerts([]) is None


def test_a_program_with_a_folder_is_the_projects_and_another_is_in_the_path() -> None:
    assert alerts(["conf/page.sh", "a b"])["command"] == ["/p/conf/page.sh", "a b"]
    assert alerts(["/usr/bin/page"])["command"] == ["/usr/bin/page"]
    assert alerts(("mail", "-s"))["command"] == ["mail", "-s"]


def test_limits_have_defaults_of_which_each_may_be_another() -> None:
    found = alerts(["x"], {"oldest_seconds": 60})
    assert (found["oldest_seconds"], found["timeout_seconds"]) == (60, 30.0)


@pytest.mark.parametrize("argv", ["conf/page.sh --now", {"command": "x"}, [1], [""], ["a\0"], [["x"]]])
def test_what_is_no_command_is_refused(argv: object) -> None:
    with pytest.raises(ConfigurationError, match=r"alerts is .*: give a command as a list"):
        alerts(argv)


@pytest.mark.parametrize(
    "limits",
    [{"oldest": 5}, [], {"oldest_seconds": "15m"}, {"free_bytes": -1}, {"timeout_seconds": float("nan")}],
)
def test_a_limit_that_is_none_is_refused(limits: object) -> None:
    with pytest.raises(ConfigurationError, match="alert_limits"):
        alerts(["x"], limits)


# Retention


def retention(said: object) -> dict[str, float]:
    module = ModuleType("conf.settings")
    module.dead_retention = said  # type: ignore[attr-defined]
    return dead_retention(module, ["run/queue", "run/later"])


def test_dead_letters_are_kept_for_ever_unless_somebody_says_so() -> None:
    assert dead_retention(ModuleType("m"), ["run/queue"]) == {}


def test_a_time_is_for_all_queues_or_for_each() -> None:
    assert retention("30d") == {"run/queue": 30 * 86400.0, "run/later": 30 * 86400.0}
    assert retention({"run/./later": 7200}) == {"run/later": 7200.0}


@pytest.mark.parametrize(
    "said", ["30 days", "59m", 0, -1, True, {"run/none": "30d"}, {"run/queue": None}, "100w9"]
)
def test_a_retention_that_is_none_or_too_short_is_refused(said: object) -> None:
    with pytest.raises(ConfigurationError, match="dead_retention"):
        retention(said)


def test_messages_are_kept_for_a_time_for_all_queues_or_for_each_and_the_decorator_is_none() -> None:
    module = ModuleType("conf.settings")
    assert kept_messages(module, ["run/queue"]) == {}
    module.keep = keep  # type: ignore[attr-defined]  # imported there, for handlers
    assert kept_messages(module, ["run/queue"]) == {}
    module.keep = "7d"  # type: ignore[attr-defined]
    assert kept_messages(module, ["run/queue"]) == {"run/queue": 7 * 86400.0}
    module.keep = {"run/none": "7d"}  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="keep: no handlers for run/none"):
        kept_messages(module, ["run/queue"])
