"""Named views of the scoreboard's records, for everything but the workers' hot path, which reads words by index.

A view holds no state: it reads and writes the scoreboard's memory, each word in one load or store.
"""

from __future__ import annotations

from collections.abc import Iterator

from maildefer.pool.scoreboard import Header, ProcessKind, QueueWord, Scoreboard, SlotWord, State


class RecordView:
    """A record: so many words from its base on."""

    __slots__ = ("_base", "_words")

    def __init__(self, words: memoryview, base: int) -> None:
        self._words = words
        self._base = base


class Word:
    """A word of a record as a number."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def __get__(self, view: RecordView, kind: type[RecordView]) -> int:
        return view._words[view._base + self._offset]

    def __set__(self, view: RecordView, value: int) -> None:
        view._words[view._base + self._offset] = value


class Moment:
    """A word that holds a time on the boot clock in nanoseconds, as seconds; 0.0: never."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def __get__(self, view: RecordView, kind: type[RecordView]) -> float:
        return view._words[view._base + self._offset] / 1e9

    def __set__(self, view: RecordView, seconds: float) -> None:
        view._words[view._base + self._offset] = int(seconds * 1e9)


class Duration:
    """A word that holds milliseconds, as seconds."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def __get__(self, view: RecordView, kind: type[RecordView]) -> float:
        return view._words[view._base + self._offset] / 1000

    def __set__(self, view: RecordView, seconds: float) -> None:
        view._words[view._base + self._offset] = round(seconds * 1000)


class HeaderView(RecordView):
    """The header, which all processes of the pool share."""

    __slots__ = ()

    tick = Moment(Header.TICK)
    paused = Word(Header.PAUSED)
    draining = Word(Header.DRAINING)
    deaths = Word(Header.DEATHS)
    started = Moment(Header.STARTED)
    keeper_seen = Moment(Header.KEEPER)
    scout_seen = Moment(Header.SCOUT)
    used_slots = Word(Header.USED)
    invalid_offers = Word(Header.INVALID_OFFERS)

    def __init__(self, board: Scoreboard) -> None:
        super().__init__(board.words, 0)

    @property
    def token_queue(self) -> int | None:
        """The queue in which conversation tokens lie, once one was taken."""
        return self._words[Header.TOKENS] - 1 if self._words[Header.TOKENS] else None


class QueueRecordView(RecordView):
    """The record of one queue."""

    __slots__ = ()

    state = Word(QueueWord.STATE)
    beat = Moment(QueueWord.BEAT)
    claim_until = Moment(QueueWord.CLAIM_UNTIL)
    generation = Word(QueueWord.GENERATION)
    hosts = Word(QueueWord.HOSTS)
    index_of_host = Word(QueueWord.INDEX)
    paused_until = Moment(QueueWord.PAUSED_UNTIL)
    faults = Word(QueueWord.FAULTS)
    unrouted = Word(QueueWord.UNROUTED)
    clock_offset = Word(QueueWord.CLOCK_OFFSET)
    is_local = Word(QueueWord.LOCAL)
    pause_code = Word(QueueWord.PAUSE_CODE)
    has_priorities = Word(QueueWord.PRIORITIES)
    scans = Word(QueueWord.SCANS)
    beats = Word(QueueWord.BEATS)
    fences = Word(QueueWord.FENCES)
    reclaims = Word(QueueWord.RECLAIMS)
    ttl_seconds = Duration(QueueWord.FORMAT_TTL)
    limited = Word(QueueWord.LIMITED)
    paused = Word(QueueWord.PAUSED)

    def __init__(self, board: Scoreboard, index: int) -> None:
        super().__init__(board.words, board.queue(index))


class SlotView(RecordView):
    """The slot of one child."""

    __slots__ = ()

    pid = Word(SlotWord.PID)
    kind = Word(SlotWord.KIND)
    state = Word(SlotWord.STATE)
    queue = Word(SlotWord.QUEUE)
    deadline = Moment(SlotWord.DEADLINE)
    handled = Word(SlotWord.HANDLED)
    acked = Word(SlotWord.ACKED)
    deferred = Word(SlotWord.DEFERRED)
    failed = Word(SlotWord.FAILED)
    buried = Word(SlotWord.BURIED)
    released = Word(SlotWord.RELEASED)
    handed_off = Word(SlotWord.HANDED)
    lost = Word(SlotWord.LOST)
    started = Moment(SlotWord.STARTED)
    generation = Word(SlotWord.GENERATION)
    began = Moment(SlotWord.BEGAN)
    handler_length = Word(SlotWord.HANDLER_LENGTH)
    tokens = Word(SlotWord.TOKENS)
    waits_for = Word(SlotWord.WAITS_FOR)
    turned = Moment(SlotWord.TURNED)
    lines_since = Moment(SlotWord.LINES_SINCE)
    exit_word = Word(SlotWord.EXIT)
    died = Moment(SlotWord.DIED)
    limit_seconds = Duration(SlotWord.LIMIT)
    most_timeouts = Word(SlotWord.MOST_TIMEOUTS)

    def __init__(self, board: Scoreboard, slot: int) -> None:
        super().__init__(board.words, board.slot(slot))

    @property
    def is_worker(self) -> bool:
        """Whether a worker has the slot, alive or dead."""
        return self.kind == ProcessKind.WORKER

    @property
    def is_dead(self) -> bool:
        """Whether it waits for its claims to be reclaimed."""
        return self.state in (State.DEAD_CHARGED, State.DEAD_UNCHARGED)


def free_slots(board: Scoreboard) -> Iterator[int]:
    """List the workers' slots that no process has and whose claims are all reclaimed, the first ones first."""
    return (slot for slot in range(board.slots - 2) if SlotView(board, slot).kind == ProcessKind.FREE)
