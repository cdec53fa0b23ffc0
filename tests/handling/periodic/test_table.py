"""What a decorator's arguments mean, and the record of a periodic task that goes from process to process."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from maildefer.handling.periodic.schedule import Schedule
from maildefer.handling.periodic.table import PeriodicTask, periodic_task, record_of, task_in

TASK = PeriodicTask(name="workers.nightly.digest", queue="run/queue", schedule=Schedule(every_seconds=3600))


def made(**given: Any) -> PeriodicTask:
    found = periodic_task("workers.nightly.digest", **given)
    assert found is not None
    return found


@pytest.mark.parametrize("every", ["1h", "60m", "3600s", "3600", 3600, 3600.0, timedelta(hours=1)])
def test_an_interval_is_a_text_a_number_of_seconds_or_a_timedelta(every: object) -> None:
    assert made(every=every).schedule == Schedule(every_seconds=3600)
    assert str(made(every=every).schedule) == "every 1h"


def test_a_line_is_of_a_zone_and_else_of_utc() -> None:
    assert made(cron=" 15  3 * * * ", tz="Europe/Berlin").schedule == Schedule(
        cron="15 3 * * *", zone="Europe/Berlin"
    )
    assert made(cron="15 3 * * *").schedule.zone == "UTC"


def test_without_a_schedule_there_is_none() -> None:
    assert periodic_task("workers.nightly.digest") is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"every": "1h", "cron": "15 3 * * *"}, "two schedules"),
        ({"every": "1h", "tz": "Europe/Berlin"}, "tz= is for cron="),
        ({"every": 0.5}, "whole seconds"),
        ({"every": 0}, "whole seconds"),
        ({"every": 1.5}, "whole seconds"),
        ({"every": -60}, "give zero or more"),
        ({"every": float("nan")}, "give zero or more"),
        ({"every": float("inf")}, "give zero or more"),
        ({"every": True}, "give seconds"),
        ({"every": "soon"}, "is no time"),
        ({"every": "52000w"}, "less than ten years"),
        ({"every": "400d"}, "to a year"),
        ({"every": ["1h"]}, "give seconds"),
        ({"cron": "0 0 31 2 *"}, "never comes"),
        ({"cron": "0 30 2 * * *"}, "give five fields"),
        ({"cron": 15}, "give texts"),
        ({"cron": "15 3 * * *", "tz": 1}, "give texts"),
        ({"cron": "15 3 * * *", "tz": "Berlin"}, "no zone that this host knows"),
        ({"cron": "15 3 * * *", "tz": ""}, "no zone that this host knows"),
        ({"every": "1h", "catch_up": "some"}, "give one of 'last', 'all', 'none'"),
        ({"every": "1h", "catch_up": ["all"]}, "give one of"),
        ({"every": "1h", "overlap": "no"}, "True or False"),
        ({"catch_up": "all"}, "are for every= or cron="),
        ({"tz": "Europe/Berlin"}, "are for every= or cron="),
        ({"overlap": False}, "are for every= or cron="),
    ],
)
def test_what_is_no_schedule_is_refused_and_told_what_is_one(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        periodic_task("workers.nightly.digest", **given)


@pytest.mark.parametrize(
    "task", [TASK, made(cron="15 3 * * *", tz="Europe/Berlin", catch_up="all", overlap=False)]
)
def test_a_record_of_a_task_is_read_as_it_was_written(task: PeriodicTask) -> None:
    assert task_in(json.loads(json.dumps(record_of(task)))) == task


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 1),
        ("queue", None),
        ("catch_up", "some"),
        ("overlap", 1),
        ("schedule", {}),
        ("schedule", {"every_seconds": 0, "cron": "", "zone": "UTC"}),
        ("schedule", {"every_seconds": -5, "cron": "", "zone": "UTC"}),
        ("schedule", {"every_seconds": 5, "cron": "* * * * *", "zone": "UTC"}),
        ("schedule", {"every_seconds": 10**15, "cron": "", "zone": "UTC"}),
        ("schedule", {"every_seconds": 0, "cron": "* * * * *", "zone": 1}),
    ],
)
def test_a_record_of_another_form_is_none(field: str, value: object) -> None:
    assert task_in({**record_of(TASK), field: value}) is None
    assert task_in([]) is task_in({}) is None


def test_names_of_files_are_the_tasks_own_where_they_are_plain() -> None:
    assert TASK.label == "workers.nightly.digest"
    assert TASK.folder.startswith("workers.nightly.digest@")
    for name in ("workers.größe.x", "workers." + "x" * 200, "a/b.c"):
        label = PeriodicTask(name=name, schedule=TASK.schedule).label
        assert label.isascii()
        assert "/" not in label
        assert len(label) < 60


def test_another_schedule_is_kept_in_another_folder() -> None:
    tasks = [
        made(every="1h"),
        made(every="2h"),
        made(cron="15 3 * * *"),
        made(cron="15 3 * * *", tz="Europe/Berlin"),
    ]
    assert len({task.folder for task in tasks}) == len(tasks)
    assert made(every="1h", catch_up="none", overlap=False).folder == made(every="60m").folder
