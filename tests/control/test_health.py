"""What a pool's account of itself means for those who watch it."""

from __future__ import annotations

from typing import Any

import pytest

from maildefer.control import health

SOUND: dict[str, Any] = {
    "up_seconds": 900.0,
    "ttl_seconds": 45.0,
    "keeper_silent_seconds": 4.0,
    "scout_silent_seconds": 1.9,
    "without_workers_seconds": 0.0,
    "paused": False,
    "draining": False,
    "workers": [{"state": "idle"}],
    "queues": [{"queue": "run/q", "state": "served", "may_claim": True, "paused_for": None, "faults": []}],
    "reload": {"asked": 1, "answered": 1, "refused": None},
    "reload_refused": None,
}


def with_queue(**facts: object) -> dict[str, Any]:
    return SOUND | {"queues": [SOUND["queues"][0] | facts]}


def test_a_sound_pool_lives_is_ready_and_is_not_degraded() -> None:
    assert (health.why_dead(SOUND), health.why_unready(SOUND), health.why_degraded(SOUND)) == ([], [], [])


@pytest.mark.parametrize("name", ["keeper_silent_seconds", "scout_silent_seconds", "without_workers_seconds"])
def test_what_is_silent_for_longer_than_the_ttl_is_dead_within_ten_seconds(name: str) -> None:
    assert health.why_dead(SOUND | {name: 45.0}) == []
    assert len(health.why_dead(SOUND | {name: 55.0})) == 1
    assert len(health.why_unready(SOUND | {name: 55.0})) == 1
    assert len(health.why_degraded(SOUND | {name: 55.0})) == 1


@pytest.mark.parametrize(
    "facts",
    [
        {"workers": [{"state": "handling", "seconds": 9e5}]},
        {"paused": True},
        {"draining": True},
        {"queues": [{"queue": "run/q", "state": "absent"}]},
        {"queues": [{"queue": "run/q", "state": "served", "may_claim": False}]},
        {"reload_refused": "broken"},
    ],
)
def test_what_a_new_start_would_not_mend_is_no_death(facts: dict[str, object]) -> None:
    assert health.why_dead(SOUND | facts) == []


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"paused": True}, "paused"),
        ({"draining": True}, "draining"),
        ({"workers": [{"state": "starting"}]}, "no worker"),
        ({"reload_refused": "x.py:1"}, "refused"),
        (with_queue(paused_everywhere=True), "run/q: paused on all hosts"),
        (with_queue(state="fenced"), "run/q: fenced"),
        (with_queue(state="absent"), "run/q: not joined"),
        (with_queue(may_claim=False), "run/q: no good beat"),
        (with_queue(paused_for="EIO", paused_seconds=9.0), "run/q: paused for 9 s"),
    ],
)
def test_a_pool_that_takes_no_messages_now_is_not_ready(facts: dict[str, object], said: str) -> None:
    (problem,) = health.why_unready(SOUND | facts)
    assert said in problem


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"trouble": "no queue"}, "no queue"),
        ({"throttled_seconds": 4.0}, "forked more slowly"),
        ({"reload_refused": "x.py:1"}, "x.py:1"),
        (with_queue(state="absent"), "not joined"),
        (
            with_queue(faults=[{"chore": "sweep", "error": "EIO"}]),
            "run/q: the keeper's chore `sweep` fails: EIO",
        ),
        (
            with_queue(
                faults=[{"chore": "promote", "since": 1700000000, "entries": 3, "error": "1.x: EPERM"}]
            ),
            "the keeper's chore `promote` fails since 2023-11-14T22:13:20Z: 1.x: EPERM (and 2 more)",
        ),
        (with_queue(faults=[{"since": -(10**30), "entries": "x"}]), "fails"),
        ({"front_ends": [{"shortages": {"run/q": "no space"}}]}, "its front end refuses mail for run/q"),
    ],
)
def test_what_is_not_as_it_should_be_is_told(facts: dict[str, object], said: str) -> None:
    (problem,) = health.why_degraded(SOUND | facts)
    assert said in problem


@pytest.mark.parametrize("facts", [{"paused": True}, {"draining": True}, with_queue(paused_everywhere=True)])
def test_what_an_operator_wants_is_no_trouble(facts: dict[str, object]) -> None:
    assert health.why_degraded(SOUND | facts) == []


GROUP = {"kind": "intake", "address": "smtp://127.0.0.1:25", "wanted": 1, "up": 1, "deaths": 0}


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"deaths": 5, "throttled_seconds": 2.0}, "has died 5 times in a row, and is started again in 2 s"),
        ({"deaths": 7}, "has died 7 times in a row: its log"),
        ({"deaths": 1, "up": 0}, "is not up"),
    ],
)
def test_a_front_end_that_dies_again_and_again_is_degraded_and_not_ready(
    facts: dict[str, object], said: str
) -> None:
    status = SOUND | {"front_end_groups": [GROUP | facts]}
    for problems in (health.why_degraded(status), health.why_unready(status)):
        (problem,) = problems
        assert problem.startswith("its front end intake smtp://127.0.0.1:25 ")
        assert said in problem
    assert health.why_dead(status) == []


def test_a_front_end_that_starts_is_not_ready_and_one_that_ends_is_not_wanted() -> None:
    starts = SOUND | {"front_end_groups": [GROUP | {"up": 0}]}
    assert (len(health.why_unready(starts)), health.why_degraded(starts)) == (1, [])
    assert health.why_unready(SOUND | {"front_end_groups": [GROUP | {"up": 0, "wanted": 0}]}) == []
    assert health.why_unready(SOUND | {"front_end_groups": [GROUP | {"deaths": 2}]}) == []


def test_a_pool_that_starts_has_yet_to_join() -> None:
    assert health.why_degraded(with_queue(state="absent") | {"up_seconds": 3.0}) == []
    assert len(health.why_unready(with_queue(state="absent") | {"up_seconds": 3.0})) == 1


@pytest.mark.parametrize("status", [{}, {"queues": None, "workers": None}, {"queues": ["x"], "reload": "x"}])
def test_an_account_of_another_version_is_passed_over(status: dict[str, Any]) -> None:
    assert (health.why_dead(status), health.why_unready(status), health.why_degraded(status)) == ([], [], [])
