"""The schemas of `--json`: each command has one, it is strict and describes everything, and what is kept to it fits."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from maildefer.cli.schemas import schema
from maildefer.cli.schemas.schema import Schema, schema_file, schema_text
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName
from maildefer.maildir.push import Pusher
from maildefer.maildir.reasons import reason_path
from tests.cli.conftest import Maildefer
from tests.cli.manual.test_examples import PROGRAM, leaves
from tests.support.json_lines import lines_of

WORDS = set(
    "$schema title description $defs $ref oneOf type enum properties required additionalProperties items "
    "minItems maxItems".split()
)
UNITS = {"seconds": "seconds", "bytes": "bytes", "time": "unix seconds", "since": "unix seconds"}


def loaded(path: str) -> Any:
    command: Any = PROGRAM
    for name in path.split():
        command = command.get_command(None, name)
    return command


WITH_JSON = [path for path in leaves() if any(one.name == "json" for one in loaded(path).params)]


def rules(command: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each schema in a command's schema, with its path."""
    level = [("", json.loads(schema_text(command)))]
    while level:
        path, rule = level.pop()
        yield path, rule
        inner = [(f"{path}.{name}", one) for name, one in rule.get("properties", {}).items()]
        inner += [(f"{path}#{name}", one) for name, one in rule.get("$defs", {}).items()]
        inner += [(f"{path}.*", rule[word]) for word in ("items", "additionalProperties") if rule.get(word)]
        level += inner


def test_each_command_with_json_has_a_schema_and_each_schema_a_command(maildefer: Maildefer) -> None:
    assert len(WITH_JSON) > 10
    for path in WITH_JSON:
        printed = maildefer(*path.split(), "--json-schema")
        assert (printed.code, printed.err) == (0, "")
        assert path in json.loads(printed.out)["title"]
    files = {os.path.basename(schema_file(path)) for path in WITH_JSON}
    assert files == {name for name in os.listdir(schema._FOLDER) if name.endswith(".json")}


@pytest.mark.parametrize("command", WITH_JSON)
def test_a_schema_is_one_that_allows_nothing_else_and_describes_everything_with_its_unit(
    command: str,
) -> None:
    Draft202012Validator.check_schema(json.loads(schema_text(command)))
    found = dict(rules(command))
    for path, rule in found.items():
        assert set(rule) <= WORDS, path
        if "object" in rule.get("type", ()):
            assert "additionalProperties" in rule, path
            assert set(rule.get("required", ())) <= rule.get("properties", {}).keys(), path
        if "array" in rule.get("type", ()):
            assert "items" in rule, path
        if not path.endswith(".*"):
            told = rule.get("description") or found[f"#{rule['$ref'].rpartition('/')[2]}"]["description"]
            assert re.match(r"[A-Z`0-9].*\.$", told), (path, told)
            last = path.rpartition(".")[2].rpartition("_")[2]
            if re.search("number|integer", str(rule.get("type"))) and last in UNITS:
                assert UNITS[last] in told.lower(), (path, told)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(0.1, 0.9) | st.text(),  # 1.0 is an integer, too
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
DEFINITIONS = json.loads(schema_text("status"))["$defs"]


@st.composite
def near(draw: Any, rule: dict[str, Any]) -> Any:
    """What the schema describes, as somebody writes it who knows it by half."""
    rule = DEFINITIONS[rule["$ref"].rpartition("/")[2]] if "$ref" in rule else rule
    if draw(st.integers(0, 9)) == 0:
        return draw(JSON)
    kind = draw(st.sampled_from(rule["type"] if isinstance(rule["type"], list) else [rule["type"]]))
    if "enum" in rule:
        return draw(st.sampled_from([*rule["enum"], "other"]))
    if kind == "array":
        return draw(st.lists(near(rule["items"]), max_size=2))
    if kind == "object" and rule.get("properties"):
        names = draw(st.lists(st.sampled_from(sorted(rule["properties"])), max_size=6, unique=True))
        return {name: draw(near(rule["properties"][name])) for name in names} | draw(
            st.dictionaries(st.text(max_size=3), JSON, max_size=1)
        )
    if kind == "object":
        return draw(st.dictionaries(st.text(max_size=3), near(rule["additionalProperties"]), max_size=2))
    plain = {
        "string": st.text(),
        "integer": st.integers(),
        "number": st.floats(-9, 9),
        "boolean": st.booleans(),
    }
    return draw(plain.get(kind, st.none()))


@given(st.data())
@pytest.mark.slow
def test_whatever_another_process_wrote_fits_once_it_is_fitted(data: Any) -> None:
    definition = data.draw(st.sampled_from(["process_status", "served_queue"]))
    wrote = data.draw(near(DEFINITIONS[definition]))
    fitted = Schema("status").fitted(wrote, definition)
    rule = {**DEFINITIONS[definition], "$defs": DEFINITIONS}
    validator = Draft202012Validator(rule)
    assert list(validator.iter_errors(fitted)) == []
    if isinstance(wrote, dict) and not list(validator.iter_errors(wrote)):
        assert fitted == wrote, "what fits is left as it is"


def test_what_does_not_fit_is_left_out_and_the_rest_stays() -> None:
    wrote = {"workers": [{"pid": 1, "state": "odd", "newer": 1}, 7], "up_seconds": True, "trouble": None}
    assert Schema("status").fitted(wrote, "process_status") == {"workers": [{"pid": 1}], "trouble": None}
    assert Schema("status").fitted(None, "process_status") is None


def test_a_status_of_another_version_on_the_mount_is_told_as_far_as_it_is_known(
    maildefer: Maildefer, queue: Layout
) -> None:
    lease = "host-0a1b2c-4242-0123456789ab"
    with open(f"{queue.leases}/{lease}.7", "w") as file:
        json.dump({"host": "host", "boot_id": 5, "pid": "x", "newer": []}, file)
    told = {
        "state": "served",
        "faults": 5,
        "newer": {"a": 1},
        "workers": [1, {"state": "busy", "seconds": "x"}],
    }
    told |= {"rate_per_second": 1e308, "reload": [], "paused_for": "EIO", "paused_seconds": 3}
    with open(f"{queue.status}/{lease}.json", "w") as file:
        json.dump(told, file)
    ended = maildefer("status", queue.path, "--json")
    [serving] = lines_of("status", ended.out)[0]["serving"]
    known = {"state": "served", "workers": [{"state": "busy"}], "rate_per_second": 1e308}
    assert serving["status"] == known | {"paused_for": "EIO", "paused_seconds": 3}
    assert (serving["workers"], serving["busy"]) == (1, 1)


def test_a_reason_that_others_wrote_is_told_as_far_as_it_is_one(maildefer: Maildefer, queue: Layout) -> None:
    key = Pusher(queue, host="h").push(lambda stem: [b"Subject: x\n\n"])
    dead = EntryName.parse(key).returned()
    os.rename(f"{queue.new}/{key}", f"{queue.dead_new}/{dead.waiting()}")
    with open(reason_path(queue, dead), "w") as file:
        json.dump({"reason": "odd", "time": "now", "newer": 1, "error": None}, file)
    [told] = lines_of("dead show", maildefer("dead", "show", queue.path, key, "--json").out)
    assert (told["reason"], told["error"]) == ("odd", None)
    assert "time" not in told
