"""The chaos of `make chaos`, small; and that its verdict sees what it is to see."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from benchmarks import chaos
from benchmarks.chaos_means import Answer, MeansFacts, UniquePush
from benchmarks.chaos_sending import SendingFacts, recipients_of
from benchmarks.chaos_verdict import Facts, judge
from benchmarks.places import APPLICATIONS
from maildefer.control.audit import audit
from maildefer.maildir.reasons import write_reason
from tests.lifecycle.project import Project


@pytest.mark.lifecycle
@pytest.mark.slow
def test_nothing_is_lost_or_handled_again_for_no_reason_while_everybody_is_killed(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 31)
    verdict = chaos.run(tmp_path, messages=1000, seconds=8, seed=seed)
    table = f"seed {seed}\n{verdict.table()}"
    assert verdict.violations == [], table
    assert dict(verdict.rows)["handlings beyond one a message"] != 0, f"nobody died at work:\n{table}"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "journal").mkdir()
    return Project(tmp_path, APPLICATIONS / "chaos", queues=("run/queue", "run/ticks"), journal=True)


def violations(
    project: Project, pushed: list[str], *journals: str, survivor: int = 0, **more: Any
) -> list[str]:
    """Each journal is a process's, whose supervisor has ten times its pid."""
    for number, text in enumerate(journals, 1):
        path = project.path / "journal" / f"{number}-1-{number}0"
        path.write_text("".join(f"{line.strip()}\n" for line in text.split(", ")))
    facts: dict[str, Any] = {
        "project": project,
        "pushed": pushed,
        "survivors": {survivor: 0.0},
        "acked": (),
        "counts": {},
        "exit_codes": [0, 0],
        "seconds": 1,
    }
    return judge(Facts(**facts | more)).violations


def test_messages_that_are_handled_once_satisfy_the_verdict(project: Project) -> None:
    assert violations(project, ["a", "b"], "start a, end a", "start b, end b") == []


def test_one_more_handling_for_a_worker_that_died_on_it_satisfies_the_verdict(project: Project) -> None:
    assert violations(project, ["a"], "start a", "start a, end a") == []
    assert violations(project, ["a"], "start a, end a", "start a, end a") == [], "it died before its ack"


def test_a_message_that_was_not_handled_to_its_end_is_lost(project: Project) -> None:
    [found] = violations(project, ["a", "b"], "start a, end a", "start b")
    assert "never handled to the end" in found


def test_another_handling_without_a_death_is_seen(project: Project) -> None:
    found = violations(project, ["a", "b"], "start a, end a, start b, end b", "start a, end a", survivor=2)
    assert any("though no worker died on it" in text for text in found)
    assert any("more extra handlings" in text for text in found)


def test_an_entry_left_over_anywhere_is_seen(project: Project) -> None:
    Path(project.queue.later_new, "a,a=1,d=5").touch()
    [found] = violations(project, ["a"], "start a, end a")
    assert "left over" in found


@pytest.mark.parametrize(
    ("instants", "calls", "told"),
    [
        ([10, 11, 13], 4, ""),  # the event of one is lost with its host
        ([10, 11, 11, 13], 4, "pushed twice: [11]"),
        ([10, 11, 13], 3, "4 instants of a periodic task, and only 3 calls"),
    ],
)
def test_an_instant_of_a_periodic_task_that_comes_twice_or_is_never_called_is_seen(
    project: Project, instants: list[int], calls: int, told: str
) -> None:
    folder = Path(project.layouts["run/ticks"].periodic, "workers.ticking.tick@0f")
    folder.mkdir(parents=True)
    (folder / "13,KEY").touch()
    (project.path / "ticks").write_bytes(b"." * calls)
    found = "".join(violations(project, ["a"], "start a, end a", instants=instants))
    assert told in found
    assert bool(told) == bool(found)


def test_a_dead_letter_is_allowed_by_the_crash_limit_only(project: Project) -> None:
    Path(project.queue.dead_new, "a,a=5,c=5,n=5").touch()
    [entry] = project.names("dead_new")
    write_reason(project.queue, entry, "it died", {"error": "crash limit"}, host="a")
    assert violations(project, ["a"], "start a") == []
    Path(project.queue.dead_new, "b,n=1").touch()
    [found] = violations(project, ["a", "b"], "start a, end a")
    assert "another reason" in found


def test_a_second_ack_of_one_message_is_seen(project: Project) -> None:
    [found] = violations(project, ["a"], "start a, end a", acked=("a", "a"))
    assert "acked twice" in found


def test_another_handling_is_explained_by_a_claim_that_a_frozen_worker_lost(project: Project) -> None:
    journals = ("start a, end a", "start a, end a")
    assert violations(project, ["a"], *journals, survivors={1: 0.0, 2: 0.0}, lost_claims=["a"]) == []
    assert violations(project, ["a"], *journals, survivors={1: 0.0, 2: 0.0}) != []


def test_what_was_sent_without_a_good_reply_may_be_handled(project: Project) -> None:
    assert violations(project, [], "start a, end a", doubtful=1) == []
    [found] = violations(project, [], "start a, end a")
    assert "that nobody sent" in found


def test_fewer_messages_than_wanted_are_seen(project: Project) -> None:
    [found] = violations(project, ["a"], "start a, end a", wanted=2)
    assert "only 1 of 2" in found


def test_drafts_are_left_by_killed_front_ends_only(project: Project) -> None:
    Path(project.queue.tmp, "1.x").touch()
    assert violations(project, [], doubtful=1) == []
    [found] = violations(project, [])
    assert "drafts" in found


def test_what_the_audit_accuses_is_seen(project: Project) -> None:
    [key] = project.push()
    Path(project.queue.new, key).unlink()
    report = audit([project.queue.path], timeout_seconds=0)
    found = violations(project, [key], f"start {key}, end {key}", audited=report)
    assert any("the audit accuses" in text for text in found)


def test_a_push_without_a_record_is_seen(project: Project) -> None:
    report = audit([project.queue.path], timeout_seconds=0)
    [found] = violations(project, ["a"], "start a, end a", audited=report)
    assert "the journal has 0" in found


def test_a_dead_worker_may_have_had_a_survivors_pid(project: Project) -> None:
    journals = ("start a", "start a, end a")
    assert violations(project, ["a"], *journals, survivors={1: 0.0, 2: 0.0}) != [], (
        "it is the survivor's journal"
    )
    assert violations(project, ["a"], *journals, survivors={1: 5.0, 2: 0.0}) == [], "the survivor began later"


def test_a_message_that_was_handled_before_it_was_due_is_seen(project: Project) -> None:
    [found] = violations(project, ["a"], "start a, early a, end a")
    assert "before they were due: ['a']" in found


def test_all_messages_of_a_call_may_be_handled_again_where_its_worker_died(project: Project) -> None:
    again = "start a, end a", "start b, end b"
    assert violations(project, ["a", "b"], "start a, start b", *again) == []
    assert violations(project, ["a", "b"], "start a, start b, end a, end b", *again) == [], (
        "before their acks"
    )
    found = violations(project, ["a", "b"], "start a, end a, start b, end b", *again, survivor=2)
    assert any("though no worker died on it: ['a']" in text for text in found), "it was done with that one"


def pushed(key: str, at: float, *, is_new: bool = True) -> UniquePush:
    return UniquePush(unique="u", key=key, is_new=is_new, began=at, returned=at + 0.5)


ENDED = "start a 1 x, end a 2, start b 4 x, end b 5"


@pytest.mark.parametrize(
    ("pushes", "journal", "told"),
    [
        ([pushed("a", 0), pushed("a", 1, is_new=False), pushed("b", 3)], ENDED, ""),
        ([pushed("a", 0), pushed("b", 1)], ENDED, "of one unique key had not ended"),
        (
            [pushed("a", 0), pushed("b", 3)],
            f"{ENDED}, start a 9 x, end a 9.1",
            "of one unique key had not ended",
        ),
        ([pushed("a", 0), pushed("a", 99, is_new=False)], ENDED, "that had ended held its unique key"),
    ],
)
def test_two_unended_entries_of_a_unique_key_are_seen_and_one_that_holds_it_for_ever(
    project: Project, pushes: list[UniquePush], journal: str, told: str
) -> None:
    found = "".join(violations(project, ["a", "b"], journal, "start a 1 x", means=MeansFacts(unique=pushes)))
    assert told in found
    assert bool(told) == bool(found)


def test_what_a_worker_begins_with_that_was_frozen_after_its_claim_is_no_unended_entry(
    project: Project,
) -> None:
    pushes, late = [pushed("a", 0), pushed("b", 3)], "start a 9 x, end a 9.1"
    for thawed, told in (({}, True), ({2: [8.5]}, False), ({2: [1.0]}, True), ({3: [8.5]}, True)):
        means = MeansFacts(unique=pushes, thawed=thawed)
        assert bool(violations(project, ["a", "b"], ENDED, late, means=means)) is told


def test_two_answers_to_one_request_and_entries_beside_its_answer_are_seen(project: Project) -> None:
    def seen(handled: str, *answers: Answer) -> str:
        return "".join(
            violations(project, ["a", "b"], handled, doubtful=9, means=MeansFacts(answers=answers))
        )

    handled, one = (
        "start a 1 request-1-x, end a 1, start b 1 request-1-y, end b 1",
        Answer(request="request-1", keys=("a", "b")),
    )
    assert seen(handled, one, one) == ""
    assert "one request had two answers: ['request-1']" in seen(
        handled, one, Answer(request="request-1", keys=("a", "c"))
    )
    assert "[('request-1', 'c')]" in seen(f"{handled}, start c 2 request-1-x, end c 2", one)


@pytest.mark.parametrize(
    ("name", "means", "is_named"),
    [
        ("limited-a", {}, False),
        ("limited-a", {"overlapped": {1: 6.0}}, True),
        ("limited-a", {"overlapped": {1: 8.0}}, False),
        ("limited-a", {"overlapped": {9: 6.0}}, False),
        ("limited-a", {"fenced": {10: 6.0}}, False),
        ("exclusive", {"fenced": {10: 6.0}}, True),
        ("exclusive", {"fenced": {10: 8.0}}, False),
        ("batch-on-a", {"fenced": {10: 6.0}, "overlapped": {}}, False),
    ],
)
def test_more_at_a_time_than_a_limit_are_seen_unless_the_log_names_them(
    project: Project, name: str, means: dict[str, Any], is_named: bool
) -> None:
    journal = f"start a 7 x, over a 7 {name} 1 1.10 2.20, end a 7.1"
    found = violations(project, ["a"], journal, means=MeansFacts(**means))
    assert bool(found) is not is_named
    assert is_named or "the log names none" in found[0]


def test_more_starts_in_a_period_than_a_rate_are_seen(project: Project) -> None:
    keys = [f"k{number}" for number in range(101)]
    for seconds, told in ((5.5, ""), (4.0, "101 starts in 5 s")):
        times = [
            f"start {key} {100 + seconds * n / 101} rated-a, end {key} 200" for n, key in enumerate(keys)
        ]
        found = "".join(violations(project, keys, ", ".join(times)))
        assert told in found
        assert bool(told) == bool(found)
    assert violations(project, keys, ", ".join(times), means=MeansFacts(thawed={1: [102.5]})) == []


@pytest.mark.parametrize(
    ("journals", "is_seen"),
    [
        (("start a 1 once, effect a 1 first", "start a 2 once, effect a 2 again, done a 3, end a 3"), False),
        (("start a 1 once, effect a 1 first, done a 2", "start a 3 once, done a 3, end a 3"), False),
        (("start a 1 once, effect a 1 first", "start a 2 once, effect a 2 first, done a 3, end a 3"), True),
        (("start a 1 once, effect a 1 first, done a 2", "start a 3 once, effect a 3 again, end a 3"), True),
    ],
)
def test_an_effect_that_happens_again_is_seen(
    project: Project, journals: tuple[str, ...], is_seen: bool
) -> None:
    found = violations(project, ["a"], *journals)
    assert bool(found) is is_seen
    assert not is_seen or "effects that happened again: ['a'" in found[0]


def test_async_handlers_that_have_ended_are_in_hand_until_their_loop_goes_on(project: Project) -> None:
    both = "start a 1 async, start b 1 async, end a 2 async, end b 2 async"
    again = "start a, end a", "start b, end b, start c, end c"
    lived: dict[int, float] = {2: 0.0, 3: 0.0}
    keys = ["a", "b", "c"]
    assert violations(project, keys, f"{both}, start c 2 async", *again, survivors=lived) == []
    settled = f"{both}, settled a 3, settled b 3, start c 3"
    found = violations(project, keys, settled, *again, survivors=lived)
    assert any("though no worker died on it: ['a', 'b']" in text for text in found)


def test_a_handler_that_fails_has_nothing_in_hand(project: Project) -> None:
    found = violations(project, ["a", "b"], "start a, failed a, start b, end b", "start a, end a", survivor=2)
    assert any("though no worker died on it: ['a']" in text for text in found)


TO = list(recipients_of("a.M1,S=5"))
ONCE_EACH = dict.fromkeys(TO, 1)
SENT, AGAIN = f"sending {TO[0]} 1 k, sent {TO[0]} 2", f"sending {TO[0]} 3 k, sent {TO[0]} 4"


@pytest.mark.parametrize(
    ("copies", "journals", "more", "told"),
    [
        (ONCE_EACH, (SENT,), {}, ""),
        ({TO[0]: 1, TO[1]: 1}, (SENT,), {}, "1 recipients have not got what was sent"),
        (ONCE_EACH | {"0.b@next.test": 1}, (SENT,), {}, "though nobody was to: ['0.b@next.test']"),
        (ONCE_EACH | {TO[0]: 2}, (f"sending {TO[0]} 1 k", AGAIN), {}, ""),
        (ONCE_EACH | {TO[0]: 2}, (SENT, AGAIN), {}, ""),  # it died before its ack
        (ONCE_EACH | {TO[0]: 2}, (f"{SENT} async, sending {TO[1]} 3 j", AGAIN), {}, ""),
        (
            ONCE_EACH | {TO[0]: 2},
            (f"{SENT} async, settled {TO[0]} 3, sending {TO[1]} 3 j", AGAIN),
            {},
            "copies beyond one",
        ),
        (ONCE_EACH | {TO[0]: 3}, (SENT, AGAIN), {}, "copies beyond one"),
        (
            ONCE_EACH | {TO[0]: 2},
            (f"{SENT}, sending {TO[1]} 3 j, sent {TO[1]} 4", AGAIN),
            {},
            "copies beyond one",
        ),
        (ONCE_EACH | {TO[1]: 2}, (SENT, AGAIN), {}, "copies beyond one"),
        (ONCE_EACH | {TO[0]: 2}, (SENT, f"sending {TO[0]} 3 j, sent {TO[0]} 4"), {}, "more than one entry"),
        (ONCE_EACH, (SENT,), {"left": 1}, "1 entries are left in the outgoing queue"),
        (ONCE_EACH, (SENT,), {"buried": [(TO[0], "550")]}, "buried in the outgoing queue"),
    ],
)
def test_a_recipient_without_the_mail_or_with_more_than_one_for_no_death_is_seen(
    project: Project, copies: dict[str, int], journals: tuple[str, ...], more: dict[str, Any], told: str
) -> None:
    sending = SendingFacts(keys=["a.M1,S=5"], copies=copies, **more)
    handled = "start a.M1,S=5 1 sending, end a.M1,S=5 2"
    found = "".join(
        violations(project, ["a.M1,S=5"], handled, *journals, survivors={3: 0.0}, sending=sending)
    )
    assert told in found
    assert bool(told) == bool(found)


def test_a_copy_beyond_one_is_explained_by_a_claim_that_a_frozen_worker_lost(project: Project) -> None:
    sending = SendingFacts(keys=["a.M1,S=5"], copies=ONCE_EACH | {TO[0]: 2})
    handled = "start a.M1,S=5 1 sending, end a.M1,S=5 2"
    for lost, is_seen in ((["k"], False), (["j"], True)):
        found = violations(
            project,
            ["a.M1,S=5"],
            handled,
            SENT,
            AGAIN,
            survivors={2: 0.0, 3: 0.0},
            sending=sending,
            lost_claims=lost,
        )
        assert bool(found) is is_seen


def test_a_handler_that_raises_on_purpose_is_called_again(project: Project) -> None:
    journals = ("start a, raised a, start b, end b", "start a, end a")
    assert violations(project, ["a", "b"], *journals, survivors={1: 0.0, 2: 0.0}) == []
    assert (
        violations(project, ["a", "b"], *journals, "start a, end a", survivors={1: 0.0, 2: 0.0, 3: 0.0}) != []
    )
