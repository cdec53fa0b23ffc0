"""Names of entries and leases."""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from maildefer.host import identity
from maildefer.maildir import names
from maildefer.maildir.names import EntryName, Owner
from maildefer.maildir.system import token
from tests.support.queues import LABEL, START, World

KEY = "1700000000.M000123P17Q1Rab.host-0a1b2c,S=22"
OWNER = f"{LABEL}-17-abcdef012345.18.1"
UNIQUE = "0123abcdef"

counters = st.integers(0, 10**9)
plain_keys = st.from_regex(
    r"[0-9]{1,10}\.[A-Za-z0-9_-]{1,40}(,S=[0-9]{1,9})?(,W=[0-9]{1,3})?", fullmatch=True
)
# Any name that a directory can hold, as os.listdir gives it: bytes that are no UTF-8 come as surrogates.
foreign_names = (
    st.binary(min_size=1, max_size=255)
    .filter(lambda raw: b"\0" not in raw and b"/" not in raw and not raw.startswith(b"."))
    .map(lambda raw: raw.decode("utf-8", "surrogateescape"))
)
# … and those that look like ours, or nearly.
parts = st.sampled_from(
    (
        *("u=0123456789", "u=012345678", "u=012345678x", "u=", "u=abcdef0123"),
        *("a=1", "a=0", "a=01", "c=2", "n=3", "n=3000000000000", "d=9", "f=4", "h=5", "h=0"),
        *("S=1", "a=", "f=", "=", "x", "a=²"),
    )
)
likely_names = st.builds(
    lambda head, fields, info: ",".join([head, *fields]) + info,
    st.sampled_from(("X", "", "12:30", "Y,a=1")),
    st.lists(parts, max_size=5),
    st.sampled_from(("", ":2,", ":2,S", ":2,S:1,x", ":1,pop-1-a", ":x", ":", f":1,{OWNER}")),
).filter(lambda name: name not in ("", ",") and not name.startswith("."))
any_names = foreign_names | likely_names | plain_keys
entries = st.builds(
    lambda key, apart, f, h, a, c, n: EntryName(
        key=key, unique=apart[0], outputs=apart[1], failures=f, handoffs=h, attempts=a, crashes=c, returns=n
    ),
    plain_keys,
    st.sampled_from((("", ""), (UNIQUE, ""), ("", UNIQUE), ("", f"{UNIQUE}h"))),
    *[counters] * 5,
)


@given(entries)
@pytest.mark.slow
def test_a_waiting_name_is_read_back_as_it_was_built(entry: EntryName) -> None:
    assert EntryName.parse(entry.waiting()) == entry


@given(entries, st.integers(1, names.MAX_DUE))
def test_a_deferred_name_tells_its_due_time_and_is_a_generation_on(entry: EntryName, due: int) -> None:
    assert EntryName.parse(entry.deferred(due)) == replace(entry, returns=entry.returns + 1, due=due)


@pytest.mark.invariant(5)
@given(entries)
def test_a_claimed_name_charges_the_attempt_and_nothing_else(entry: EntryName) -> None:
    assert EntryName.parse(entry.claimed(OWNER)) == replace(entry, attempts=entry.attempts + 1)


@given(
    entries,
    st.sampled_from(("web", "a" * 60, "x--y", "ÄÖ", "1.2.3.4")),
    st.integers(1, 2**22),
    st.integers(1, 10**18),
)
@pytest.mark.slow
def test_a_claimed_name_tells_its_owner(entry: EntryName, host: str, pid: int, seq: int) -> None:
    world = World(pid=pid)
    lease = names.lease_name(identity.label(host, host), world.system)
    assert names.owner_of(entry.claimed(f"{lease}.{pid}.{seq}")) == Owner(lease, pid, seq)


@pytest.mark.parametrize(
    "name",
    [
        "X",
        "X:2,S",
        "X:2,",
        "X:1,",
        "X:1,pop-17-abcdef",
        f"X:2,{OWNER}",
        f"X:1,{OWNER}x",
        f"X:1,{LABEL}-17-abcdef012345.18",
        f"X:1,{OWNER}\n",
        "X:1,HOST-17-abcdef012345.18.1",
    ],
)
def test_names_of_mail_readers_and_of_pop_have_no_owner(name: str) -> None:
    assert names.owner_of(name) is None


def test_fields_at_zero_are_left_out() -> None:
    assert EntryName(key=KEY).waiting() == KEY
    assert EntryName(key=KEY, attempts=3, returns=2).waiting() == f"{KEY},a=3,n=2"


def test_the_fields_stand_in_the_order_of_the_design() -> None:
    entry = EntryName(key=KEY, failures=4, handoffs=5, attempts=1, crashes=2, returns=3)
    assert entry.waiting() == f"{KEY},f=4,h=5,a=1,c=2,n=3"
    assert entry.claimed("L.1.2") == f"{KEY},f=4,h=5,a=2,c=2,n=3:1,L.1.2"
    assert entry.deferred(9) == f"{KEY},f=4,h=5,a=1,c=2,n=4,d=9"
    assert entry.deferred(9, failures=1) == f"{KEY},f=5,h=5,a=1,c=2,n=4,d=9"
    assert entry.handed_on().waiting() == f"{KEY},h=6,c=2,n=4"
    assert replace(entry, unique=UNIQUE).waiting() == f"{KEY},u={UNIQUE},f=4,h=5,a=1,c=2,n=3"


def test_a_name_of_an_older_version_has_no_failures_and_no_handoffs() -> None:
    assert EntryName.parse(f"{KEY},a=3,c=1,n=4") == EntryName(key=KEY, attempts=3, crashes=1, returns=4)


@given(entries, st.integers(1, names.MAX_DUE))
@pytest.mark.slow
def test_an_older_version_carries_failures_and_handoffs_along_as_the_key_and_counts_the_rest(
    entry: EntryName, due: int
) -> None:
    """It takes its own fields off the end, `d`, `n`, `c` and `a`, and what is left is the key."""
    entry = replace(entry, failures=entry.failures + 1, handoffs=entry.handoffs + 1)
    carried = f"{entry.unique_key},f={entry.failures},h={entry.handoffs}"
    older = re.fullmatch(r"(.*?)(?:,a=(\d+))?(?:,c=(\d+))?(?:,n=(\d+))?(?:,d=(\d+))?", entry.deferred(due))
    assert older is not None
    counters = [int(text or 0) for text in older.groups()[1:]]
    assert older[1] == carried
    assert counters == [entry.attempts, entry.crashes, entry.returns + 1, due]


def test_a_name_of_another_writer_counts_as_zero_everywhere() -> None:
    entry = EntryName.parse("1700000000.17.host:2,S")
    assert entry == EntryName(key="1700000000.17.host")


def test_unknown_fields_are_carried_along() -> None:
    entry = EntryName.parse("X,S=12,W=13,z=9,a=2")
    assert entry == EntryName(key="X,S=12,W=13,z=9", attempts=2)


@given(any_names)
def test_a_due_time_read_alone_is_that_of_the_whole_name(name: str) -> None:
    assert names.due_of(name) == EntryName.parse(name).due


@given(entries, st.integers(1, names.MAX_DUE), st.sampled_from(["", ",n=1", ":2,S", ",d=7", ",d=07", "é"]))
@pytest.mark.slow
def test_a_due_time_is_read_alone_whatever_stands_behind_it(entry: EntryName, due: int, tail: str) -> None:
    name = entry.deferred(due) + tail
    assert names.due_of(name) == EntryName.parse(name).due


@given(any_names, any_names)
@pytest.mark.slow
def test_two_names_have_one_key_and_counters_only_if_they_differ_in_their_info(one: str, other: str) -> None:
    if EntryName.parse(one) == EntryName.parse(other):
        assert one.partition(":")[0] == other.partition(":")[0]


@given(any_names)
@pytest.mark.slow
def test_what_is_carried_is_read_back_through_every_transition(name: str) -> None:
    entry = names.with_usable_key(EntryName.parse(name), LABEL, World().system)
    held = EntryName.parse(entry.claimed(OWNER))
    assert held == replace(entry, attempts=entry.attempts + 1, due=None)
    for back in (
        held.returned(),
        held.returned(attempts=-1),
        held.returned(failures=1),
        held.returned(crashes=1),
        held.handed_on(),
        EntryName(key=held.key),
    ):
        assert EntryName.parse(back.waiting()) == back
        assert EntryName.parse(back.deferred(7)).key == entry.key


@given(any_names)
@pytest.mark.slow
def test_every_name_fits_into_255_bytes_with_all_that_is_ever_added(name: str) -> None:
    entry = names.with_usable_key(
        EntryName.parse(name), identity.label("a" * 30, "x"), World(pid=4_194_304).system
    )
    entry = replace(entry, failures=99, handoffs=1000, attempts=99999, crashes=9, returns=99999)
    lease = names.lease_name(identity.label("a" * 30, "x"), World(pid=4_194_304).system)
    apart = names.with_unique(entry, UNIQUE, identity.label("a" * 30, "x"), World(pid=4_194_304).system)
    for each in (entry, apart):
        assert len(each.claimed(f"{lease}.4194304.{10**9}").encode("utf-8", "surrogateescape")) <= 255
        assert len(f"{each.unique_key},n=999999.json".encode("utf-8", "surrogateescape")) <= 255


@pytest.mark.parametrize(("due", "more"), [(None, 0), (9_999_999_999, len(",t=9999999999"))])
def test_no_own_name_exceeds_200_bytes_and_a_time(due: int | None, more: int) -> None:
    world = World(seconds=9_999_999_999.999999, pid=4_194_304)
    host = identity.label("a" * 30, "x")
    key = f"{names.fresh_stem(host, replace(world.system, token=token), due)},S={64 << 20}"
    assert len(key) + len(",p=9,q=0123456789abcdef") <= names.MAX_SHARED_KEY_BYTES
    entry = EntryName(
        key=key, failures=99, handoffs=1000, attempts=99999, crashes=9, returns=99999, due=names.MAX_DUE
    )
    lease = names.lease_name(host, replace(world.system, token=token))
    apart = replace(entry, unique=UNIQUE), replace(entry, outputs=f"{UNIQUE}h")
    for each, most in zip((entry, *apart), (200 + more, 213 + more, 214 + more), strict=True):
        assert len(each.claimed(f"{lease}.4194304.{10**9}")) <= most
        assert len(each.deferred(names.MAX_DUE)) <= most


@pytest.mark.invariant(2)
@given(any_names, any_names)
@pytest.mark.slow
def test_two_entries_never_map_onto_one_destination(one: str, other: str) -> None:
    assume(one.partition(":")[0] != other.partition(":")[0])  # Maildir: one name for each unique part
    world = World()
    first = names.with_usable_key(EntryName.parse(one), LABEL, world.system)
    second = names.with_usable_key(EntryName.parse(other), LABEL, world.system)
    assert destinations(first).isdisjoint(destinations(second))


def destinations(entry: EntryName) -> set[str]:
    """Where its next transitions lead, those apart that count anew for one key (handoff, requeue)."""
    held = EntryName.parse(entry.claimed(OWNER))
    return {
        entry.waiting(),
        entry.returned().waiting(),
        held.returned(attempts=-1).waiting(),
        held.returned().waiting(),
        held.returned(crashes=1).waiting(),
        held.deferred(2_000_000_000),
        held.deferred(2_000_000_000, failures=1),
    }


@pytest.mark.invariant(2)
@given(any_names, any_names, st.booleans())
def test_entries_of_different_claims_never_map_onto_one_destination_whatever_their_names(
    one: str, other: str, crashes: bool
) -> None:
    """Nor onto one that anybody can have chosen, where the names themselves are others' choice."""
    world, before = World(), {one, other, EntryName.parse(one).waiting(), EntryName.parse(other).waiting()}
    found: list[set[str]] = []
    for number, name in enumerate((one, other)):
        held = names.with_usable_key(EntryName.parse(name), LABEL, world.system).claimed(f"{OWNER}{number}")
        entry = names.with_unique(EntryName.parse(held), names.unique_of(held), LABEL, world.system)
        found.append(
            {
                entry.returned(crashes=int(crashes)).waiting(),
                entry.handed_on().waiting(),
                entry.deferred(2_000_000_000),
                f"{entry.unique_key},n={entry.returns}.json",
            }
        )
    assert found[0].isdisjoint(found[1])
    assert found[0].isdisjoint(before)


@given(entries.filter(lambda entry: not entry.outputs))
@pytest.mark.slow
def test_an_entry_is_set_apart_by_its_claim_alone_and_keeps_key_and_counters(entry: EntryName) -> None:
    held = entry.claimed(OWNER)
    apart = names.with_unique(EntryName.parse(held), names.unique_of(held), LABEL, World().system)
    assert replace(apart, unique="") == replace(EntryName.parse(held), unique="")
    assert EntryName.parse(apart.waiting()) == apart
    assert names.unique_of(EntryName(key="another").claimed(OWNER)) == apart.unique
    assert names.unique_of(entry.claimed(f"{OWNER}0")) != apart.unique


@given(entries, st.sampled_from((UNIQUE, f"{UNIQUE}h")))
def test_committed_outputs_set_an_entry_apart_and_stay_until_they_are_published(
    entry: EntryName, outputs: str
) -> None:
    system = World().system
    sent = names.with_outputs(entry, outputs, LABEL, system)
    assert replace(sent, outputs="") == replace(entry, unique="", outputs="")
    assert EntryName.parse(sent.claimed(OWNER)).outputs == outputs
    assert sent.is_handled == (outputs == UNIQUE)
    for after in (sent.returned(crashes=1), sent.promoted(), sent.handed_on()):
        apart = names.with_unique(
            after, "fedcba9876", LABEL, system
        )  # in a shared queue no next name is known
        assert apart == replace(after, returns=after.returns + 0xFEDCB)
        assert names.with_usable_key(EntryName.parse(after.waiting()), LABEL, system) == after
    assert names.with_outputs(entry, "", LABEL, system) == entry


def test_outputs_that_another_writer_has_put_into_a_name_are_not_believed() -> None:
    entry = names.with_usable_key(EntryName.parse(f"{KEY},o={UNIQUE},a=1"), LABEL, World().system)
    assert (entry.outputs, entry.attempts, entry.key == KEY) == ("", 1, False)


@pytest.mark.parametrize("claimed", [False, True])
def test_a_key_that_leaves_no_room_to_be_set_apart_is_replaced(claimed: bool) -> None:
    system = World().system
    for length, is_kept in ((names.MAX_SHARED_KEY_BYTES, True), (names.MAX_SHARED_KEY_BYTES + 1, False)):
        entry = EntryName(key="x" * length, attempts=2)
        if claimed:
            entry = names.with_usable_key(entry, LABEL, system, shared=True)
        apart = names.with_unique(entry, UNIQUE, LABEL, system)
        assert (apart.key == "x" * length) == is_kept
        assert apart.attempts == 2
        assert names.with_usable_key(EntryName.parse(apart.waiting()), LABEL, system) == apart


@pytest.mark.invariant(4)
@given(entries, st.integers(-1, 1), st.integers(0, 1))
@pytest.mark.slow
def test_each_return_is_a_generation_on(entry: EntryName, attempts: int, crashes: int) -> None:
    assert entry.returned(attempts=attempts, crashes=crashes).returns == entry.returns + 1


def test_attempts_never_fall_below_zero() -> None:
    assert EntryName(key=KEY).returned(attempts=-1).attempts == 0


@pytest.mark.parametrize(
    "key",
    [
        "12:30:00.mail",
        "x" * 145,
        "é" * 100,
        "",
        "X,a=1",
        "X,d=0",
        "X,f=1",
        f"X,u={UNIQUE}",
        f"X,o={UNIQUE}h",
        "\udcff" * 145,
    ],
)
def test_a_foreign_key_that_cannot_carry_our_fields_gets_a_fresh_one(key: str) -> None:
    entry = names.with_usable_key(EntryName(key=key, attempts=2), LABEL, World().system)
    assert entry.key.endswith(f".{LABEL}")
    assert entry.attempts == 2


@pytest.mark.parametrize(
    "key", [KEY, "x" * 144, "é" * 72, "\udcff" * 144, "with space", "new\nline", "X,a=01"]
)
def test_any_other_foreign_key_is_taken_as_it_is(key: str) -> None:
    assert names.with_usable_key(EntryName(key=key), LABEL, World().system).key == key


def test_keys_are_unique_within_a_process_even_if_the_clock_stands_still() -> None:
    world = World()
    stems = {names.fresh_stem(LABEL, replace(world.system, token=lambda size: "00")) for _ in range(100)}
    assert len(stems) == 100


def test_keys_are_unique_over_forks_that_share_every_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    stems = set()
    for pid in (17, 18):
        monkeypatch.setattr(names, "_count", itertools.count(5))
        stems.add(names.fresh_stem(LABEL, replace(World(pid=pid).system, token=lambda size: "00")))
    assert len(stems) == 2


def test_a_stem_has_the_form_of_maildir() -> None:
    stem = names.fresh_stem(LABEL, World(seconds=1_700_000_000.000123, pid=17).system)
    assert stem.startswith("1700000000.M000123P17Q")
    assert stem.endswith(f".{LABEL}")


def test_a_key_tells_when_it_was_pushed() -> None:
    assert names.pushed_at(KEY) == START
    assert names.pushed_at("mail.txt") is None
    assert names.pushed_at("²³.x") is None
    assert names.pushed_at("9" * 12 + ".x") is None


def test_a_key_of_a_push_for_later_tells_when_it_is_due_and_when_it_was_pushed() -> None:
    key = names.sized(names.fresh_stem(LABEL, World(seconds=START + 0.25).system, int(START) + 60), 22)
    assert names.pushed_at(key) == START + 60
    assert names.pushed_by_us_at(key) == START + 0.25
    assert names.first_name(key) == f"{key},d=1700000060"
    assert EntryName.parse(names.first_name(key)) == EntryName(key=key, due=1_700_000_060)
    with_more = key.replace(",S=", ",p=3,q=0123456789abcdef,S=")
    assert names.first_name(with_more) == f"{with_more},d=1700000060"
    assert names.pushed_by_us_at(with_more) == START + 0.25


@pytest.mark.parametrize("key", [KEY, "mail.txt", "1.x,t=5,S=3", f"{KEY[:-5]},t=x,S=22", ",t="])
def test_any_other_key_is_the_name_of_its_push(key: str) -> None:
    assert names.first_name(key) == key


def test_a_due_time_stays_with_the_name_until_the_entry_is_due() -> None:
    entry = EntryName(key=KEY, attempts=1, returns=2, due=9)
    assert entry.waiting() == f"{KEY},a=1,n=2,d=9"
    assert entry.returned().waiting() == f"{KEY},a=1,n=3,d=9"
    assert entry.promoted().waiting() == f"{KEY},a=1,n=3"
    assert entry.claimed("L.1.2") == f"{KEY},a=2,n=2:1,L.1.2"


def test_a_key_tells_its_size() -> None:
    assert names.size_of(KEY) == 22
    assert names.size_of("X,S=7,W=9") == 7
    assert names.size_of("X") is None
    assert names.size_of("X,S=many") is None


@pytest.mark.parametrize(
    ("when", "due"),
    [
        (START, 1_700_000_000),
        (START + 0.1, 1_700_000_001),
        (-5.0, 1),
        (float("inf"), names.MAX_DUE),
        (1e30, names.MAX_DUE),
    ],
)
def test_a_due_time_is_never_early_and_always_fits_its_field(when: float, due: int) -> None:
    assert names.due_at(when) == due
    assert EntryName.parse(EntryName(key=KEY).deferred(names.due_at(when))).due == due


def test_a_due_time_that_is_no_number_is_now() -> None:
    assert names.due_at(float("nan")) == 1


def test_dotted_names_are_no_entries() -> None:
    assert not names.is_entry(".nfs0001")
    assert names.is_entry("X")


@pytest.mark.parametrize("name", ["x", "x.", ".5", "x.y", "x.-1", "x.²", ".x.5"])
def test_what_is_no_beat_is_none(name: str) -> None:
    assert names.split_beat(name) is None


def test_a_beat_is_split_at_the_last_dot() -> None:
    assert names.split_beat("a.b.17") == ("a.b", 17)


def test_a_popped_name_is_told_from_a_claim_and_keeps_the_counters() -> None:
    entry = EntryName(key=KEY, attempts=2, returns=1)
    name = names.pop_name(entry, World().system)
    assert names.is_popped(name)
    assert not names.is_popped(entry.claimed(OWNER))
    assert not names.is_popped("X:2,pop-")
    assert EntryName.parse(name) == entry


def test_parent_and_forked_child_never_draw_the_same_token() -> None:
    token(8)  # so that there are some in stock
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, " ".join(token(8) for _ in range(200)).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with open(reader, encoding="ascii") as end:
        childs = set(end.read().split())
    assert len(childs) == 200
    assert childs.isdisjoint({token(8) for _ in range(200)})
