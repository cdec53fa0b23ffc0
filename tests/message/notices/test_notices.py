"""Who is told that a message is given up, how often, and who never is."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from maildefer import events
from maildefer.errors import ConfigurationError, NoSpace
from maildefer.handling import undeliverable
from maildefer.handling.outcomes import ACKED, Buried, Deferred, Outcome, Postponed, Reject
from maildefer.handling.outgoing.failure import Relayed
from maildefer.handling.project.mail_settings import provide
from maildefer.handling.results import failure, outcome_of
from maildefer.handling.retry import RetryPolicy
from maildefer.maildir import names
from maildefer.maildir.claims import Claimer
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.push import Pusher
from maildefer.maildir.system import SYSTEM, System
from maildefer.maildir.upkeep.rates import MOST_STARTS
from maildefer.message import authentication
from maildefer.message.authentication import trusted_servers
from maildefer.message.envelope import block
from maildefer.message.notices.config import MOST_AN_HOUR, NoticeSettings, notice_settings
from maildefer.message.notices.notices import Notices
from maildefer.message.request import MailRequest, received
from maildefer.message.smtp_error import SMTPError
from maildefer.pool.scoreboard import Scoreboard
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.worker.settle import Settler
from maildefer.queue import Queue
from tests.message.test_automatic import AUTOMATIC, PLAIN
from tests.support.deaths import Death, Mortal

HOST = "host-0a1b2c"
REFUSED = SMTPError(550, "5.1.1 user unknown")
Facts = dict[str, Any]


@dataclass
class Site:
    """A project's queues, and its settler: `outgoing` for reports, `inbox` for what handlers reject."""

    folder: Path
    told: list[tuple[str, Facts]]

    def __post_init__(self) -> None:
        self.queues = {name: create_queue(str(self.folder / name)) for name in ("inbox", "outgoing")}

    def uses(self, *, system: System = SYSTEM, **said: Any) -> None:
        settings = NoticeSettings(
            **{"queue": "outgoing", "author": "postmaster@us.example", "in_all": 4, **said}
        )
        notices = Notices(settings, self.queues.__getitem__, "inbox", system=system)
        undeliverable.report = notices.report

    def push(self, data: str = f"{PLAIN}\nText.\n", queue: str = "outgoing", **facts: Any) -> str:
        known = {
            "sender": "Ann@home.example",
            "recipient": "bob@osb.example",
            "via": "ESMTP",
            "dsn": "",
            **facts,
        }
        sender, recipient = known.pop("sender"), known.pop("recipient")
        return Pusher(self.queues[queue], host=HOST).push(
            lambda stem: [block(stem, sender, recipient, host="h", when=0, **known), data.encode()]
        )

    def settle(
        self,
        outcome: Outcome,
        queue: str = "outgoing",
        handle: Callable[[MailRequest], object] = lambda message: None,
    ) -> str:
        """Settle what waits and is no report, as a worker does once it is handled."""
        layout = self.queues[queue]
        claimer = Claimer(layout, ScoreboardSlot(Scoreboard(1, 1), 0), lease=f"{HOST}-1-abcdef", host=HOST)
        [name] = [name for name in os.listdir(layout.new) if not is_report(layout, name)]
        claim = claimer.claim(name)
        assert claim is not None
        message = received(claim.read(), claim.key, 1, queue, queue)
        settler = Settler(policy=RetryPolicy(max_attempts=1), layouts=self.queues, host=HOST)
        handle(message)
        if outcome is ACKED:
            settler.report_success(claim, message)
        return settler.settle(claim, outcome, "app.START", message, lambda message, outcome: None)

    def age(self, seconds: float, queue: str = "outgoing") -> None:
        """Have what waits be so old."""
        layout = self.queues[queue]
        [name] = [name for name in os.listdir(layout.new) if not is_report(layout, name)]
        stem = f"{int(time.time() - seconds)}.M1P1Q1R1.host"
        data = Path(layout.new, name).read_bytes()
        old = names.EntryName.parse(name).key.partition(",")[0]
        Path(layout.new, name).unlink()
        Path(layout.new, f"{stem},a=1").write_bytes(data.replace(old.encode(), stem.encode()))

    def reports(self) -> list[MailRequest]:
        layout = self.queues["outgoing"]
        found = []
        for folder in (layout.new, layout.dead_new):
            found += [
                received(
                    Path(folder, name).read_bytes(), names.EntryName.parse(name).key, 1, "outgoing", None
                )
                for name in os.listdir(folder)
                if is_report(layout, name, folder)
            ]
        return found

    def withheld(self) -> list[str]:
        return [facts["reason"] for event, facts in self.told if event == "notice.withheld"]


def is_report(layout: Layout, name: str, folder: str | None = None) -> bool:
    return b"with notice id" in Path(folder or layout.new, name).read_bytes()[:1000]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Facts]]:
    found: list[tuple[str, Facts]] = []
    monkeypatch.setattr(events, "emit", lambda event, **facts: found.append((event, facts)))
    return found


@pytest.fixture
def site(tmp_path: Path, told: list[tuple[str, Facts]], monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(undeliverable, "report", None)
    made = Site(tmp_path, told)
    made.uses()
    return made


def test_a_final_failure_of_a_delivery_is_reported_to_the_envelopes_sender(site: Site) -> None:
    key = site.push(dsn="ENVID=QQ314 NOTIFY=FAILURE")
    assert site.settle(outcome_of(REFUSED, "app")) == "buried"
    [report] = site.reports()
    assert (report.From, report.To) == ("", "ann@home.example")
    assert b"To: <Ann@home.example>\n" in report.Data  # type: ignore[operator]
    assert b"Original-Envelope-Id: QQ314\n" in report.Data  # type: ignore[operator]
    assert b"Diagnostic-Code: smtp; 550 5.1.1 user unknown\n" in report.Data  # type: ignore[operator]
    assert site.told[-1] == (
        "notice.sent",
        {"action": "failed", "report": report.key, "key": key, "queue": "outgoing", "to": "Ann@home.example"},
    )


def test_what_a_delivery_says_of_its_failure_stands_in_the_report(site: Site) -> None:
    failed = Reject("bob@osb.example: 552 5.2.2 full (mx.osb.example)")
    failed.__dict__ |= {"code": 552, "status": "5.2.2", "server": "mx.osb.example", "words": "5.2.2 full"}
    site.push()
    site.settle(outcome_of(failed, "app"))
    [report] = site.reports()
    for line in (
        b"Status: 5.2.2",
        b"Remote-MTA: dns; mx.osb.example",
        b"Diagnostic-Code: smtp; 552 5.2.2 full",
    ):
        assert b"\n" + line + b"\n" in report.Data  # type: ignore[operator]


def test_a_message_whose_time_is_up_is_reported_with_its_last_reply(site: Site) -> None:
    site.push()
    layout = site.queues["outgoing"]
    [name] = os.listdir(layout.new)
    os.rename(f"{layout.new}/{name}", f"{layout.new}/5.M1P1Q1R1.host,a=9")
    assert site.settle(Deferred("451 4.7.1 greylisted")) == "buried"
    assert b"\nStatus: 4.4.7\n" in site.reports()[0].Data  # type: ignore[operator]


def test_of_an_exception_the_sender_learns_only_that_there_was_one(site: Site) -> None:
    site.push()
    assert site.settle(failure(KeyError("password=1234"), "app")) == "buried"
    [report] = site.reports()
    assert b"1234" not in report.Data  # type: ignore[operator]
    assert b"the message could not be processed" in report.Data  # type: ignore[operator]
    site.push()
    site.settle(Buried("no handler app.internals.START"))
    assert not any(b"internals" in one.Data for one in site.reports())  # type: ignore[operator]


@pytest.mark.parametrize("kind", AUTOMATIC)
def test_nothing_is_reported_of_what_no_person_has_written(site: Site, kind: str) -> None:
    site.push(f"{AUTOMATIC[kind][0]}\nText.\n")
    site.settle(outcome_of(REFUSED, "app"))
    assert (site.reports(), len(site.withheld())) == ([], 1)


@pytest.mark.parametrize("sender", ["list-bounces@us.example", "bounces+ann=home.example@x", "owner-l@x"])
def test_a_sender_that_is_there_for_reports_gets_those_of_lists_and_programs_and_none_of_reports(
    site: Site, sender: str
) -> None:
    listed = f"List-Id: <l.us.example>\nPrecedence: list\nAuto-Submitted: auto-generated\n{PLAIN}\nText.\n"
    for data in (listed, f"Content-Type: multipart/report; boundary=b\n{PLAIN}\nText.\n"):
        site.push(data, sender=sender)
        site.settle(outcome_of(REFUSED, "app"))
    assert [report.To for report in site.reports()] == [sender]
    assert site.withheld() == [f"sender {sender}"]


def test_the_null_sender_gets_no_report_and_so_a_report_causes_none(site: Site) -> None:
    site.push()
    site.settle(outcome_of(REFUSED, "app"))
    [report] = site.reports()
    for sender, reason in (("", "null sender"), ("ann@home.example", "Content-Type: multipart/report")):
        site.push(str(report.Data, "utf-8"), sender=sender)  # type: ignore[arg-type]
        site.settle(outcome_of(REFUSED, "app"))
        assert site.withheld()[-1].startswith(reason)
    assert len(site.reports()) == 1


@pytest.mark.parametrize("notify", ["NEVER", "SUCCESS", "SUCCESS,DELAY"])
def test_a_sender_that_does_not_want_to_hear_of_failures_does_not(site: Site, notify: str) -> None:
    site.push(dsn=f"NOTIFY={notify}")
    site.settle(outcome_of(REFUSED, "app"))
    assert (site.reports(), len(site.withheld())) == ([], 1)


def test_an_entry_of_another_program_without_a_return_path_has_nobody_to_tell(site: Site) -> None:
    Path(site.queues["outgoing"].new, "1.other").write_bytes(b"Delivered-To: b@x\nFrom: ann@x\n\nhi\n")
    site.settle(outcome_of(REFUSED, "app"))
    assert (site.reports(), site.withheld()) == ([], ["null sender"])


AUTHENTIC = "Authentication-Results: mx.us.example; spf=pass smtp.mailfrom=home.example\n"


@pytest.mark.parametrize(
    ("rejects", "via", "head", "count"),
    [
        ("never", "ESMTPSA", "", 0),
        ("always", "ESMTP", "", 1),
        ("authenticated", "ESMTP", "", 0),
        ("authenticated", "push", "", 0),
        ("authenticated", "HTTP", "", 0),
        ("authenticated", "ESMTPS", "", 0),
        ("authenticated", "ESMTPA", "", 1),
        ("authenticated", "UTF8SMTPSA", "", 1),
        ("authenticated", "LMTPSA", "", 1),
        ("authenticated", "ESMTP", AUTHENTIC, 1),
        ("authenticated", "ESMTP", AUTHENTIC.replace("home", "other"), 0),
        ("authenticated", "ESMTP", AUTHENTIC.replace("pass", "fail"), 0),
        ("authenticated", "ESMTP", AUTHENTIC.replace("mx.us", "mx.evil"), 0),
    ],
)
def test_a_reject_is_reported_as_the_setting_says_and_by_default_to_no_sender_that_may_be_forged(
    site: Site, monkeypatch: pytest.MonkeyPatch, rejects: str, via: str, head: str, count: int
) -> None:
    monkeypatch.setattr(authentication, "configured", trusted_servers({"servers": ["mx.us.example"]}))
    site.uses(rejects=rejects)
    site.push(
        f"{head}{PLAIN}\nText.\n", "inbox", via=via, client="(maildefer) with ESMTPSA id x ([192.0.2.1])"
    )
    assert site.settle(outcome_of(Reject("no such list"), "app"), "inbox") == "buried"
    assert len(site.reports()) == count
    if rejects == "authenticated" and not count:
        assert site.withheld() == ["the sender may be forged"]


def test_two_projects_that_reject_each_others_mail_stop_after_one_report(
    tmp_path: Path, told: list[tuple[str, Facts]], site: Site
) -> None:
    other = Site(tmp_path / "other", told)
    sites, sent = [site, other], 0
    mail = f"{PLAIN}\nText.\n", "ann@home.example", "bob@osb.example"
    for number in range(10):
        here = sites[number % 2]
        here.uses(rejects="always")
        here.push(mail[0], "inbox", sender=mail[1], recipient=mail[2])
        here.settle(outcome_of(Reject("no"), "app"), "inbox")
        if not (reports := here.reports()):
            break
        sent += 1
        mail = str(reports[0].Data, "utf-8"), reports[0].From, reports[0].To  # type: ignore[arg-type]
    assert (sent, site.withheld()) == (1, ["null sender"])


def test_there_are_no_more_reports_in_an_hour_than_there_may_be(site: Site) -> None:
    site.uses(per_sender=2, in_all=3)
    for sender in ("a@x", "A@x", "a@x", "b@x", "c@x"):
        site.push(sender=sender)
        site.settle(outcome_of(REFUSED, "app"))
    assert sorted(report.To for report in site.reports()) == ["a@x", "a@x", "b@x"]
    assert site.withheld() == ["per_sender: 2 reports in an hour", "in_all: 3 reports in an hour"]


def test_a_message_that_is_requeued_and_fails_again_the_same_day_is_reported_once(site: Site) -> None:
    site.push()
    site.settle(outcome_of(REFUSED, "app"))
    layout = site.queues["outgoing"]
    [dead] = os.listdir(layout.dead_new)
    os.rename(f"{layout.dead_new}/{dead}", f"{layout.new}/{dead}")
    assert site.settle(outcome_of(REFUSED, "app")) == "buried"
    assert len(site.reports()) == 1


def relayed(message: MailRequest) -> None:
    """What a delivery does once a server without DSN has it."""
    message.came_with.relayed = Relayed((250, b"2.0.0 queued"), "mx.osb.example")  # type: ignore[union-attr]


def test_of_what_a_server_without_reports_has_taken_the_sender_hears_if_it_asks_for_that(site: Site) -> None:
    for notify in ("SUCCESS", "FAILURE", "DELAY,FAILURE", "NEVER", ""):
        site.push(dsn=f"NOTIFY={notify} RET=FULL" if notify else "RET=FULL ENVID=SUCCESS")
        assert site.settle(ACKED, handle=relayed) == "acked"
    [report] = site.reports()
    assert (report.From, report.To) == ("", "ann@home.example")
    for line in (
        b"Action: relayed",
        b"Status: 2.0.0",
        b"Remote-MTA: dns; mx.osb.example",
        b"Diagnostic-Code: smtp; 250 2.0.0 queued",
        b"Content-Type: text/rfc822-headers",
        b"Subject: Successful Mail Relay Report",
    ):
        assert b"\n" + line + b"\n" in report.Data  # type: ignore[operator]
    assert b"Text." not in report.Data  # type: ignore[operator]
    assert site.told[0][1]["action"] == "relayed"


def test_what_went_on_with_what_its_sender_asks_is_reported_by_others(site: Site) -> None:
    site.uses(rejects="always")
    queue = Queue(str(site.folder / "inbox"))
    for handle in (queue.push, lambda message: setattr(message.came_with, "is_passed_on", True)):
        site.push(dsn="NOTIFY=SUCCESS")
        assert site.settle(ACKED, handle=handle) == "acked"
    assert (site.reports(), site.told) == ([], [])
    assert site.settle(ACKED, "inbox") == "acked"
    [report] = site.reports()
    assert b"\nAction: delivered\n" in report.Data  # type: ignore[operator]


def test_what_is_pushed_in_another_name_is_done_here(site: Site) -> None:
    queue = Queue(str(site.folder / "inbox"))
    site.push(dsn="NOTIFY=SUCCESS")
    site.settle(ACKED, handle=lambda message: queue.push(message, sender="list@us.example"))
    assert len(site.reports()) == 1


@pytest.mark.parametrize(
    ("rejects", "via", "count"),
    [("never", "ESMTPSA", 0), ("authenticated", "ESMTPS", 0), ("authenticated", "ESMTPSA", 1)],
)
def test_what_a_handler_has_done_is_reported_as_what_it_rejects(
    site: Site, rejects: str, via: str, count: int
) -> None:
    site.uses(rejects=rejects)
    site.push(queue="inbox", via=via, dsn="NOTIFY=SUCCESS")
    assert site.settle(ACKED, "inbox") == "acked"
    assert len(site.reports()) == count
    assert all(b"\nStatus: 2.0.0\n" in report.Data for report in site.reports())  # type: ignore[operator]


@pytest.mark.parametrize("kind", AUTOMATIC)
def test_no_success_is_reported_of_what_no_person_has_written(site: Site, kind: str) -> None:
    site.push(f"{AUTOMATIC[kind][0]}\nText.\n", dsn="NOTIFY=SUCCESS")
    site.settle(ACKED, handle=relayed)
    assert (site.reports(), len(site.withheld())) == ([], 1)


LATE = Deferred("bob@osb.example: 451 4.7.1 greylisted (mx.osb.example)")


@pytest.mark.parametrize(
    ("notify", "hours", "count"),
    [
        ("DELAY", 3, 0),
        ("DELAY", 5, 1),
        ("DELAY", 30, 0),
        ("FAILURE", 5, 0),
        ("SUCCESS,NEVER", 5, 0),
        ("", 5, 0),
    ],
)
@pytest.mark.parametrize("outcome", [LATE, Postponed(60.0, "451 down", tried=True)], ids=["deferred", "down"])
def test_the_sender_hears_of_a_delay_after_a_time_if_it_asks_for_that(
    site: Site, outcome: Outcome, notify: str, hours: int, count: int
) -> None:
    site.push(dsn=f"NOTIFY={notify}" if notify else "ENVID=DELAY")
    site.age(hours * 3600)
    assert site.settle(outcome) in ("deferred", "postponed")
    assert len(site.reports()) == count
    for report in site.reports():
        assert b"\nAction: delayed\n" in report.Data  # type: ignore[operator]
        assert b"\nWill-Retry-Until: " in report.Data  # type: ignore[operator]
        assert b"\nDiagnostic-Code: smtp; " in report.Data  # type: ignore[operator]
        assert b"\nStatus: 4." in report.Data  # type: ignore[operator]


def test_of_an_exception_a_delay_tells_nothing_and_a_time_that_the_handler_gives_has_no_end(
    site: Site,
) -> None:
    site.uses(delay_seconds=1, per_sender=5)
    for outcome in (Deferred("KeyError: 1234", error="KeyError"), Deferred("busy", after_seconds=60.0)):
        site.push(dsn="NOTIFY=DELAY")
        site.age(10)
        layout = site.queues["outgoing"]
        settler = Settler(policy=RetryPolicy(), layouts=site.queues, host=HOST)
        claimer = Claimer(layout, ScoreboardSlot(Scoreboard(1, 1), 0), lease=f"{HOST}-1-abcdef", host=HOST)
        [name] = [name for name in os.listdir(layout.new) if not is_report(layout, name)]
        claim = claimer.claim(name)
        assert claim is not None
        message = received(claim.read(), claim.key, 1, "outgoing", "outgoing")
        assert settler.settle(claim, outcome, "app.START", message, lambda *_: None) == "deferred"
    texts = [report.Data for report in site.reports()]
    assert not any(b"1234" in text for text in texts)  # type: ignore[operator]
    assert sum(b"the message could not be delivered yet" in text for text in texts) >= 1  # type: ignore[operator]
    assert sum(b"Will-Retry-Until" in text for text in texts) == 1  # type: ignore[operator]


def test_a_message_that_is_late_and_then_arrives_and_is_tried_again_is_reported_once_of_each(
    site: Site,
) -> None:
    site.push(dsn="NOTIFY=DELAY,SUCCESS")
    site.age(5 * 3600)
    layout = site.queues["outgoing"]
    for outcome in (LATE, LATE, ACKED, ACKED):
        before = {name: Path(layout.new, name).read_bytes() for name in os.listdir(layout.new)}
        site.settle(outcome, handle=relayed)
        [waited] = [name for name in before if b"with notice id" not in before[name][:1000]]
        for folder in (layout.later_new, layout.new):
            for name in os.listdir(folder):
                if not is_report(layout, name, folder):
                    os.unlink(f"{folder}/{name}")
        Path(layout.new, waited).write_bytes(before[waited])  # as after a lost settle
    actions = [facts["action"] for event, facts in site.told if event == "notice.sent"]
    assert actions == ["delayed", "relayed"]
    assert len(site.reports()) == 2


def test_what_senders_ask_for_takes_no_place_from_failures(site: Site) -> None:
    site.uses(in_all=1, per_sender=1)
    for outcome in (ACKED, ACKED, outcome_of(REFUSED, "app"), outcome_of(REFUSED, "app")):
        site.push(dsn="NOTIFY=SUCCESS,FAILURE")
        site.settle(outcome, handle=relayed)
    assert [event for event, _ in site.told] == ["notice.sent", "notice.withheld"] * 2


def test_a_report_of_success_that_cannot_be_pushed_keeps_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **more: Any) -> None:
        raise NoSpace("q", OSError(errno.ENOSPC, "full"))

    monkeypatch.setattr(undeliverable, "report", full)
    monkeypatch.setattr(Settler, "persist", lambda self, settle, *_: settle())  # as while the pool ends
    site.push(dsn="NOTIFY=SUCCESS,DELAY")
    assert site.settle(ACKED, handle=relayed) == "acked"
    site.push(dsn="NOTIFY=SUCCESS,DELAY")
    assert site.settle(LATE) == "deferred"


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False], ids=["before it", "after it"])
def test_a_death_at_any_system_call_of_a_report_gives_one_report_and_loses_none(
    tmp_path: Path, told: list[tuple[str, Facts]], site: Site, before: bool
) -> None:
    for step in range(1000):
        here = Site(tmp_path / f"{step}", told)
        mortal = Mortal(SYSTEM, step, before=before)
        here.uses(system=mortal.system, per_sender=2, in_all=2)
        here.push()
        try:
            here.settle(outcome_of(REFUSED, "app"))
        except Death:
            _taken_back(here.queues["outgoing"])
            here.uses(per_sender=2, in_all=2)
            assert here.settle(outcome_of(REFUSED, "app")) == "buried"
            assert len(here.reports()) == 1, f"died at call {step}"
        else:
            break
    assert step > 20
    assert len(here.reports()) == 1


def test_a_report_that_was_delivered_before_the_burial_is_not_sent_again(site: Site) -> None:
    """The worker dies between report and burial, and the report is gone before the message is tried again."""
    site.push()
    real, layout = undeliverable.report, site.queues["outgoing"]

    def dies(*arguments: Any, **more: Any) -> None:
        assert real is not None
        real(*arguments)
        raise Death

    undeliverable.report = dies
    with pytest.raises(Death):
        site.settle(outcome_of(REFUSED, "app"))
    for name in os.listdir(layout.new):
        os.unlink(f"{layout.new}/{name}")
    _taken_back(layout)
    undeliverable.report = real
    assert site.settle(outcome_of(REFUSED, "app")) == "buried"
    assert site.reports() == []
    assert [event for event, _ in site.told].count("notice.sent") == 1


def _taken_back(layout: Layout) -> None:
    """What a keeper does with a dead worker's claim."""
    [name] = os.listdir(layout.cur)
    entry = names.EntryName.parse(name.partition(":")[0])
    os.rename(f"{layout.cur}/{name}", f"{layout.new}/{entry.returned().waiting()}")


def test_a_report_that_cannot_be_made_keeps_no_message_from_its_burial(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maildefer.message.notices.report.report_of", lambda *_, **__: 1 / 0)
    site.push()
    assert site.settle(outcome_of(REFUSED, "app")) == "buried"
    assert [event for event, _ in site.told] == ["notice.failed"]


def test_a_full_disk_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real, faults = undeliverable.report, [NoSpace("q", OSError(errno.ENOSPC, "full"))]

    def full(*arguments: Any, **more: Any) -> None:
        if faults:
            raise faults.pop()
        assert real is not None
        real(*arguments)

    monkeypatch.setattr("maildefer.pool.worker.settle.time", SimpleNamespace(sleep=lambda seconds: None))
    undeliverable.report = full
    site.push()
    assert site.settle(outcome_of(REFUSED, "app")) == "buried"
    assert (faults, len(site.reports())) == ([], 1)


def test_without_the_setting_nothing_is_looked_at(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undeliverable, "report", None)
    site.push()
    site.settle(outcome_of(REFUSED, "app"))
    assert (site.reports(), site.told) == ([], [])


@pytest.mark.parametrize(
    ("config", "told_why"),
    [
        ("run/outgoing", "give"),
        ({"quue": "x"}, "give"),
        ({}, "names no queue"),
        ({"queue": 5}, "names no queue"),
        ({"queue": "q", "author": "postmaster"}, "author"),
        ({"queue": "q", "author": "post\nmaster@x"}, "author"),
        ({"queue": "q", "rejects": True}, "rejects"),
        ({"queue": "q", "rejects": ["always"]}, "rejects"),
        ({"queue": "q", "per_sender": 0}, "per_sender"),
        ({"queue": "q", "in_all": 10**6}, "in_all"),
        ({"queue": "q", "in_all": "many"}, "in_all"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(config: object, told_why: str) -> None:
    with pytest.raises(ConfigurationError, match=told_why):
        notice_settings(config, None)


def test_no_rate_is_larger_than_there_can_be_slots() -> None:
    assert MOST_AN_HOUR == MOST_STARTS


def test_the_queue_may_be_that_of_the_relay() -> None:
    assert notice_settings({"rejects": "authenticated"}, "run/outgoing").queue == "run/outgoing"
    assert notice_settings({"queue": "run/reports"}, "run/outgoing").queue == "run/reports"


def test_the_author_is_at_the_host_as_others_know_it() -> None:
    config = {"queue": "run/outgoing"}
    assert notice_settings(config, None, "mx.osb.example").author == "mailer-daemon@mx.osb.example"
    assert notice_settings(config, None).author == f"mailer-daemon@{os.uname().nodename}"
    with pytest.raises(ConfigurationError, match="author is 'mailer-daemon@a b'"):
        notice_settings(config, None, "a b")


def test_the_queue_of_reports_has_handlers_and_is_not_where_strangers_mail_comes_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(undeliverable, "report", None)
    settings = ModuleType("told_settings")
    settings.__dict__.update(queues={"run/queue": ["a"], "run/mail": ["a"], "run/kept": [], "run/out": ["b"]})
    for front, queue in (
        (None, "run/kept"),
        (None, "run/queue"),
        ("run/mail", "./run/mail"),
        (None, "run/no"),
    ):
        settings.__dict__.update(receiver_config={"queue": front}, notices={"queue": queue})
        with pytest.raises(ConfigurationError, match="no reports can go to"):
            provide(settings)
    settings.__dict__["notices"] = {"queue": "run/out"}
    provide(settings)
    assert undeliverable.report is not None
