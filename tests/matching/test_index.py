"""The index of routes finds what trying each of them would find."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable
from typing import cast
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maildefer.errors import RouteTooSlow
from maildefer.handling.patterns import compiled, regex_text
from maildefer.matching import index as matching
from maildefer.matching import process_client
from maildefer.matching.index import LONGEST, MatchLike, PatternTable, RouteIndex, limited, match_of
from maildefer.matching.literals import literal_runs

WORDS = ["dogs", "cats", "list-", "-add", "request", "@shop17", ".example", "K", "ſ", "a", "@"]
words = st.sampled_from(WORDS)


def joined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(parts, min_size=1, max_size=4).map("".join)


def wrapped(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        inner.map("({})".format),
        inner.map("(?:{})?".format),
        inner.map("(?:{})+".format),
        inner.map("(?:{}){{0,2}}".format),
        inner.map("(?={})".format),
        inner.map("(?!{}x)".format),
        inner.map("(?-i:{})".format),
        inner.map("({})*".format),
        st.tuples(inner, inner).map("(?:{0[0]}|{0[1]})".format),
        st.tuples(inner, inner).map("{0[0]}|{0[1]}".format),
        st.tuples(inner, inner).map("(?>{0[0]}){0[1]}".format),
        st.tuples(inner, inner).map("{0[0]}\\b{0[1]}".format),
    )


atoms = st.one_of(
    words.map(re.escape), st.sampled_from([".", ".+", ".*", "[a-z]+", "[dc]", "\\w*?", "[^@]+", "."])
)
patterns = joined(st.recursive(atoms, lambda inner: wrapped(joined(inner)), max_leaves=6))
addresses = st.one_of(
    joined(words), joined(words).map(str.upper), joined(words).map("{}\n".format), st.text(max_size=12)
)


FILLERS = [f"^filler{n}@x$" for n in range(13)]  # so many that an index is made


def tried_one_by_one(regexes: list[str], address: str) -> list[tuple[str, object]]:
    return [(regex, found.regs) for regex in regexes if (found := compiled(regex).match(address))]


def found_by_index(index: RouteIndex[str], address: str) -> list[tuple[str, object]]:
    return [(regex, found.regs) for regex in index.rows(address) if (found := compiled(regex).match(address))]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(patterns, min_size=1, max_size=5), st.lists(addresses, min_size=1, max_size=8))
@example(["list1@.+", "list11@.+"], ["LIST1@x", "\u212aist1@x"])
@example(["dogs1", "dogs"], ["dogs1\n", "dogs1", "dogs", ""])
@example(["kook"], ["\u212aoo\u212a", "KOOK"])
@example(["dogs.cats", "dogs[-x]cats", "dogs(-|x)cats", "dogs(x|-)?cats"], ["dogs-cats", "dogscats"])
@example(["(dogs)?(?=cats)c", "(cats)\\1"], ["catscats", "dogsc", "dogs"])
def test_the_index_finds_what_trying_each_finds_in_the_same_order(
    texts: list[str], subjects: list[str]
) -> None:
    regexes = [*dict.fromkeys(regex_text(text, {}) for text in texts), *FILLERS]
    index = RouteIndex([(regex, regex) for regex in regexes])
    for address in subjects:
        try:
            with patch.object(matching, "LIMIT_SECONDS", 0.2):
                expected = limited(lambda: tried_one_by_one(regexes, address), "table", address)  # noqa: B023
        except RouteTooSlow:
            continue
        assert found_by_index(index, address) == expected


MANY: list[tuple[str, Callable[[int], str], Callable[[int], str]]] = [
    ("prefix", lambda n: rf"^list{n}-(?P<op>[a-z]+)@(?P<host>.+)$", lambda n: f"list{n}-add@example.org"),
    ("domain", lambda n: rf"^(?P<user>.+)@shop{n}\.example$", lambda n: f"Ann@SHOP{n}.example"),
    ("middle", lambda n: rf"^(?P<user>.+)-in{n}@(?P<host>.+)$", lambda n: f"ann-in{n}@example.org"),
    ("capture", lambda n: rf"^(?P<name>posts{n})@(?P<host>.+)$", lambda n: f"posts{n}@example.org"),
    ("literal", lambda n: rf"^ann{n}@example\.org$", lambda n: f"ann{n}@example.org"),
]


@pytest.mark.parametrize(("regex", "address"), [m[1:] for m in MANY], ids=[m[0] for m in MANY])
@pytest.mark.slow
def test_of_a_thousand_routes_a_handful_are_tried(
    regex: Callable[[int], str], address: Callable[[int], str]
) -> None:
    regexes = [regex(n) for n in range(1000)]
    index = RouteIndex([(one, one) for one in regexes])
    tried = [index.rows(address(n)) for n in range(1000)]
    assert all(regexes[n] in tried[n] for n in range(1000))
    assert max(map(len, tried)) <= 40
    assert sum(map(len, tried)) <= 15 * 1000
    assert not index.rows("nobody@nowhere.test")


def test_routes_without_text_of_their_own_are_always_tried_in_their_place() -> None:
    regexes = [f"^list{n}@x$" for n in range(50)]
    regexes[20:20] = ["^(.+)@(.+)$"]
    index = RouteIndex([(regex, regex) for regex in regexes])
    assert index.rows("list7@x")[-1] == "^(.+)@(.+)$"
    assert next(iter(index.rows("list45@x"))) == "^(.+)@(.+)$"
    assert index.rows("zz@zz") == ("^(.+)@(.+)$",)


def test_an_address_beyond_ascii_tries_all() -> None:
    index = RouteIndex([(f"^k{n}k$", n) for n in range(50)])
    assert list(index.rows("\u212a1\u212a")) == list(range(50))


@pytest.mark.parametrize(
    ("regex", "runs"),
    [
        ("^(?P<list>Dogs)-(?P<op>add|del)@(?P<host>.+)$", ["dogs-", "@"]),
        (r"^a(b(c))d\.e$", ["abcd.e"]),
        ("^a?bc{2}d(?:ef)+(?:gh)*i$", ["b", "c", "d", "ef", "i"]),
        ("^ab|cd$", []),
        ("^ab.cd[e-g]hi$", ["ab", "cd", "hi"]),
        ("^(?!ab)cd(?=ef)g$", ["cd", "g"]),
        ("^straße$", ["stra", "e"]),
    ],
)
def test_what_a_match_must_contain_is_read_from_the_expression(regex: str, runs: list[str]) -> None:
    assert literal_runs(regex) == runs


@pytest.mark.parametrize("regex", ["^(?P<a>[a-z]+)-(?P<b>.+)@(?P<host>.+)$", "^a{3}b{2}$", "^(add|del)@x$"])
def test_ordinary_routes_are_matched_without_a_limit(regex: str) -> None:
    pattern = compiled(regex)
    assert match_of(pattern) == pattern.match


def test_where_the_tree_cannot_be_had_every_route_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(re, "_parser")
    assert literal_runs("^abc@x$") == []


def test_a_match_without_end_is_ended_and_names_route_and_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "LIMIT_SECONDS", 0.05)
    before = signal.getsignal(signal.SIGVTALRM)
    match = match_of(compiled("^(a+)+$"))
    with pytest.raises(RouteTooSlow) as caught:
        match("a" * 60 + "!")
    assert (caught.value.regex, caught.value.address) == ("^(a+)+$", "a" * 60 + "!")
    assert (signal.getsignal(signal.SIGVTALRM), signal.getitimer(signal.ITIMER_VIRTUAL)) == (
        before,
        (0.0, 0.0),
    )
    assert match("aaa")


def in_a_thread(work: Callable[[], object]) -> object:
    """What it returns, or the exception that it ends in."""
    ended: list[object] = []

    def run() -> None:
        try:
            ended.append(work())
        except (RouteTooSlow, ValueError) as fault:
            ended.append(fault)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return ended[0]


def test_outside_the_main_thread_nothing_is_tried_that_no_signal_could_end() -> None:
    tried: list[str] = []
    assert isinstance(
        in_a_thread(lambda: limited(lambda: tried.append("address"), "route", "address")), ValueError
    )
    assert tried == []


def test_a_match_without_end_is_ended_in_any_thread_with_the_same_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(matching, "LIMIT_SECONDS", 0.05)
    match = match_of(compiled("^(?P<it>(a+)+)$"))
    with pytest.raises(RouteTooSlow) as caught:
        match("a" * 60 + "!")
    with process_client.ended_afterwards():
        ended = in_a_thread(lambda: match("a" * 60 + "!"))
        found = in_a_thread(lambda: match("aaa"))
    assert isinstance(ended, RouteTooSlow)
    assert str(ended) == str(caught.value)
    assert cast(MatchLike, found).groupdict() == {"it": "aaa"}


def test_what_matches_an_address_is_kept_for_a_limited_number_of_addresses_of_limited_length() -> None:
    table = PatternTable([(compiled("^(?P<who>[a-z0-9]+)@x$"), "row")])
    known = table.matches("ann@x")
    assert known == [("row", {"who": "ann"})]
    assert table.matches("ann@x") is known
    for number in range(1000):
        assert len(table.matches(f"ann{number}@x")) == 1
    assert table.matches("ann@x") is not known
    long = "a" * LONGEST + "@x"
    assert table.matches(long) is not table.matches(long)


def test_an_address_over_the_length_that_is_reckoned_with_is_limited_in_any_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(matching, "LIMIT_SECONDS", 0.05)
    regexes = ["^(?P<all>-+)$", "^(.+)-(.+)-(.+)@x$", "^(?P<some>-+)[^-]*$"]
    table = PatternTable([(compiled(regex), regex) for regex in regexes])
    with process_client.ended_afterwards():
        assert isinstance(in_a_thread(lambda: table.matches("-" * 60_000)), RouteTooSlow)
        short = in_a_thread(lambda: table.matches("-" * LONGEST))
        assert process_client.pids() != []
    one = PatternTable([(compiled(regex), regex) for regex in (regexes[0], "^x", regexes[2])])
    address = "-" * (LONGEST + 1)
    with process_client.ended_afterwards():
        long = in_a_thread(lambda: one.matches(address))
    for found, length in ((short, LONGEST), (long, LONGEST + 1), (one.matches(address), LONGEST + 1)):
        assert found == [(regexes[0], {"all": "-" * length}), (regexes[2], {"some": "-" * length})]


def test_an_expression_that_does_not_compile_is_named() -> None:
    with pytest.raises(re.error, match=r"the route \^\(\(\$ is no regular expression: missing \)"):
        compiled("^(($")
