"""From an outcome to the settled claim: what is counted for it, and when a message is given up."""

from __future__ import annotations

import errno
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from maildefer import events
from maildefer.errors import MountFault, MountMissing, QueueMissing, StorageFault
from maildefer.handling.handler_marks import RetryTerms
from maildefer.handling.outcomes import Deferred, HandedOff, Outcome, Postponed
from maildefer.handling.project import settings as settings_module
from maildefer.handling.retry import RetryPolicy
from maildefer.maildir import reasons
from maildefer.maildir.claims import Claim, Claimer
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.names import MAX_HANDOFFS, EntryName
from maildefer.pool.scoreboard import Scoreboard
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.worker import settle
from maildefer.pool.worker.settle import Settler
from maildefer.storage_faults import storage_fault
from tests.support.in_project import enter_project

HOST = "host-0a1b2c"
MONDAY = 2**34
ASKED = Deferred("not yet", after_seconds=60)
FAILED = Deferred("boom", error="ValueError: boom", detail="Traceback")
ONWARD = HandedOff("app.other", "START", "other")


class Desk:
    """Settles one message of one queue again and again; what is deferred or handed on waits again at once."""

    def __init__(self, tmp_path: Path) -> None:
        self.first, self.other = (create_queue(str(tmp_path / name)) for name in ("first", "other"))
        self.entry = EntryName(key="5.M1P1Q1R1.host")  # pushed in 1970
        self.given_up: list[Outcome] = []
        self.due: list[int | None] = []
        layouts = {"first": self.first, "other": self.other}
        self.settler = Settler(policy=RetryPolicy(), layouts=layouts, host=HOST, random=lambda: 0.5)
        Path(self.first.new, self.entry.waiting()).write_bytes(b"Subject: x\n\n")

    def settles(self, outcome: Outcome) -> str:
        claimer = Claimer(
            self.first, ScoreboardSlot(Scoreboard(1, 1), 0), lease=f"{HOST}-1-abcdef", host=HOST
        )
        claim = claimer.claim(self.entry.waiting())
        assert claim is not None
        word = self.settler.settle(claim, outcome, "app.START", None, lambda m, o: self.given_up.append(o))
        self.entry = self._waits_again()
        return word

    def _waits_again(self) -> EntryName:
        for folder in (self.first.dead_new, self.first.later_new, self.first.new, self.other.new):
            for name in os.listdir(folder):
                entry = EntryName.parse(name)
                self.due.append(entry.due)
                if folder != self.first.dead_new:
                    entry = entry.promoted()
                    os.rename(f"{folder}/{name}", f"{self.first.new}/{entry.waiting()}")
                return entry
        raise AssertionError("it is nowhere")

    def reason(self, layout: Layout | None = None) -> str:
        return str(reasons.read_reason(layout or self.first, self.entry)["reason"])


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_message_that_was_deferred_on_purpose_many_times_survives_its_first_exceptions(desk: Desk) -> None:
    desk.entry = aged(desk, attempts=500, returns=1000)
    for failures in range(1, 5):  # the fifth would be the last, since it is over its lifetime
        assert desk.settles(FAILED) == "deferred"
        assert desk.entry.failures == failures
    assert desk.settles(FAILED) == "buried"
    assert reasons.read_reason(desk.first, desk.entry)["failures"] == 5
    assert desk.entry.failures == 0
    assert desk.given_up == [FAILED]
    assert desk.reason() == "given up after 505 attempts, 5 of which failed: boom"


def test_a_message_that_its_handler_puts_off_waits_until_then_however_old_it_is(desk: Desk) -> None:
    """It was pushed in 1970, so it is over its lifetime."""
    desk.entry = aged(desk, attempts=500)
    assert desk.settles(ASKED) == "deferred"
    assert desk.settles(Deferred("on Monday", at=MONDAY)) == "deferred"
    assert desk.due[-1] in (MONDAY, MONDAY + 1)
    assert desk.settles(Deferred("on Monday", at=MONDAY, until=MONDAY - 60)) == "deferred"
    assert desk.due[-1] in (MONDAY - 60, MONDAY - 59)
    assert desk.settles(Deferred("not yet", until=5.0)) == "buried"
    assert desk.reason() == "given up after 504 attempts: not yet"


def test_what_a_handler_asks_for_and_what_is_postponed_is_no_failure(desk: Desk) -> None:
    desk.entry = aged(desk, key=f"{2**34}.M1P1Q1R1.host", failures=3)  # pushed in the far future
    assert [desk.settles(ASKED), desk.settles(Postponed(1.0, "its conversation is taken"))] == [
        "deferred",
        "postponed",
    ]
    assert desk.entry.failures == 3
    assert desk.entry.attempts == 1


@pytest.mark.parametrize(("old_days", "word"), [(4, "deferred"), (6, "buried")])
def test_the_lifetime_of_what_was_pushed_for_later_counts_from_its_time(
    desk: Desk, old_days: int, word: str
) -> None:
    due = int(time.time()) - old_days * 86400
    desk.entry = aged(desk, key=f"{due}.M1P1Q1R1.host,t=1000000000,S=3", failures=7, attempts=7)
    assert desk.settles(FAILED) == word


def test_a_crash_is_a_failure(desk: Desk) -> None:
    desk.entry = aged(desk, attempts=4, crashes=4, returns=4)
    assert desk.settles(FAILED) == "buried"


def test_a_reason_names_the_attempts_alone_where_all_of_them_failed(desk: Desk) -> None:
    desk.entry = aged(desk, attempts=4, failures=4, returns=8)
    assert desk.settles(FAILED) == "buried"
    assert desk.reason() == "given up after 5 attempts: boom"


def test_a_message_that_was_deferred_many_times_can_be_handed_on(desk: Desk) -> None:
    desk.entry = aged(desk, attempts=500, failures=2, returns=5000)
    assert desk.settles(ONWARD) == "handed_off"
    assert (desk.entry.attempts, desk.entry.failures, desk.entry.handoffs) == (0, 0, 1)


def test_a_loop_of_handoffs_is_buried(desk: Desk) -> None:
    desk.entry = aged(desk, handoffs=MAX_HANDOFFS - 1, returns=1)
    assert desk.settles(ONWARD) == "handed_off"
    assert desk.settles(ONWARD) == "buried"
    assert desk.reason() == "handed on 1000 times, and now to app.other.START: a loop"


def aged(desk: Desk, key: str | None = None, **counters: Any) -> EntryName:
    """The same message, later in its life."""
    [name] = os.listdir(desk.first.new)
    entry = EntryName(key=key or desk.entry.key, **counters)
    os.rename(f"{desk.first.new}/{name}", f"{desk.first.new}/{entry.waiting()}")
    return entry


def test_a_handoff_makes_the_queue_that_the_settings_name_where_it_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path)
    desk.settler.layouts = {}
    enter_project(tmp_path, monkeypatch)  # also beside tests of a project
    settings = ModuleType("conf.settings")
    vars(settings)["queues"] = {"first": ["app.START"], "run/late": ["app.other"]}
    monkeypatch.setattr(settings_module, "_loaded", settings)
    desk.other = Layout(str(tmp_path / "run" / "late"))
    onward = HandedOff("app.other", "START", "run/late")
    assert desk.settles(onward) == "handed_off"
    shutil.rmtree(tmp_path / "run")  # and again, if somebody has taken it away since
    assert desk.settles(onward) == "handed_off"
    assert desk.entry.handoffs == 2


def test_a_handoff_to_what_can_be_no_queue_is_tried_again_and_buried_with_its_reason(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.settler.layouts = {}
    (tmp_path / "file").write_text("")
    onward = HandedOff("app.other", "START", str(tmp_path / "file"))
    words = [desk.settles(onward) for _ in range(5)]
    assert words == ["deferred"] * 4 + ["buried"]  # pushed in 1970, its lifetime is over at the fifth
    assert "can't be handed on to app.other.START" in desk.reason()
    assert "it is a file" in desk.reason()


@pytest.mark.parametrize(("fault", "failures"), [(MountMissing, 0), (QueueMissing, 1)])
def test_a_handoff_to_a_queue_whose_mount_is_away_is_no_failure_of_the_message(
    tmp_path: Path, fault: type[QueueMissing], failures: int
) -> None:
    desk = Desk(tmp_path)
    desk.settler.layouts = {}

    def missing(path: str) -> Layout:
        raise fault(path, "it is not there")

    desk.settler.open_queue = missing
    assert desk.settles(HandedOff("app.other", "START", str(tmp_path / "away"))) == "deferred"
    assert desk.entry.failures == failures


class Refusals:
    """A settle that fails so often."""

    def __init__(self, fault: StorageFault, times: int) -> None:
        self.fault = fault
        self.left = times
        self.tries = 0

    def settle(self) -> str:
        self.tries += 1
        if self.left:
            self.left -= 1
            raise self.fault
        return "done"


def mount_fault() -> StorageFault:
    return MountFault("/q/cur/x", OSError(errno.EIO, "no"))


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(settle, "time", SimpleNamespace(sleep=pauses.append))
    return pauses


def test_a_settle_is_tried_until_the_filesystem_takes_it_each_time_later_and_told_once(
    desk: Desk, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(events, "emit", lambda event, **facts: told.append(event))
    refusals = Refusals(mount_fault(), 9)
    assert desk.settler.persist(refusals.settle) == "done"
    assert slept[:3] == [pytest.approx(0.1), pytest.approx(0.2), pytest.approx(0.4)]
    assert max(slept) <= 5
    assert len(slept) == 9
    assert told == ["settle.delayed"]


def test_patience_with_a_settle_ends_when_the_worker_has_to(desk: Desk, slept: list[float]) -> None:
    refusals = Refusals(mount_fault(), 1000)
    desk.settler.is_ending = lambda: refusals.tries >= 3
    with pytest.raises(MountFault):
        desk.settler.persist(refusals.settle)
    assert refusals.tries == 3


def test_what_no_patience_cures_is_told_at_once(desk: Desk, slept: list[float]) -> None:
    fault = next(kind for kind in StorageFault.__subclasses__() if not kind.temporary)
    refusals = Refusals(fault("/q/cur/x", OSError(errno.ENAMETOOLONG, "no")), 1000)
    with pytest.raises(fault):
        desk.settler.persist(refusals.settle)
    assert (refusals.tries, slept) == (1, [])


def test_a_handlers_own_policy_decides_its_failures(desk: Desk) -> None:
    desk.entry = aged(desk, f"{MONDAY}.M1P1Q1R1.host")
    own = replace(FAILED, retry=RetryTerms(max_attempts=2))
    assert [desk.settles(own), desk.settles(own)] == ["deferred", "buried"]
    assert desk.reason() == "given up after 2 attempts: boom"


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[OSError]:
    """What the other queue says to each handoff, in turn; once there is nothing, it takes them."""
    faults: list[OSError] = []
    really = Claim.handoff

    def handoff(self: Claim, other: Layout, *, outputs: str = "") -> None:
        if faults:
            raise storage_fault(other.new, faults.pop(0))
        really(self, other, outputs=outputs)

    monkeypatch.setattr(Claim, "handoff", handoff)
    return faults


@pytest.mark.parametrize("number", [errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_a_queue_that_takes_nothing_holds_up_no_worker(
    desk: Desk, slept: list[float], refused: list[OSError], number: int
) -> None:
    """The message waits by the backoff, without a failure; the next one for that queue does not wait at all."""
    refused += [OSError(number, "no")] * 7
    assert desk.settles(ONWARD) == "deferred"
    assert 1 < sum(slept) < 10
    assert desk.settles(ONWARD) == "deferred"
    assert (refused, sum(slept) < 10) == ([], True)
    assert (desk.entry.attempts, desk.entry.failures) == (2, 0)
    assert desk.settles(ONWARD) == "handed_off"


def test_a_queue_that_refuses_for_a_moment_gets_the_message_all_the_same(
    desk: Desk, slept: list[float], refused: list[OSError]
) -> None:
    refused += [OSError(errno.ENOSPC, "no")] * 3
    assert desk.settles(ONWARD) == "handed_off"


def test_a_handoff_in_doubt_is_not_given_up(desk: Desk, slept: list[float], refused: list[OSError]) -> None:
    refused += [OSError(errno.EIO, "no")] * 50
    assert desk.settles(ONWARD) == "handed_off"
