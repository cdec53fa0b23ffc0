"""What hosts ask of their server, on simulated time: figures of the real pools, which are the same in each run."""

from __future__ import annotations

import pytest

from tests.simulation.traffic import handled, idle


def test_an_idle_host_asks_for_seven_things_a_second() -> None:
    assert 6 < idle(1).a_host_second < 7.2


@pytest.mark.slow
def test_each_of_many_idle_hosts_asks_for_no_more_than_each_of_few() -> None:
    few, many = idle(20, workers=1), idle(45, workers=1)
    assert many.a_host_second < 1.13 * few.a_host_second


def test_a_host_that_is_alone_takes_six_requests_for_a_message_of_a_backlog() -> None:
    told = handled(1, 300)
    assert 6 <= told.requests.total() / told.messages < 6.6
    assert told.lost_races == 0


def test_a_message_that_ten_hosts_compete_for_takes_a_bounded_number_of_requests() -> None:
    told = handled(10, 300)
    assert told.requests.total() / told.messages < 18
    assert told.lost_races < 3 * told.messages


@pytest.mark.slow
def test_hosts_that_have_nothing_left_of_their_own_do_not_all_claim_the_same() -> None:
    told = handled(30, 1500)
    assert told.lost_races < 4.8 * told.messages


@pytest.mark.slow
def test_what_comes_for_busy_hosts_does_not_make_them_read_each_others_status() -> None:
    few, many = handled(10, 100, rate=20), handled(40, 400, rate=80)
    assert many.requests["OPEN"] / many.messages < 1.15 * few.requests["OPEN"] / few.messages
