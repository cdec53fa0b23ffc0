"""The tests of the shop, which pytest runs in a process of their own: see `tests/test_pytest_plugin`."""

from __future__ import annotations

import asyncio
import datetime as datetimes
import time
from datetime import date, datetime
from time import time as early_time
from typing import Any

import pytest

from maildefer.errors import QueueUnlisted
from maildefer.queue import Queue
from maildefer.routing import Router
from maildefer.server import Relay
from maildefer.utils import import_settings
from workers import hooks, shop  # type: ignore[attr-defined]  # the shop's, not the blog's

settings: Any = import_settings(False)
settings.relay = Relay(**settings.relay_config)
Router.load(["workers.shop"])


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    shop.SEEN.clear()


def mail(pool: Any, to: str) -> str:
    return str(pool.push("Subject: x\n\ny\n", sender="ann@x", recipient=to))


def test_five_days_of_retries_without_a_sleep(maildefer_queue: Any) -> None:
    began = time.monotonic()
    key = mail(maildefer_queue, "down@x")
    ended = maildefer_queue.advance(days=4)
    assert {one.outcome for one in ended} == {"deferred"}
    assert maildefer_queue.dead() == []
    ended += maildefer_queue.advance(days=2)
    assert [one.outcome for one in ended] == ["deferred"] * (len(ended) - 1) + ["buried"]
    assert maildefer_queue.dead() == [key]
    assert [one.attempt for one in ended] == list(range(1, len(ended) + 1))
    assert len(ended) >= 15
    first, last = shop.SEEN[0], shop.SEEN[-1]
    assert 4.5 * 86400 < last[0] - first[0] < 5.5 * 86400
    assert abs(last[0] - last[1]) < 60
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("number", [1, 2])
def test_a_queue_that_programs_read_begins_empty_and_is_left_alone(maildefer_queue: Any, number: int) -> None:
    key = Queue("run/kept").push(b"Subject: x\n\n")
    maildefer_queue.push(b"Subject: y\n\n", queue="run/kept", after=60)
    assert maildefer_queue.advance(days=1) == []
    assert Queue("run/kept").keys() == [key]


def test_an_answer_comes_an_hour_later(maildefer_queue: Any) -> None:
    mail(maildefer_queue, "twice@x")
    assert [one.outcome for one in maildefer_queue.drain()] == ["deferred"]
    assert maildefer_queue.advance(minutes=55) == []
    assert maildefer_queue.answers == []
    assert [one.outcome for one in maildefer_queue.advance(minutes=10)] == ["acked"]
    assert [answer["To"] for answer in maildefer_queue.answers] == ["ann@x"]


def test_what_a_message_of_a_batch_has_done_once_is_known_in_its_next_attempt(maildefer_queue: Any) -> None:
    keys = [mail(maildefer_queue, "paid@x") for _ in range(2)]
    maildefer_queue.advance(hours=2)
    told = [(attempt, first) for key in keys for seen, attempt, first in shop.SEEN if seen == key]
    assert told == [(1, True), (2, False)] * 2


def test_of_what_a_handler_sends_nothing_is_seen_until_it_has_returned(maildefer_queue: Any) -> None:
    mail(maildefer_queue, "order@x")
    maildefer_queue.drain()
    assert [answer["To"] for answer in maildefer_queue.answers] == ["boss@x"]
    assert (maildefer_queue.tasks, Queue("run/kept").keys()) == ([], [])
    maildefer_queue.advance(hours=1)
    assert [answer["Subject"] for answer in maildefer_queue.answers] == ["Try 1", "Try 2", "Try 2", "Try 2"]
    assert [call.arguments for call in maildefer_queue.tasks] == [(2,)]
    assert len(Queue("run/kept").keys()) == 1
    assert shop.SEEN == [(0, 1), (0, 2), 2]


def test_a_task_is_captured_and_made_when_it_is_due(maildefer_queue: Any) -> None:
    mail(maildefer_queue, "work@x")
    maildefer_queue.drain()
    [call] = maildefer_queue.tasks
    assert (call.task, call.arguments) == ("workers.shop.REBUILD", (7,))
    assert maildefer_queue.advance(hours=23) == []
    assert shop.SEEN == []
    [made] = maildefer_queue.advance(hours=2)
    assert (made.queue, made.outcome, shop.SEEN) == ("run/work", "acked", [7])


def test_middleware_surrounds_the_handlers_and_a_date_is_an_argument(maildefer_queue: Any) -> None:
    when = datetime(2026, 11, 28, tzinfo=datetimes.UTC) + datetimes.timedelta(days=1)
    shop.REBUILD.defer(when)
    maildefer_queue.drain()
    assert [when] == shop.SEEN
    assert hooks.ENDED[-1] == ("workers.shop.REBUILD", {"number": when}, "acked")


def test_what_is_rejected_is_a_dead_letter_and_each_test_begins_with_none(maildefer_queue: Any) -> None:
    assert maildefer_queue.dead() == []
    assert maildefer_queue.answers == []
    key = mail(maildefer_queue, "never@x")
    [one] = maildefer_queue.drain()
    assert (one.outcome, one.reason, maildefer_queue.dead()) == ("buried", "never", [key])


def test_dead_letters_of_any_queue_are_told(maildefer_queue: Any) -> None:
    key = maildefer_queue.push("Subject: x\n\ny\n", sender="ann@x", recipient="never@x", queue="run/work")
    maildefer_queue.drain()
    assert maildefer_queue.dead() == maildefer_queue.dead("run/work") == [key]
    assert maildefer_queue.dead("run/queue") == []


@pytest.mark.parametrize("test", ["one", "the next"])
def test_a_conversation_begins_anew_in_each_test(test: str, maildefer_queue: Any) -> None:
    for _ in range(3):
        mail(maildefer_queue, "talk@x")
        maildefer_queue.drain()
    assert shop.SEEN == ["START", "SECOND", "SECOND"]


def test_a_queue_that_the_settings_do_not_list_is_told_in_words(maildefer_queue: Any) -> None:
    for ask in (
        lambda: maildefer_queue.push("Subject: x\n\ny\n", queue="run/nope"),
        lambda: maildefer_queue.dead("run/nope"),
    ):
        with pytest.raises(QueueUnlisted, match=r"run/nope, nor is it in `queues` of .*settings\.py"):
            ask()


@pytest.mark.parametrize(
    ("hours", "kind"),
    [
        (-1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        ("5", TypeError),
        (None, TypeError),
    ],
)
def test_a_time_that_does_not_move_the_clock_on_is_refused(
    hours: Any, kind: type[Exception], maildefer_queue: Any
) -> None:
    now = maildefer_queue.now
    with pytest.raises(kind, match=r"^advance\(hours=.*\).*: give numbers that move the clock on"):
        maildefer_queue.advance(hours=hours)
    assert abs((maildefer_queue.now - now).total_seconds()) < 60


def _times() -> dict[str, float]:
    from datetime import datetime as imported_late

    return {
        "time.time": time.time(),
        "time.time_ns": time.time_ns() / 1e9,
        "date.today": date.today().toordinal() * 86400,
        "datetime.today": datetimes.datetime.today().timestamp(),
        "datetime.now": datetime.now().timestamp(),
        "datetime.utcnow": datetime.utcnow().timestamp(),  # as an application may
        "datetime.datetime.now": datetimes.datetime.now().timestamp(),
        "imported in a function": imported_late.now().timestamp(),
        "from time import time": early_time(),
        "time.localtime": time.mktime(time.localtime()),
        "time.strftime": float(time.strftime("%s")),
        "time.monotonic": time.monotonic(),
    }


def test_the_clock_moves_what_the_page_on_tests_says(maildefer_queue: Any) -> None:
    before = _times()
    maildefer_queue.advance(days=30)
    after = _times()
    assert {name for name, at in after.items() if at - before[name] > 20 * 86400} == {
        "time.time",
        "time.time_ns",
        "date.today",
        "datetime.today",
        "datetime.now",
        "datetime.utcnow",
    }


def test_without_the_fixture_the_clock_is_the_hosts() -> None:
    assert abs(time.time() - time.clock_gettime(time.CLOCK_REALTIME)) < 5


def test_where_a_loop_runs_it_says_so_before_any_attempt(maildefer_queue: Any) -> None:
    async def called(handle: Any) -> None:
        handle()

    mail(maildefer_queue, "down@x")
    for handle in (maildefer_queue.drain, lambda: maildefer_queue.advance(days=9)):
        with pytest.raises(
            RuntimeError, match=r"^maildefer_queue .* loop runs already: .*asyncio\.to_thread"
        ):
            asyncio.run(called(handle))
    assert [one.attempt for one in maildefer_queue.drain()] == [1]


def test_what_a_program_pushes_to_be_delivered_is_as_good_as_sent(maildefer_queue: Any) -> None:
    Queue("run/outgoing").push("Subject: x\n\ny\n", sender="shop@x", recipient="ann@x")
    assert maildefer_queue.drain() == []
    assert maildefer_queue.dead() == []
    [sent] = maildefer_queue.answers
    assert (sent.From, sent.To, sent["Subject"]) == ("shop@x", "ann@x", "x")
