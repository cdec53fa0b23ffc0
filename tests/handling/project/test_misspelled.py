from __future__ import annotations

import re
from types import ModuleType

import pytest

from maildefer.handling.project import settings
from maildefer.handling.project.misspelled import KNOWN, misspelled


def told(**names: object) -> list[tuple[str, str]]:
    module = ModuleType("conf.settings")
    vars(module).update(names)
    return list(misspelled(module))


def test_every_setting_of_the_table_is_known() -> None:
    assert settings.__doc__ is not None
    first_cells = [row.split("|")[1] for row in settings.__doc__.splitlines() if row.startswith("| `")]
    table = {name for cell in first_cells for name in re.findall(r"`(\w+)", cell)}
    assert table | {"relay", "receiver"} == KNOWN


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("relay_confg", "relay_config"),
        ("RELAY_CONFIG", "relay_config"),
        ("handler", "handlers"),
        ("max_attempt", "max_attempts"),
        ("handler_timeout_second", "handler_timeout_seconds"),
    ],
)
def test_a_name_that_is_nearly_a_settings_is_told(name: str, meant: str) -> None:
    assert told(**{name: 1}) == [(name, meant)]


@pytest.mark.parametrize(
    "name", ["relay_host", "database_config", "DATABASES", "_workers", "blog", "timeout"]
)
def test_an_applications_own_name_is_not_told(name: str) -> None:
    assert told(**{name: 1}) == []


def test_the_first_half_of_a_settings_name_is_told_of_a_mapping() -> None:
    assert told(outgoing={"host": "x"}) == [("outgoing", "outgoing_config")]
    assert told(outgoing=True, template="x") == []


def test_what_is_imported_or_can_be_called_is_an_applications_own() -> None:
    assert told(handler=lambda: None, notice=ModuleType("notice"), Workers=int) == []


def test_one_of_many_beside_the_setting_of_them_is_no_mistake() -> None:
    assert told(queues={"run/queue": []}, queue="run/queue") == []
    assert told(relay_config={}, relay_confg={}) == [("relay_confg", "relay_config")]
