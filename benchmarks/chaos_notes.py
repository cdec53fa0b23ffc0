"""What one worker process of a run of chaos wrote down: see `workers/notes.py` of its application."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A message's handler began."""

    key: str
    at: float  # monotonic
    what: str  # the recipient's local part


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """More ran at a time than were to."""

    name: str
    at: float  # monotonic
    most: int
    running: tuple[tuple[int, int], ...]  # pid, and its supervisor's


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What is to happen once was begun, for the first time or after an attempt that was interrupted."""

    key: str
    at: float  # monotonic
    is_first: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """A delivery of an entry of the outgoing queue was begun."""

    recipient: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """The notes of one process, in order."""

    pid: int
    began: float  # in seconds since the boot, since pids come again
    supervisor: int
    starts: Sequence[Start]
    ends: Sequence[tuple[str, float]]
    early: Sequence[str]
    excesses: Sequence[Excess]
    effects: Sequence[Effect]
    done: Sequence[tuple[str, float]]  # keys whose effect has ended, and is remembered
    last: Sequence[str]
    """The keys that it began with since it had none in hand, nor to settle: of one call, alone or in company. In a dead
    one, the handlers of some may have ended, and their acks not."""
    in_hand: Sequence[str]
    """Of these, the keys whose handlers had not ended."""
    raised: Sequence[str] = ()
    """Keys whose handlers raised on purpose: they are handled again."""
    sends: Sequence[Send] = ()
    last_sent: Sequence[str] = ()
    """The recipients to whom it began to send since it had none in hand, as `last`."""


def read(path: Path) -> Journal:
    """Whole lines only: WORD KEY SECONDS, and more of some."""
    pid, began, supervisor, *_ = (*path.name.split("-"), "0")
    starts: list[Start] = []
    ends: list[tuple[str, float]] = []
    early: list[str] = []
    excesses: list[Excess] = []
    effects: list[Effect] = []
    done: list[tuple[str, float]] = []
    last: list[str] = []
    in_hand: Counter[str] = Counter()
    raised: list[str] = []
    sends: list[Send] = []
    last_sent: list[str] = []
    sending: Counter[str] = Counter()
    # Of async handlers: others may begin after several have ended, and before their acks.
    unsettled: set[str] = set()
    for line in path.read_text().splitlines(keepends=True):
        match line.split() if line.endswith("\n") else []:
            case ["start", key, *more]:
                seconds, what = (*more, *("0", "")[len(more) :])
                starts.append(Start(key=key, at=float(seconds), what=what))
                last = [*(last if in_hand.total() or unsettled else ()), key]
                in_hand[key] += 1
            case ["end", key, *more]:
                ends.append((key, float(more[0] if more else 0)))
                in_hand[key] -= 1
                unsettled.update((key,) if more[1:] else ())
            case ["failed", key, *_]:
                in_hand[key] -= 1
            case ["raised", key, *_]:
                in_hand[key] -= 1
                raised.append(key)
            case ["sending", recipient, _, key]:
                sends.append(Send(recipient=recipient, key=key))
                last_sent = [*(last_sent if sending.total() or unsettled else ()), recipient]
                sending[recipient] += 1
            case ["sent" | "unsent", recipient, _, *more]:
                sending[recipient] -= 1
                unsettled.update((recipient,) if more else ())
            case ["settled", key, *_]:
                unsettled.discard(key)
            case ["effect", key, at, which]:
                effects.append(Effect(key=key, at=float(at), is_first=which == "first"))
            case ["done", key, at]:
                done.append((key, float(at)))
            case ["early", key, *_]:
                early.append(key)
            case ["over", _, at, name, most, *running]:
                pids = tuple((int(one.partition(".")[0]), int(one.partition(".")[2])) for one in running)
                excesses.append(Excess(name=name, at=float(at), most=int(most), running=pids))
    return Journal(
        pid=int(pid),
        began=int(began) / 1e9,
        supervisor=int(supervisor),
        starts=starts,
        ends=ends,
        early=early,
        excesses=excesses,
        effects=effects,
        done=done,
        last=last,
        in_hand=list((+in_hand).elements()),
        raised=raised,
        sends=sends,
        last_sent=last_sent,
    )
