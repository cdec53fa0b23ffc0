from __future__ import annotations

import re

import pytest

from maildefer.handling.patterns import compiled, regex_text


def test_captures_become_named_groups_between_anchors() -> None:
    captures = {"list": "[a-z]+", "op": "add", "host": r"x\.org"}
    assert regex_text("(list)-(op)@(host)", captures) == r"^(?P<list>[a-z]+)-(?P<op>add)@(?P<host>x\.org)$"


def test_a_word_in_parentheses_without_a_capture_stays_an_unnamed_group() -> None:
    text = regex_text("(joe|ann)@(host)", {"host": ".+"})
    assert text == "^(joe|ann)@(?P<host>.+)$"
    found = compiled(text).match("ann@x")
    assert found is not None
    assert found.groupdict() == {"host": "x"}


def test_the_rest_of_a_pattern_is_a_regular_expression() -> None:
    assert compiled(regex_text(".+", {})).match("anything@at.all")
    assert compiled(regex_text("a@b.c", {})).match("a@bxc")


def test_captures_are_replaced_in_their_order() -> None:
    assert regex_text("(outer)", {"outer": "a(inner)", "inner": "b"}) == "^(?P<outer>a(?P<inner>b))$"
    assert regex_text("(outer)", {"inner": "b", "outer": "a(inner)"}) == "^(?P<outer>a(inner))$"


def test_addresses_match_in_any_case_and_from_end_to_end() -> None:
    pattern = compiled(regex_text("post@osb", {}))
    assert pattern.match("POST@OSB")
    assert not pattern.match("xpost@osb")
    assert not pattern.match("post@osbx")


def test_a_broken_pattern_is_refused_when_it_is_compiled() -> None:
    with pytest.raises(re.error):
        compiled(regex_text("(((", {}))
