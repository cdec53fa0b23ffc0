"""What becomes of what the handlers of a message push: seen when they have returned, all of it or nothing."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from maildefer.errors import MountFault
from maildefer.handling import handler_marks, undeliverable
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.outcomes import ACKED, Defer, HandedOff, Outcome, Reject
from maildefer.handling.project import settings
from maildefer.handling.retry import RetryPolicy
from maildefer.handling.routes import RoutingBase
from maildefer.maildir import durable
from maildefer.maildir.claims import Claimer
from maildefer.maildir.drafts.placer import DraftPlacer
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.names import EntryName
from maildefer.maildir.outbox import current, outputs
from maildefer.maildir.outbox.publish import Outboxes
from maildefer.maildir.push import Pusher
from maildefer.maildir.system import SYSTEM, System
from maildefer.message.envelope import block
from maildefer.message.outgoing.relay import Relay
from maildefer.message.smtp_error import SMTPError
from maildefer.pool.attempt_log import AttemptLog
from maildefer.pool.worker.attempt import QueueAttempts
from maildefer.pool.worker.settle import Settler
from maildefer.queue import Queue
from tests.support import next_server
from tests.support.deaths import Death, Mortal
from tests.support.queues import LABEL, FakeSlots, World

Handler = Callable[..., object]
MAIL = b"From: ann@x.test\nTo: post@x.test\nSubject: x\n\nhi\n"


class _Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str | None]] = []

    def add(self, *line: Any, reason: str | None = None) -> None:
        self.lines.append((line[3], reason))

    def flush(self) -> None:
        pass


class Bench:
    """Two queues: what is handled in `first`, and `out`, to which its handlers send."""

    def __init__(self, path: Path, *, system: System | None = None) -> None:
        self.world, self.slots, self.log = World(seconds=1_800_000_000.0), FakeSlots(), _Log()
        self.system = system or self.world.system
        self.first, self.out = (create_queue(str(path / name)) for name in ("first", "out"))
        self.router = RoutingBase()
        self.handed_to: str | None = None
        self.returned: list[BaseException] = []
        self.outboxes = self.fresh_outboxes()
        self.begun = 0

    def fresh_outboxes(self) -> Outboxes:
        return Outboxes(lambda: [self.first, self.out], system=self.system)

    def handle(self, *handlers: Handler) -> None:
        """Have these handlers, each for all messages."""
        for number, handler in enumerate(handlers):

            def stateless(message: Any, handler: Handler = handler) -> object:
                self.begun += 1
                return handler(message)

            stateless.__name__ = stateless.__qualname__ = f"HANDLER{number}"
            handler_marks.mark_stateless(stateless)
            self.router.register_route("(?s:.*)", stateless)

    def attempts(self, queue: Layout) -> QueueAttempts:
        settler = Settler(
            policy=RetryPolicy(),
            layouts={"out": self.out, queue.path: queue},
            host=LABEL,
            is_ending=lambda: True,
            open_queue=lambda path: Layout(path),
        )
        return QueueAttempts(
            queue=queue.path,
            dispatcher=Dispatcher(self.router),
            settler=settler,
            log=cast(AttemptLog, self.log),
            return_claim=lambda claim, fault: self.returned.append(fault),
            note_settled=lambda claim, outcome, word: None,
            keeps_outputs=True,
            outboxes=lambda: self.outboxes,
        )

    def claimer(self, queue: Layout) -> Claimer:
        return Claimer(queue, self.slots, lease="host-1-abcdef", host=LABEL, local=True, system=self.system)

    def attempt(self, queue: Layout | None = None, *, outcome: Outcome | None = None) -> None:
        """Make an attempt at what waits first; `outcome` stands in for what its handlers end in."""
        queue = queue or self.first
        claim = self.claimer(queue).claim(min(os.listdir(queue.new)))
        assert claim is not None
        attempts = self.attempts(queue)
        if outcome is not None:

            def run(handlers: Any, messages: Any, claims: Any) -> Any:
                handlers(messages)
                return outcome, "h"

            attempts.run_handlers = run
        attempts.make(claim, attempts.read)

    def push(self, queue: Layout | None = None) -> None:
        Pusher(queue or self.first, host=LABEL).push(lambda stem: [MAIL])

    @property
    def sent(self) -> list[bytes]:
        return [Path(self.out.new, name).read_bytes() for name in sorted(os.listdir(self.out.new))]

    @property
    def drafts(self) -> list[str]:
        box = outputs.outbox_of(self.out)
        return os.listdir(box) if os.path.isdir(box) else []

    def waiting(self, folder: str = "new") -> list[EntryName]:
        return [EntryName.parse(name) for name in os.listdir(f"{self.first.path}/{folder}")]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    outputs._durable.clear()
    made = Bench(tmp_path)
    made.push()
    monkeypatch.setattr(settings, "loaded_settings", lambda: None)
    return made


def test_what_a_handler_pushes_is_seen_when_it_has_returned(bench: Bench) -> None:
    seen: list[list[bytes]] = []

    def handler(message: Any) -> None:
        Queue(bench.out.path).push(b"one")
        Queue(bench.out.path).push(b"two")
        seen.append(bench.sent)

    bench.handle(handler)
    bench.attempt()
    assert (seen, sorted(bench.sent)) == ([[]], [b"one", b"two"])
    assert (bench.drafts, bench.waiting(), bench.waiting("cur")) == ([], [], [])
    assert bench.log.lines == [("acked", None)]


def test_a_report_that_a_message_is_done_is_pushed_before_the_commit_after_which_no_handler_runs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def report(claim: Any, message: Any, action: str, *rest: Any) -> None:
        told.append((action, claim.committed, len(bench.sent)))

    monkeypatch.setattr(undeliverable, "report", report)
    for name in os.listdir(bench.first.new):
        os.unlink(f"{bench.first.new}/{name}")
    for dsn in ("NOTIFY=SUCCESS", "NOTIFY=FAILURE"):
        asks = partial(block, sender="a@x", recipient="b@x", host="h", when=0, via="push", dsn=dsn)
        Pusher(bench.first, host=LABEL).push(lambda stem, asks=asks: [asks(stem), MAIL])  # type: ignore[misc]
    bench.handle(lambda message: Queue(bench.out.path).push(b"one"))
    bench.attempt()
    bench.attempt()
    assert (told, len(bench.sent)) == ([("delivered", "", 0)], 2)


@pytest.mark.parametrize(
    "fault", [ValueError("x"), Defer("x"), Reject("x"), SMTPError(451), SMTPError(550), SystemExit(1)]
)
def test_nothing_is_seen_of_what_a_handler_pushes_that_raises(bench: Bench, fault: BaseException) -> None:
    def handler(message: Any) -> None:
        Queue(bench.out.path).push(b"one")
        raise fault

    bench.handle(handler)
    bench.attempt()
    assert (bench.sent, bench.drafts, os.listdir(bench.out.tmp)) == ([], [], [])


def test_what_has_to_go_regardless_is_seen_at_once(bench: Bench) -> None:
    seen: list[list[bytes]] = []

    def handler(message: Any) -> None:
        Queue(bench.out.path).push(b"alarm", now=True)
        Queue(bench.out.path).push(b"only one", unique="alarm")
        seen.append(bench.sent)
        raise ValueError("x")

    bench.handle(handler)
    bench.attempt()
    assert [sorted(each) for each in (*seen, bench.sent)] == [[b"alarm", b"only one"]] * 2


def test_of_several_handlers_of_a_message_all_are_done_or_nothing_is_seen(bench: Bench) -> None:
    def fails(message: Any) -> None:
        if message.attempt == 1:
            raise ValueError("x")
        Queue(bench.out.path).push(b"of the second")

    bench.handle(lambda message: Queue(bench.out.path).push(b"of the first") and None, fails)
    bench.attempt()
    assert (bench.sent, bench.drafts) == ([], [])
    [deferred] = os.listdir(bench.first.later_new)
    os.rename(f"{bench.first.later_new}/{deferred}", f"{bench.first.new}/{deferred.partition(',d=')[0]}")
    bench.attempt()
    assert sorted(bench.sent) == [b"of the first", b"of the second"]


def test_a_relay_puts_one_entry_for_each_recipient_into_the_queue(bench: Bench) -> None:
    relay = Relay(queue=bench.out.path)

    def handler(message: Any) -> None:
        relay.deliver(
            b"Subject: y\n\nhi\n", To=["a@x.test", "b@x.test", "a@x.test", "c@x.test"], From="me@x.test"
        )
        assert bench.sent == []

    bench.handle(handler)
    bench.attempt()
    sent = [Queue(bench.out.path).get(key) for key in sorted(os.listdir(bench.out.new))]
    assert [(one.From, one.To) for one in sent] == [("me@x.test", f"{to}@x.test") for to in "abc"]
    assert len({one["Message-ID"] for one in sent}) == 1
    assert {one.Data for one in sent} == {sent[0].Data}


def test_a_relay_with_a_queue_puts_nothing_there_for_those_whom_an_attempt_before_has_sent_it(
    bench: Bench,
) -> None:
    """As after a change of the settings."""

    def handler(message: Any) -> None:
        relay = Relay("127.0.0.1", server.port) if message.attempt == 1 else Relay(queue=bench.out.path)
        relay.deliver(b"Subject: y\n\nhi\n", To=["a@x.test", "b@x.test"], From="me@x.test")

    bench.handle(handler)
    with next_server.running() as server:
        server.replies["rcpt TO:<b@x.test>"] = "450 4.2.0 later"  # as smtplib says it
        bench.attempt()
    [deferred] = os.listdir(bench.first.later_new)
    os.rename(f"{bench.first.later_new}/{deferred}", f"{bench.first.new}/{deferred.partition(',d=')[0]}")
    bench.attempt()
    assert (server.copies("a@x.test"), server.copies("b@x.test")) == (1, 0)
    assert [Queue(bench.out.path).get(key).To for key in os.listdir(bench.out.new)] == ["b@x.test"]


def test_outside_of_handlers_a_relay_puts_all_into_the_queue_at_once_or_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = Relay(queue=bench.out.path)
    relay.deliver(b"Subject: y\n\nhi\n", To=["a@x.test", "b@x.test"], From="me@x.test")
    assert len(bench.sent) == 2
    real = Pusher._rename_entry
    monkeypatch.setattr(Pusher, "_rename_entry", lambda self, begun: real(self, begun) and self._fail(begun))

    def fail(self: Pusher, begun: Any) -> bool:
        monkeypatch.setattr(Pusher, "_rename_entry", real)
        self.withdraw(begun.key)
        raise MountFault("x", OSError(errno.EIO, "x"))

    monkeypatch.setattr(Pusher, "_fail", fail, raising=False)
    with pytest.raises(MountFault):
        relay.deliver(b"Subject: z\n\nhi\n", To=["a@x.test", "b@x.test"], From="me@x.test")
    assert len(bench.sent) == 2


def test_what_is_pushed_in_a_block_of_once_is_pushed_at_once_as_its_end_is_for_good(bench: Bench) -> None:
    def handler(message: Any) -> None:
        Queue(bench.out.path).push(b"with it")
        with message.once("invoice") as first:
            if first:
                Queue(bench.out.path).push(b"in the block")
        Queue(bench.out.path).push(b"with it, too")
        raise ValueError("x")

    bench.handle(handler)
    bench.attempt()
    assert (bench.sent, bench.drafts) == ([b"in the block"], [])


def test_so_it_is_in_an_async_block(bench: Bench) -> None:
    async def handler(message: Any) -> None:
        async with message.once("invoice"):
            await asyncio.to_thread(Queue(bench.out.path).push, b"in the block")
        await asyncio.to_thread(Queue(bench.out.path).push, b"with it")
        assert bench.sent == [b"in the block"]

    bench.handle(handler)
    bench.attempt()
    assert bench.sent == [b"in the block", b"with it"]


def test_a_batch_pushes_at_once(bench: Bench) -> None:
    """Its messages end in outcomes of their own, and nobody knows which of them a push belongs to."""
    attempts = bench.attempts(bench.first)
    claim = bench.claimer(bench.first).claim(min(os.listdir(bench.first.new)))
    assert claim is not None
    Queue(bench.out.path).push(b"one")
    attempts.settle(claim, None, ACKED, "m.F")
    assert bench.sent == [b"one"]


# Handing on


def sends_and_hands_on(bench: Bench) -> None:
    bench.handle(lambda message: Queue(bench.out.path).push(b"beside it") and None)


HANDED = HandedOff("m", "F", "out")


def test_what_is_sent_beside_a_handoff_is_seen_when_the_entry_is_claimed_in_its_new_queue(
    bench: Bench,
) -> None:
    sends_and_hands_on(bench)
    bench.attempt(outcome=HANDED)
    assert [EntryName.parse(name).outputs[-1:] for name in os.listdir(bench.out.new)] == ["h"]
    bench.router = RoutingBase()
    seen: list[list[bytes]] = []
    bench.handle(lambda message: seen.append(bench.sent))
    bench.attempt(bench.out)
    assert (seen, bench.sent, bench.begun) == ([[b"beside it"]], [b"beside it"], 2)


@pytest.mark.parametrize("is_loop", [True, False])
def test_what_is_sent_beside_a_handoff_that_is_none_is_not_seen(bench: Bench, is_loop: bool) -> None:
    sends_and_hands_on(bench)
    if is_loop:
        [name] = os.listdir(bench.first.new)
        os.rename(f"{bench.first.new}/{name}", f"{bench.first.new}/{name},h=1000,n=1")
    bench.attempt(outcome=HANDED if is_loop else HandedOff("m", "F", "gone"))
    assert bench.sent == []
    assert [entry.outputs for entry in bench.waiting(".dead/new" if is_loop else ".later/new")] == [""]
    assert len(bench.drafts) == (
        0 if is_loop else 1
    )  # a rename was sent that might have been executed: a sweep's


def test_across_filesystems_the_copy_is_pushed_and_the_entry_comes_back_for_what_is_beside_it(
    bench: Bench,
) -> None:
    sends_and_hands_on(bench)
    bench.world.refuse("rename", errno.EXDEV, where=f"{bench.out.new}/")
    bench.attempt(outcome=HANDED)
    assert [MAIL[-20:] in data for data in bench.sent] == [True]
    [entry] = bench.waiting()
    assert entry.is_handled
    bench.attempt()
    assert b"beside it" in bench.sent
    assert (len(bench.sent), bench.begun, bench.waiting()) == (2, 1, [])


# Recovering


def committed(bench: Bench) -> None:
    """A worker dies between the commit and the publishing."""
    bench.handle(lambda message: Queue(bench.out.path).push(b"one") and None)
    real = outputs.Outputs.publish

    def dies(self: outputs.Outputs) -> None:
        raise KeyboardInterrupt

    outputs.Outputs.publish = dies  # type: ignore[method-assign]
    try:
        with pytest.raises(KeyboardInterrupt):
            bench.attempt()
    finally:
        outputs.Outputs.publish = real  # type: ignore[method-assign]
    [claimed] = os.listdir(bench.first.cur)
    back = EntryName.parse(claimed).returned(crashes=1).waiting()
    os.rename(f"{bench.first.cur}/{claimed}", f"{bench.first.new}/{back}")
    assert bench.sent == []


def test_an_entry_whose_outputs_are_committed_is_finished_without_its_handler(bench: Bench) -> None:
    committed(bench)
    bench.attempt()
    assert (bench.sent, bench.begun, bench.waiting()) == ([b"one"], 1, [])
    assert bench.log.lines == [("acked", None)]


def test_while_a_queue_is_away_it_waits_uncharged_and_no_handler_runs(bench: Bench) -> None:
    committed(bench)
    os.rename(bench.out.path, f"{bench.out.path}-away")
    bench.attempt()
    [word, reason] = bench.log.lines[-1]
    assert (word, bench.returned) == ("postponed", [])
    assert "mount it" in str(reason)
    [deferred] = bench.waiting(".later/new")
    assert (deferred.is_handled, deferred.attempts) == (True, 1)
    os.rename(f"{bench.out.path}-away", bench.out.path)
    os.rename(
        f"{bench.first.later_new}/{deferred.waiting()}", f"{bench.first.new}/{deferred.promoted().waiting()}"
    )
    bench.attempt()
    assert (bench.sent, bench.begun) == ([b"one"], 1)


def test_a_queue_that_takes_nothing_when_it_is_to_be_seen_takes_it_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: DraftPlacer, drafts: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    bench.handle(lambda message: Queue(bench.out.path).push(b"one") and None)
    with monkeypatch.context() as patches:
        patches.setattr(DraftPlacer, "finish", full)
        bench.attempt()
    assert (bench.log.lines[-1][0], bench.sent, bench.returned) == ("postponed", [], [])
    [deferred] = bench.waiting(".later/new")
    os.rename(
        f"{bench.first.later_new}/{deferred.waiting()}", f"{bench.first.new}/{deferred.promoted().waiting()}"
    )
    bench.attempt()
    assert (bench.sent, bench.begun) == ([b"one"], 1)


@pytest.mark.parametrize("outcome", [None, HANDED])
def test_outputs_that_can_not_be_made_durable_are_not_sent_and_the_message_comes_again(
    bench: Bench, outcome: Outcome | None
) -> None:
    """A disk that says so once may say that all is well when it is asked again."""
    bench.handle(lambda message: Queue(bench.out.path).push(b"one") and None)
    bench.world.refuse("fsync", errno.EIO, where="outbox")
    bench.attempt(outcome=outcome)
    assert (bench.sent, bench.drafts, bench.returned) == ([], [], [])
    [deferred] = bench.waiting(".later/new")
    assert (deferred.outputs, deferred.attempts, deferred.failures) == ("", 1, 0)


def test_an_output_that_the_filesystem_refuses_is_an_attempt_and_no_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handler(message: Any) -> None:
        Queue(bench.out.path).push(b"one")

    def full(*arguments: Any, **more: Any) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    bench.handle(handler)
    monkeypatch.setattr(durable, "begin_file", full)
    bench.attempt()
    [entry] = bench.waiting(".later/new")
    assert (entry.attempts, entry.failed) == (1, 0)
    assert bench.log.lines[0][0] == "deferred"


def test_a_commit_that_the_filesystem_refuses_keeps_its_outputs(bench: Bench) -> None:
    """It may be executed later, as far as is known."""
    bench.handle(lambda message: Queue(bench.out.path).push(b"one") and None)
    bench.world.refuse("rename", errno.EIO, where=",o=")
    bench.attempt()
    assert [type(fault) for fault in bench.returned] == [MountFault]
    assert (bench.sent, len(bench.drafts)) == ([], 1)


@pytest.mark.parametrize("outputs_of", ["o=0123456789", "o=0123456789h"])
def test_pop_finishes_what_a_worker_has_committed_and_returns_what_it_has_handed_on(
    bench: Bench, outputs_of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [name] = os.listdir(bench.first.new)
    os.rename(f"{bench.first.new}/{name}", f"{bench.first.new}/{name},{outputs_of},a=1,n=1")
    box = outputs.outbox_of(bench.out)
    os.mkdir(box)
    Path(box, "0123456789.1.x,S=3").write_bytes(b"one")
    monkeypatch.setattr("maildefer.handling.project.queue_paths.project_outboxes", bench.fresh_outboxes)
    key, _ = Queue(bench.first.path).pop()
    assert (key is not None) == outputs_of.endswith("h")
    assert (bench.sent, bench.waiting(), bench.waiting("cur")) == ([b"one"], [], [])


def test_pop_leaves_what_it_can_not_finish(bench: Bench) -> None:
    """The settings here do not list the queue, so nobody knows where its handlers have sent."""
    [name] = os.listdir(bench.first.new)
    os.rename(f"{bench.first.new}/{name}", f"{bench.first.new}/{name},o=0123456789,a=1,n=1")
    assert Queue(bench.first.path).pop() == (None, None)
    [entry] = bench.waiting()
    assert entry.is_handled


# Deaths

SENT = [b"one", b"two", b"three"]


def attempt_once(path: Path, system: System, begun: list[str]) -> None:
    """A worker's whole attempt at what waits first, with a handler that sends to three."""
    outputs._durable.clear()
    bench = Bench(path, system=system)

    def handler(message: Any) -> None:
        begun.append(message.key)
        pusher = Pusher(bench.out, host=LABEL, system=system)
        for data in SENT:
            current.pushing(pusher)(lambda stem, data=data: [data])  # type: ignore[misc]

    bench.handle(handler)
    bench.attempt()


def recovered(path: Path) -> tuple[list[bytes], int]:
    """Take back what a dead worker held, and make an attempt at it: what was sent, and how often a handler ran."""
    first, out, begun = Layout(str(path / "first")), Layout(str(path / "out")), list[str]()
    for name in os.listdir(first.cur):
        back = EntryName.parse(name).returned(crashes=1).waiting()
        os.rename(f"{first.cur}/{name}", f"{first.new}/{back}")
    if os.listdir(first.new):
        attempt_once(path, SYSTEM, begun)
    assert os.listdir(first.new) == os.listdir(first.cur) == []
    return sorted(Path(out.new, name).read_bytes() for name in os.listdir(out.new)), len(begun)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["after", "kill"])
def test_after_a_death_at_each_call_of_an_attempt_each_of_three_has_one_entry(
    tmp_path: Path, how: str
) -> None:
    """By an exception, and by kill -9."""
    Bench(tmp_path / "begin").push()
    ran = []
    for step in itertools.count():
        path = Path(shutil.copytree(tmp_path / "begin", tmp_path / f"{step}"))
        if how == "kill":
            if (pid := os.fork()) == 0:
                mortal = Mortal(SYSTEM, step, before=False, die=lambda: os.kill(os.getpid(), signal.SIGKILL))
                attempt_once(path, mortal.system, [])
                os._exit(0)
            if os.waitpid(pid, 0)[1] == 0:
                break
        else:
            mortal = Mortal(World(seconds=1_800_000_000.0).system, step, before=False)
            try:
                attempt_once(path, mortal.system, [])
            except Death:
                pass
            else:
                break
        sent, again = recovered(path)
        assert sent == sorted(SENT), step
        ran.append(again)
    assert len(ran) > 30
    assert [again for again, _ in itertools.groupby(ran)] == [1, 0], "its handler runs again until the commit"


# Keeping


def kept(bench: Bench, **options: Any) -> list[EntryName]:
    """What is kept after an attempt, with these options of the dispatcher."""
    real = Dispatcher.__init__

    def made(self: Dispatcher, *arguments: Any) -> None:
        real(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dispatcher, "__init__", made)
        bench.attempt()
    folder = bench.first.done_new
    return [EntryName.parse(name) for name in os.listdir(folder)] if os.path.isdir(folder) else []


def with_keep(bench: Bench, *times: float | None) -> None:
    for number, seconds in enumerate(times):

        def handler(message: Any) -> None: ...

        handler.__name__ = handler.__qualname__ = f"KEPT{number}"
        handler_marks.mark_stateless(handler)
        if seconds is not None:
            handler_marks.mark_policy(handler, handler_marks.KEEP, seconds)
        bench.router.register_route("(?s:.*)", handler)


@pytest.mark.parametrize(
    ("times", "setting", "seconds"),
    [
        ([60.0], 0.0, 60),
        ([60.0, 90.0, None], 0.0, 90),
        ([None], 30.0, 30),
        ([60.0], 90.0, 60),
        ([0.0], 90.0, None),
        ([None], 0.0, None),
    ],
)
def test_what_is_acked_is_kept_for_as_long_as_any_of_its_handlers_says(
    bench: Bench, times: list[float | None], setting: float, seconds: int | None
) -> None:
    with_keep(bench, *times)
    [key] = os.listdir(bench.first.new)
    data = Path(bench.first.new, key).read_bytes()
    found = kept(bench, keep_seconds=setting)
    if seconds is None:
        assert found == []
    else:
        assert [(one.key, one.returns) for one in found] == [(key, 1)]
        due = found[0].due or 0
        assert 0 <= due - 1_800_000_000 - seconds <= 60, "by the mount's time"
        assert Path(bench.first.done_new, found[0].waiting()).read_bytes() == data
    assert (bench.waiting(), bench.waiting("cur"), bench.log.lines) == ([], [], [("acked", None)])


@pytest.mark.parametrize("fault", [Defer("x"), Reject("x"), ValueError("x")])
def test_what_is_not_acked_is_not_kept(bench: Bench, fault: Exception) -> None:
    def handler(message: Any) -> None:
        raise fault

    bench.handle(handler)
    assert kept(bench, keep_seconds=60.0) == []


def test_what_a_dead_worker_has_committed_is_kept_by_who_acks_it(bench: Bench) -> None:
    committed(bench)
    with_keep(bench, 60.0)
    [entry] = kept(bench)
    assert (entry.due is not None, bench.sent, bench.waiting(), bench.waiting("cur")) == (
        True,
        [b"one"],
        [],
        [],
    )
