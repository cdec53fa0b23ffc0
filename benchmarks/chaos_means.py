"""What is promised beside that nothing is lost: of unique keys, requests, limits, exclusive calls, effects once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

from benchmarks.chaos_notes import Excess, Journal
from tests.lifecycle.project import TTL_SECONDS

STARTS, PERIOD_SECONDS = 100, 5.0  # of `workers.limited.RATED`
_LATE_SECONDS = 0.5  # from the slot to the note of a start
_THAW_SECONDS = 1.0
_LOG_SECONDS = 0.1  # from what a process does to its line in the log
_BLOCKED_SECONDS = 5 * TTL_SECONDS  # that a unique key may be held after the end of its entry

Check = tuple[bool, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class UniquePush:
    """A push with a unique key, and what it was told."""

    unique: str
    key: str
    is_new: bool
    began: float  # monotonic
    returned: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The keys that a front end answered to a request; the same request may be made again."""

    request: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeansFacts:
    """What the driver saw of the means."""

    unique: Sequence[UniquePush] = ()
    answers: Sequence[Answer] = ()
    unanswered: int = 0  # requests without an answer: each may have stored a part of its drafts
    fenced: Mapping[int, float] = field(default_factory=dict)  # by a supervisor's pid: when, as the log says
    # By a worker's pid: when its slots were reclaimed.
    overlapped: Mapping[int, float] = field(default_factory=dict)
    # By pid: when a frozen process went on.
    thawed: Mapping[int, Sequence[float]] = field(default_factory=dict)


def judge_means(
    facts: MeansFacts, journals: Sequence[Journal], dead: Mapping[str, str]
) -> tuple[list[tuple[str, object]], list[Check]]:
    """Rows for the table, and what has to hold; `dead` are the dead letters' keys."""
    named, unnamed = _excesses(facts, journals)
    twice = list(_held_by_two(facts, journals, dead))
    blocked = list(_blocked(facts, journals))
    differing, doubled = list(_differing(facts)), list(_doubled(facts, journals))
    repeated = list(_repeated(facts, journals))
    most = _most_starts(facts, journals)
    whats = Counter(start.what.partition("-")[0] for journal in journals for start in journal.starts)
    rows: list[tuple[str, object]] = [
        ("pushes with a unique key", len(facts.unique)),
        ("… that stored an entry", sum(push.is_new for push in facts.unique)),
        ("… while another had not ended", len(twice)),
        ("requests by HTTP, made again and again", len({answer.request for answer in facts.answers})),
        ("… of which the answers differ", len(differing)),
        ("… of which entries were handled that no answer names", len(doubled)),
        *(
            (f"handlings of {what}", whats[what])
            for what in ("limited", "rated", "batch", "exclusive", "async")
        ),
        ("effects that are to happen once, begun", sum(len(journal.effects) for journal in journals)),
        ("… after they had ended, or as if for the first time", len(repeated)),
        ("more at a time than a limit, beside fenced hosts' workers that the log names", len(named)),
        ("more at a time than a limit, otherwise", len(unnamed)),
        (f"most starts in {PERIOD_SECONDS:g} s, with a rate of {STARTS}", most),
    ]
    checks = [
        (not twice, f"two entries of one unique key had not ended: {twice[:3]}"),
        (not blocked, f"an entry that had ended held its unique key: {blocked[:3]}"),
        (not differing, f"one request had two answers: {differing[:3]}"),
        (not doubled, f"entries of a request that no answer names: {doubled[:3]}"),
        (not repeated, f"effects that happened again: {repeated[:3]}"),
        (not unnamed, f"more at a time than were to, and the log names none: {unnamed[:3]}"),
        (most <= STARTS, f"{most} starts in {PERIOD_SECONDS:g} s, with a rate of {STARTS}"),
    ]
    return rows, checks


def _held_by_two(
    facts: MeansFacts, journals: Sequence[Journal], dead: Mapping[str, str]
) -> Iterator[tuple[str, str, str]]:
    """Unique keys whose next entry was accepted before the last one had ended.

    A worker that is frozen after its claim may begin with what others have ended.
    """
    started: defaultdict[str, list[float]] = defaultdict(list)
    ended: dict[str, float] = {}
    for journal in journals:
        for start in journal.starts:
            if not _was_frozen(facts, journal, start.at):
                started[start.key].append(start.at)
        for key, at in journal.ends:
            ended[key] = min(at, ended.get(key, at))
    for unique, pushes in _by_unique(facts).items():
        for one, following in pairwise(push for push in pushes if push.is_new):
            if one.key in dead:
                continue
            late = [at for at in started[one.key] if at > following.returned]
            if late or ended.get(one.key, following.returned + 1) > following.returned:
                yield unique, one.key, following.key


def _blocked(facts: MeansFacts, journals: Sequence[Journal]) -> Iterator[tuple[str, str, float]]:
    """Pushes that were told of an entry long after it had ended."""
    ended: dict[str, float] = {}
    for journal in journals:
        for key, at in journal.ends:
            ended[key] = max(at, ended.get(key, at))
    for push in facts.unique:
        seconds = push.began - ended.get(push.key, push.began)
        if not push.is_new and seconds > _BLOCKED_SECONDS:
            yield push.unique, push.key, seconds


def _by_unique(facts: MeansFacts) -> Mapping[str, list[UniquePush]]:
    found: defaultdict[str, list[UniquePush]] = defaultdict(list)
    for push in facts.unique:
        found[push.unique].append(push)
    return found


def _differing(facts: MeansFacts) -> Iterator[str]:
    found: dict[str, tuple[str, ...]] = {}
    for answer in facts.answers:
        if found.setdefault(answer.request, answer.keys) != answer.keys:
            yield answer.request


def _doubled(facts: MeansFacts, journals: Sequence[Journal]) -> Iterator[tuple[str, str]]:
    """Entries that were handled for a request, and that its answer does not name."""
    named = {answer.request: answer.keys for answer in facts.answers}
    for journal in journals:
        for start in journal.starts:
            request = start.what.rpartition("-")[0]  # request-NUMBER-RECIPIENT
            if start.what.startswith("request-") and start.key not in named.get(request, (start.key,)):
                yield request, start.key


def _repeated(facts: MeansFacts, journals: Sequence[Journal]) -> Iterator[str]:
    """Keys of messages whose effect began after it had ended, or twice without being told of the attempt before."""
    done: dict[str, float] = {}
    for key, at in (found for journal in journals for found in journal.done):
        done[key] = min(at, done.get(key, at))
    firsts = Counter(effect.key for journal in journals for effect in journal.effects if effect.is_first)
    for journal in journals:
        for effect in journal.effects:
            is_late = effect.at > done.get(effect.key, effect.at)
            if firsts[effect.key] > 1 or (is_late and not _was_frozen(facts, journal, effect.at)):
                yield effect.key


def _excesses(facts: MeansFacts, journals: Sequence[Journal]) -> tuple[list[Excess], list[Excess]]:
    """More at a time than were to: where the log names those that were too many, and otherwise.

    A limit's slots that were reclaimed of a dead host are told with their worker; of an exclusive call it is told that
    its host was fenced.
    """
    named: list[Excess] = []
    unnamed: list[Excess] = []
    for excess in (excess for journal in journals for excess in journal.excesses):
        told = [
            pid
            for pid, supervisor in excess.running
            if facts.overlapped.get(pid, inf) < excess.at + _LOG_SECONDS
            or (excess.name == "exclusive" and facts.fenced.get(supervisor, inf) < excess.at + _LOG_SECONDS)
        ]
        (named if len(excess.running) - len(told) <= excess.most else unnamed).append(excess)
    return named, unnamed


def _was_frozen(facts: MeansFacts, journal: Journal, at: float) -> bool:
    """Whether the process had been frozen just before that time: between its claim, or its slot, and the note."""
    return any(0 <= at - thaw < _THAW_SECONDS for thaw in facts.thawed.get(journal.pid, ()))


def _most_starts(facts: MeansFacts, journals: Sequence[Journal]) -> int:
    """The most starts of one key in any period; without those of workers that had been frozen before their note."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    for journal in journals:
        for start in journal.starts:
            if start.what.startswith("rated-") and not _was_frozen(facts, journal, start.at):
                times[start.what].append(start.at)
    most = 0
    for found in map(sorted, times.values()):
        first = 0
        for number, at in enumerate(found):
            while found[first] <= at - PERIOD_SECONDS + _LATE_SECONDS:
                first += 1
            most = max(most, number - first + 1)
    return most
