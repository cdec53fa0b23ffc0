"""The options of the front end: one declaration for its command line and its settings."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from maildefer.intake import options
from maildefer.intake.http import options as http_options
from maildefer.intake.options import FrontEndOptions, address_text, setting_names
from maildefer.intake.settings import arguments

DEFAULTS: dict[str, Any] = {each.name: each.default for each in fields(FrontEndOptions)}
BY_SMTP = ["--socket-fd", "3", "--queue", "q"]
BY_HTTP = ["--socket-fd", "3", "--queue", "q=run/q", "--token-file", "t"]


@pytest.mark.parametrize(
    ("scheme", "name", "text"),
    [
        ("smtps", ("::1", 465, 0, 0), "smtps://[::1]:465"),
        ("http", ("127.0.0.1", 80), "http://127.0.0.1:80"),
        ("lmtp", "/run/lmtp", "lmtp:/run/lmtp"),
        ("http", "/run/http", "unix:/run/http"),
    ],
)
def test_an_address_is_told_as_it_is_written_in_a_url(scheme: str, name: object, text: str) -> None:
    assert address_text(scheme, name) == text


def another(name: str) -> object:
    """A value that is not the default."""
    default = DEFAULTS[name]
    if isinstance(default, bool):
        return True
    return "other" if isinstance(default, str) else default + 7


@pytest.mark.parametrize("http", [False, True], ids=["smtp", "http"])
def test_what_settings_say_of_each_option_reaches_the_process(http: bool) -> None:
    said = {name: another(name) for name in setting_names(http=http)}
    argv = arguments(said, http=http)
    parsed = http_options.parse(BY_HTTP + argv) if http else options.parse(BY_SMTP + argv)
    assert {name: getattr(parsed, name) for name in said} == said


def test_without_options_each_has_its_default_but_the_host_its_name() -> None:
    parsed = options.parse(BY_SMTP)
    assert parsed.hostname
    found = {name: getattr(parsed, name) for name in DEFAULTS}
    assert {**found, "hostname": ""} == DEFAULTS


@pytest.mark.parametrize("http", [False, True], ids=["smtp", "http"])
def test_a_limit_that_settings_turn_off_by_zero_is_off(http: bool) -> None:
    assert arguments({"max_connections_per_client": 0}, http=http) == ["--max-connections-per-client=0"]


def test_what_settings_leave_out_or_deny_is_no_option() -> None:
    assert arguments({"policy": None, "tls_required": False, "auth_required": True}) == ["--auth-required"]


def test_networks_may_come_as_a_list_by_http_too() -> None:
    assert arguments({"exempt_networks": ["::1", "unix"]}, http=True) == ["--exempt-networks=::1 unix"]
