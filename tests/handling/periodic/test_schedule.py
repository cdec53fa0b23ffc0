"""Schedules as instants: in zones whose clocks are set forward and back, and lines that never come."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maildefer.handling.periodic.schedule import MOST_MISSED, CatchUp, Schedule, to_make

BERLIN = "Europe/Berlin"
NOW = 1_790_000_000


def at(text: str, zone: str = BERLIN, fold: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp())


def ticks(line: str, start: int, count: int, zone: str = BERLIN) -> list[str]:
    schedule, found = Schedule(cron=line, zone=zone), []
    for _ in range(count):
        following = schedule.next_after(start)
        assert following is not None
        assert following > start
        start = following
        found.append(datetime.fromtimestamp(start, ZoneInfo(zone)).isoformat(timespec="minutes"))
    return found


def test_an_intervals_instants_are_its_multiples_whatever_the_start() -> None:
    schedule = Schedule(every_seconds=3600)
    assert schedule.next_after(NOW) == NOW - NOW % 3600 + 3600
    assert schedule.next_after(7200) == 10800
    assert schedule.newest(3600, 10800) == [7200, 10800]
    assert schedule.newest(10800, 10800) == schedule.newest(10800, 7200) == []


def test_a_line_comes_at_the_local_time_of_its_zone_in_summer_and_winter() -> None:
    assert ticks("15 3 * * *", at("2026-03-27T12:00"), 3) == [
        "2026-03-28T03:15+01:00",
        "2026-03-29T03:15+02:00",
        "2026-03-30T03:15+02:00",
    ]


def test_a_skipped_local_time_comes_at_the_next_instant_that_there_is() -> None:
    assert ticks("30 2 * * *", at("2026-03-28T12:00"), 2) == [
        "2026-03-29T03:00+02:00",
        "2026-03-30T02:30+02:00",
    ]


def test_two_skipped_local_times_come_once_together() -> None:
    assert ticks("10,40 2 * * *", at("2026-03-28T12:00"), 2) == [
        "2026-03-29T03:00+02:00",
        "2026-03-30T02:10+02:00",
    ]


def test_a_repeated_local_time_comes_once_the_first_time() -> None:
    assert ticks("30 2 * * *", at("2026-10-24T12:00"), 2) == [
        "2026-10-25T02:30+02:00",
        "2026-10-26T02:30+01:00",
    ]


def test_a_repeated_local_time_is_not_made_again_by_who_begins_between_the_two() -> None:
    """The library answers with an instant that has passed."""
    second = at("2026-10-25T02:10", fold=1)
    assert ticks("30 2 * * *", second, 1) == ["2026-10-26T02:30+01:00"]


def test_an_hourly_line_comes_each_hour_that_passes() -> None:
    schedule = Schedule(cron="0 * * * *", zone=BERLIN)
    for start in (at("2026-03-29T00:30"), at("2026-10-25T00:30")):
        assert {later - one for one, later in pairwise(schedule.newest(start, start + 6 * 3600))} == {3600}


@pytest.mark.parametrize("line", ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *"])
def test_a_line_that_never_comes_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="never comes"):
        Schedule(cron=line).check(NOW)


def test_a_line_that_comes_every_28_years_is_none_of_those() -> None:
    Schedule(cron="0 0 29 2 1#5").check(NOW)


@pytest.mark.parametrize(
    "line", ["", "* * * *", "* * * * * *", "61 * * * *", "a b c d e", "@daily", "*/0 * * * *"]
)
def test_what_is_no_line_is_refused_and_told_what_is_one(line: str) -> None:
    if line:
        with pytest.raises(ValueError, match="give five fields"):
            Schedule(cron=line).check(NOW)


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "Europe", "../../etc/passwd", "/etc/localtime", "\0"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="no zone that this host knows"):
        Schedule(cron="15 3 * * *", zone=zone).check(NOW)


@given(st.text(alphabet="0123456789*/,-#LWMONJA? ", max_size=24))
def test_no_text_raises_anything_but_a_value_error(text: str) -> None:
    try:
        Schedule(cron=text or "x", zone=BERLIN).check(NOW)
    except ValueError:
        pass


LINES = st.sampled_from(
    [
        "* * * * *",
        "*/7 * * * *",
        "30 2 * * *",
        "0 2 * * *",
        "15 1-3 * * *",
        "0 */3 * * *",
        "0 9 * * 1-5",
        "0 0 L * *",
    ]
)
ZONES = st.sampled_from([BERLIN, "UTC", "Australia/Lord_Howe", "America/St_Johns", "Africa/Cairo"])


@given(LINES, ZONES, st.integers(1_700_000_000, 1_800_000_000), st.integers(0, 40 * 86400))
def test_the_newest_instants_are_the_last_of_all_that_follow_one_another(
    line: str, zone: str, start: int, seconds: int
) -> None:
    schedule = Schedule(cron=line, zone=zone)
    found = schedule.newest(start, start + seconds)
    assert found == sorted(set(found))
    assert len(found) <= MOST_MISSED
    assert all(start < one <= start + seconds for one in found)
    for one, later in pairwise(found):
        assert schedule.next_after(one) == later
    if found:
        following = schedule.next_after(found[-1])
        assert following is not None
        assert following > start + seconds
    if len(found) < MOST_MISSED:
        assert schedule.next_after(start) == (found[0] if found else schedule.next_after(start + seconds))


@pytest.mark.parametrize(
    ("catch_up", "made"), [("last", [500]), ("all", [100, 200, 300, 400, 500]), ("none", [])]
)
def test_what_passed_before_anybody_watched_is_made_up_for_as_asked(
    catch_up: CatchUp, made: list[int]
) -> None:
    schedule = Schedule(every_seconds=100)
    assert to_make(schedule, catch_up, cursor=0, now=555, watched_since=550, grace_seconds=1000) == made


@pytest.mark.parametrize("catch_up", ["last", "all", "none"])
def test_what_is_late_by_less_than_the_grace_is_made_whatever_was_asked(catch_up: CatchUp) -> None:
    schedule = Schedule(every_seconds=1)
    made = to_make(schedule, catch_up, cursor=500, now=504.9, watched_since=400, grace_seconds=10)
    assert made == [501, 502, 503, 504]


@pytest.mark.parametrize(("every", "made"), [(1, [600]), (40, [600]), (90, [540])])
def test_a_stall_longer_than_the_grace_is_made_up_for_once(every: int, made: list[int]) -> None:
    schedule = Schedule(every_seconds=every)
    assert to_make(schedule, "last", cursor=500, now=600.5, watched_since=400, grace_seconds=45) == made


def test_after_a_stall_without_catching_up_only_what_is_due_now_is_made() -> None:
    for every, made in ((1, [600]), (90, [])):
        schedule = Schedule(every_seconds=every)
        assert to_make(schedule, "none", cursor=500, now=600.5, watched_since=400, grace_seconds=45) == made


def test_no_more_than_a_hundred_are_made_up_for() -> None:
    schedule = Schedule(every_seconds=1)
    made = to_make(schedule, "all", cursor=0, now=10_000, watched_since=10_000, grace_seconds=2)
    assert made == list(range(9_901, 10_001))


def test_nothing_is_made_twice_or_before_its_time() -> None:
    schedule = Schedule(every_seconds=100)
    assert to_make(schedule, "all", cursor=500, now=599.9, watched_since=0, grace_seconds=50) == []
    assert to_make(schedule, "all", cursor=700, now=599.9, watched_since=0, grace_seconds=50) == []
