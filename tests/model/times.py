"""Small models in which time counts, in ticks: a server that is away, and an owner that keeps silent by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from tests.model.explore import Model, Result, Step, Violation, explore

_BEAT, _TTL, _RETRY = 2, 12, 3  # a TTL is three beats and two of the longest waits for a retry
_LONGEST_OUTAGE: Final = 16
_LONG: Final = 2 * _TTL  # as good as any longer time


class Outage(NamedTuple):
    server: str = "up"  # down, in its grace time: it lists then, but renames nothing
    lasted: int = 0
    owners_age: int = 0  # of its last beat
    owners_wait: int = 0  # since its next one was due and the server up
    own_age: int = 0  # the observer's
    own_wait: int = 0
    gap: int = 0  # since the observer could list
    timer: int = 0  # for how long the observer counts the owner silent


class OutageModel:
    """A healthy owner and a healthy observer; which time may count as the owner's silence?

    `counts`: all time; time with listings (anew after one that has failed); time with the observer's own beats.
    """

    initial = Outage()

    def __init__(self, counts: str) -> None:
        self._counts = counts

    def is_over(self, state: Outage) -> bool:
        return False

    def is_end(self, state: Outage) -> bool:
        return True

    def steps(self, state: Outage) -> Iterator[Step]:
        if state.server == "up" and state.timer >= _TTL:
            raise Violation("a healthy owner is fenced")
        for server in _may_follow(state):
            lasted = state.lasted + (server != "up")
            if lasted > _LONGEST_OUTAGE:
                continue
            for owners in _may_beat(server, state.owners_age):
                for own in _may_beat(server, state.own_age):
                    after = self._after(state, server, lasted, owners, own)
                    if max(after.owners_wait, after.own_wait) <= _RETRY:
                        told = (
                            f"server {server},",
                            "owner beats," * owners,
                            "observer beats," * own,
                            after.timer,
                        )
                        yield Step(after, told)

    def _after(self, state: Outage, server: str, lasted: int, owners: bool, own: bool) -> Outage:
        is_up, lists = server == "up", server != "down"
        starts_anew = (
            owners
            or {
                "all time": False,
                "time with listings": lists and state.gap > 0,
                "time with own beats": state.own_age + 1 > 2 * _BEAT,
            }[self._counts]
        )
        return Outage(
            server,
            lasted,
            0 if owners else min(state.owners_age + 1, _LONG),
            state.owners_wait + 1 if is_up and not owners and state.owners_age + 1 >= _BEAT else 0,
            0 if own else min(state.own_age + 1, _LONG),
            state.own_wait + 1 if is_up and not own and state.own_age + 1 >= _BEAT else 0,
            0 if lists else state.gap + 1,
            0 if starts_anew else min(state.timer + 1, _LONG),
        )


def _may_follow(state: Outage) -> list[str]:
    match state.server:
        case "down":
            return ["down", "grace"]
        case "grace":
            return ["grace", "up"]
    return ["up"] if state.lasted else ["up", "down"]


def _may_beat(server: str, age: int) -> tuple[bool, ...]:
    return (False, True) if server == "up" and age + 1 >= _BEAT else (False,)


class Silence(NamedTuple):
    beat: str = "answered"  # sent, carried out
    sent: int = 0  # ticks since
    last_good: int = 0  # the age of the last good beat, as its owner counts it
    changed: int = 0  # since the lease's name has changed
    is_fenced: bool = False


class SilenceModel:
    """An owner sends no claim once its last good beat is half a TTL old. Is that since it was sent, or answered?"""

    initial = Silence()

    def __init__(self, counts_from: str) -> None:
        self._counts_from = counts_from

    def is_over(self, state: Silence) -> bool:
        return False

    def is_end(self, state: Silence) -> bool:
        return True

    def steps(self, state: Silence) -> Iterator[Step]:
        if state.is_fenced and state.last_good <= _TTL // 2:
            raise Violation("a claim is sent under a fenced lease")
        later = [min(ticks + 1, _LONG) for ticks in state[1:4]]
        yield Step(state._replace(sent=later[0], last_good=later[1], changed=later[2]), ("a tick",))
        if state.beat == "answered":
            yield Step(state._replace(beat="sent", sent=0), ("a beat is sent",))
        if state.beat == "sent" and not state.is_fenced:
            yield Step(state._replace(beat="carried out", changed=0), ("the beat is carried out",))
        if state.beat == "carried out":
            age = state.sent if self._counts_from == "sent" else 0
            yield Step(state._replace(beat="answered", last_good=age), ("its reply arrives",))
        if state.changed >= _TTL and not state.is_fenced:
            yield Step(state._replace(is_fenced=True), ("the lease is fenced",))


class TimesRun(NamedTuple):
    what: str
    model: Model[Any]
    is_sound: bool = True

    def explored(self) -> Result:
        return explore(self.model)


RUNS: Final = (
    TimesRun("an outage: time with own beats counts", OutageModel("time with own beats")),
    TimesRun("an outage: time with listings counts", OutageModel("time with listings"), is_sound=False),
    TimesRun("an outage: all time counts", OutageModel("all time"), is_sound=False),
    TimesRun("silence since the beat was sent", SilenceModel("sent")),
    TimesRun("silence since the beat was answered", SilenceModel("answered"), is_sound=False),
)
