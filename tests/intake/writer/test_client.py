"""What goes from a front end to its writer, through the socket and the memory that they share."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import marshal
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from maildefer.errors import MaildeferError
from maildefer.intake.options import parse
from maildefer.intake.outcomes import Refusal, Stored
from maildefer.intake.writer import batcher
from maildefer.intake.writer import client as client_module
from maildefer.intake.writer.client import WriterClient
from maildefer.intake.writer.process import Writer
from maildefer.intake.writer.protocol import Message
from maildefer.intake.writer.shared_memory import SharedBlocks, Span, WriterLink, keep_end, make_links
from maildefer.maildir import durable
from maildefer.maildir.layout import create_queue
from maildefer.maildir.push import Compose, Pusher
from maildefer.message.envelope import split

BLOCK_BYTES = 64 << 10
LARGE = 40_000
PATIENCE_SECONDS = 60


def message(*pieces: bytes, draft: int = 0, whole: bool = True) -> Message:
    return Message("a@b", ("c@d",), pieces, "ESMTP", "client", True, draft, whole)


def text(number: int, size_bytes: int = LARGE) -> bytes:
    """No two of which are alike anywhere."""
    line = b"%08d\n" % number
    return line * (size_bytes // len(line))


def served(queue: Path, play: Callable[[WriterClient], Awaitable[None]], *options: str) -> WriterLink:
    """Play with a client of a real writer; our end, once all is over."""
    layout = create_queue(str(queue))
    ours, theirs = make_links(BLOCK_BYTES, local=True)
    limits = parse(["--socket-fd", "0", "--queue", layout.path, "--min-free-bytes", "0", *options])
    thread = threading.Thread(target=Writer(layout, limits, theirs).run)
    thread.start()

    async def run() -> None:
        client = await WriterClient.open(ours, threads=limits.threads)
        try:
            await play(client)
        finally:
            await client.close()

    try:
        asyncio.run(run())
    finally:
        thread.join()
        theirs.socket.close()
    return ours


@pytest.fixture
def batches_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is."""
    monkeypatch.setattr(batcher, "MAX_WAIT_SECONDS", PATIENCE_SECONDS)


@pytest.fixture
def synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The event for which each sync of the queue's folders waits."""
    create_queue(str(tmp_path))  # which syncs too
    event, sync = threading.Event(), durable.sync_directory
    monkeypatch.setattr(durable, "sync_directory", lambda *path, **by: event.wait(60) and sync(*path, **by))
    return event


def taken_line(theirs: WriterLink) -> socket.socket:
    """The next of the lines that the front end has opened, which no writer serves."""
    _, [descriptor], _, _ = socket.recv_fds(theirs.socket, 1, 1)
    return socket.socket(fileno=descriptor)


def bodies(queue: Path) -> list[bytes]:
    found = [path.read_bytes() for path in sorted((queue / "new").iterdir())]
    return [data[split(data)[1] :] for data in found]


# The memory


def test_pieces_are_one_behind_the_other() -> None:
    blocks = SharedBlocks(BLOCK_BYTES)
    span = blocks.put([b"a" * 20_000, b"", memoryview(b"b" * 20_000)])
    assert span is not None
    assert bytes(blocks.get(span)) == b"a" * 20_000 + b"b" * 20_000


def test_blocks_do_not_mix() -> None:
    blocks = SharedBlocks(BLOCK_BYTES)
    spans = [blocks.put([bytes([number]) * BLOCK_BYTES]) for number in range(32)]
    for number, span in enumerate(spans):
        assert span is not None
        assert bytes(blocks.get(span)) == bytes([number]) * BLOCK_BYTES


def test_what_is_small_or_too_large_is_better_sent() -> None:
    blocks = SharedBlocks(BLOCK_BYTES)
    assert blocks.put([b"x" * 2048]) is None
    assert blocks.put([b"x" * BLOCK_BYTES, b"y"]) is None


def test_a_block_is_given_again_once_it_is_given_back() -> None:
    blocks = SharedBlocks(BLOCK_BYTES, blocks=1)
    span = blocks.put([b"x" * LARGE])
    assert span == Span(0, LARGE)
    assert blocks.put([b"y" * LARGE]) is None
    blocks.release_block(span)
    assert blocks.put([b"z" * LARGE]) == span
    assert bytes(blocks.get(span)) == b"z" * LARGE


def test_the_reader_cannot_change_it() -> None:
    blocks = SharedBlocks(BLOCK_BYTES)
    span = blocks.put([b"x" * LARGE])
    assert span is not None
    with pytest.raises(TypeError):
        blocks.get(span)[0] = 0


def test_both_processes_see_it() -> None:
    ours, theirs = make_links(BLOCK_BYTES, local=True)
    if not (pid := os.fork()):
        ours.socket.close()
        at, size = map(int, theirs.socket.recv(100).split())
        digest = hashlib.sha256(theirs.blocks.get(Span(at, size))).hexdigest()
        theirs.socket.sendall(digest.encode())
        os._exit(0)
    theirs.socket.close()
    span = ours.blocks.put([data := os.urandom(LARGE)])
    assert span is not None
    ours.socket.sendall(f"{span.at} {span.size}".encode())
    assert ours.socket.recv(100, socket.MSG_WAITALL).decode() == hashlib.sha256(data).hexdigest()
    assert os.waitpid(pid, 0)[1] == 0
    ours.socket.close()


# Through it


@pytest.mark.invariant(9)
def test_more_messages_at_a_time_than_there_are_blocks_all_arrive_as_they_are(tmp_path: Path) -> None:
    async def play(client: WriterClient) -> None:
        stored = await asyncio.gather(
            *(client.push(message(text(number)[:30_000], text(number)[30_000:])) for number in range(100))
        )
        assert all(each[0].key for each in stored)

    link = served(tmp_path, play)
    assert sorted(bodies(tmp_path)) == [text(number) for number in range(100)]
    assert link.blocks.free_blocks == 32


@pytest.mark.invariant(9)
def test_parts_of_many_messages_go_the_same_way_and_do_not_mix(tmp_path: Path) -> None:
    async def send(client: WriterClient, number: int) -> list[Stored]:
        draft = client.fresh_draft()
        for _ in range(3):
            assert await client.push(message(text(number), draft=draft, whole=False)) == []
        return await client.push(message(b"end\n", draft=draft))

    async def play(client: WriterClient) -> None:
        stored = await asyncio.gather(*(send(client, number) for number in range(60)))
        assert all(each[0].key for each in stored)

    link = served(tmp_path, play)
    assert sorted(bodies(tmp_path)) == [text(number) * 3 + b"end\n" for number in range(60)]
    assert link.blocks.free_blocks == 32


def test_parts_wait_for_a_block_and_whole_messages_do_not(tmp_path: Path) -> None:
    async def play(client: WriterClient) -> None:
        blocks = client._blocks
        spans = [blocks.put([bytes(LARGE)]) for _ in range(32)]
        assert blocks.free_blocks == 0
        part = asyncio.ensure_future(
            client.push(message(text(1), draft=(draft := client.fresh_draft()), whole=False))
        )
        await client.push(message(text(2)))  # through the socket
        assert not part.done()
        for span in spans:
            assert span is not None
            blocks.release_block(span)
        await client.push(message(text(3)))
        assert await part == []
        await client.push(message(b"end\n", draft=draft))

    served(tmp_path, play)
    assert sorted(bodies(tmp_path)) == [text(1) + b"end\n", text(2), text(3)]


def test_a_block_comes_back_when_the_client_has_gone_but_not_before_the_writer_is_done(
    tmp_path: Path,
) -> None:
    async def play(client: WriterClient) -> None:
        tasks = [asyncio.ensure_future(client.push(message(text(number)))) for number in range(20)]
        await asyncio.sleep(0)  # they are sent
        for task in tasks:
            task.cancel()
        await asyncio.gather(*(client.push(message(text(number))) for number in range(20, 80)))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while client._blocks.free_blocks < 32:  # a batch may be answered after those that were sent later
                await asyncio.sleep(0.01)

    served(tmp_path, play)
    assert sorted(bodies(tmp_path)) == [text(number) for number in range(80)]


def test_a_block_comes_back_when_the_writer_refuses(tmp_path: Path) -> None:
    async def play(client: WriterClient) -> None:
        for number in range(40):
            (stored,) = await client.push(message(text(number)))
            assert stored.fault == Refusal.QUEUE_FULL

    link = served(tmp_path, play, "--min-free-bytes", str(1 << 60))
    assert bodies(tmp_path) == []
    assert link.blocks.free_blocks == 32


@pytest.mark.ttl(300)
def test_a_part_is_answered_while_messages_are_still_being_synced(
    tmp_path: Path, synced: threading.Event
) -> None:
    async def play(client: WriterClient) -> None:
        messages = [asyncio.ensure_future(client.push(message(b"x\n"))) for _ in range(3)]
        try:
            draft = client.fresh_draft()
            assert await client.push(message(text(1), draft=draft, whole=False)) == []
            assert not any(each.done() for each in messages)
            client.drop_draft(draft)
        finally:
            synced.set()
        assert all(each[0].key for each in await asyncio.gather(*messages))

    served(tmp_path, play, "--threads", "2")
    assert os.listdir(tmp_path / "tmp") == []


@pytest.mark.ttl(300)
def test_a_batch_that_hangs_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is in the writer's hands for good; those that come are not many enough to be worth a second batch."""
    hanging, go_on, renamed = threading.Event(), threading.Event(), Pusher.push_all

    def push_all(pusher: Pusher, composes: Sequence[Compose]) -> list[str | MaildeferError]:
        if not hanging.is_set():
            hanging.set()
            go_on.wait(60)
        return renamed(pusher, composes)

    monkeypatch.setattr(Pusher, "push_all", push_all)

    async def play(client: WriterClient) -> None:
        first = asyncio.ensure_future(client.push(message(b"first\n")))
        await asyncio.sleep(0)  # it is sent
        try:
            for _ in range(3):
                assert (await client.push(message(b"later\n")))[0].key
            assert not first.done()
        finally:
            go_on.set()
        assert (await first)[0].key

    served(tmp_path, play)
    assert len(bodies(tmp_path)) == 4


@pytest.mark.usefixtures("batches_are_waited_for")
def test_what_comes_while_a_batch_is_written_goes_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = Writer.answer
    monkeypatch.setattr(Writer, "answer", lambda self, jobs: sizes.append(len(jobs)) or real(self, jobs))

    async def play(client: WriterClient) -> None:
        await asyncio.gather(*(client.push(message(b"%d\n" % number)) for number in range(12)))

    served(tmp_path, play)
    assert sizes == [1, 11]
    assert len(bodies(tmp_path)) == 12


@pytest.mark.usefixtures("batches_are_waited_for")
def test_a_line_is_opened_for_each_batch_that_waits_and_the_one_used_last_is_used_first(
    tmp_path: Path, synced: threading.Event
) -> None:
    async def play(client: WriterClient) -> None:
        first = asyncio.ensure_future(client.push(message(b"first\n")))
        await asyncio.sleep(0)
        assert len(client._lines._all) == 1
        try:
            others = [asyncio.ensure_future(client.push(message(b"%d\n" % number))) for number in range(16)]
            for _ in range(3):
                await asyncio.sleep(0)
            assert len(client._lines._all) == 2
        finally:
            synced.set()
        await asyncio.gather(first, *others)
        while len(client._lines._idle) < 2:  # the second thread may come up later
            await asyncio.sleep(0.001)
        last = client._lines._idle[-1]
        for number in range(5):
            await client.push(message(b"later %d\n" % number))
            assert client._lines._idle[-1] is last
        assert len(client._lines._all) == 2

    served(tmp_path, play)
    assert len(bodies(tmp_path)) == 22


@pytest.mark.parametrize("refuses", ["socketpair", "send_fds"])
def test_where_no_descriptor_is_left_for_a_line_batches_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: str
) -> None:
    asked: list[str] = []

    def refuse(*arguments: object) -> Any:
        asked.append(refuses)
        raise OSError(errno.EMFILE, "too many open files")

    async def play(client: WriterClient) -> None:
        await client.push(message(b"0\n"))
        monkeypatch.setattr(socket, refuses, refuse)
        stored = await asyncio.gather(*(client.push(message(b"%d\n" % number)) for number in range(100)))
        assert all(each[0].key for each in stored)
        assert len(client._lines._all) == 1
        monkeypatch.undo()

    served(tmp_path, play)
    assert asked
    assert len(bodies(tmp_path)) == 101


@pytest.mark.parametrize("lacks", ["threads", "descriptors"])
def test_where_the_writer_has_none_left_for_a_line_batches_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    started, received = threading.Thread.start, socket.recv_fds
    refused: list[object] = []

    def start(thread: threading.Thread) -> None:
        refused.append(thread)
        raise RuntimeError("can't start new thread")

    def recv_fds(*arguments: Any) -> Any:
        said, descriptors, flags, address = received(*arguments)
        for descriptor in descriptors:
            refused.append(descriptor)
            os.close(descriptor)
        return said, [], flags | socket.MSG_CTRUNC, address

    async def play(client: WriterClient) -> None:
        await client.push(message(b"0\n"))
        if lacks == "threads":
            monkeypatch.setattr(threading.Thread, "start", start)
        else:
            monkeypatch.setattr(socket, "recv_fds", recv_fds)
            await client.push(message(b"the call that waits is the real one\n"))
        stored = await asyncio.gather(*(client.push(message(b"%d\n" % number)) for number in range(100)))
        assert all(each[0].key for each in stored)
        monkeypatch.setattr(threading.Thread, "start", started)
        monkeypatch.setattr(socket, "recv_fds", received)

    served(tmp_path, play)
    assert refused
    assert len(bodies(tmp_path)) == (101 if lacks == "threads" else 102)


@pytest.mark.usefixtures("batches_are_waited_for")
def test_the_next_batch_is_sent_before_the_answers_of_the_last_are_told(tmp_path: Path) -> None:
    """So that the writer works while replies are sent."""
    done: list[str] = []

    async def play(client: WriterClient) -> None:
        send = client._send
        client._send = lambda batch, jobs: done.append(f"send {len(jobs)}") or send(batch, jobs)  # type: ignore[method-assign, func-returns-value]
        client._messages.batcher._job_seconds = 1.0  # nobody waits for the first client's next message
        ended = asyncio.Event()
        client.begin_push(message(b"1\n"), lambda stored: done.append("told 1"))
        client.begin_push(message(b"2\n"), lambda stored: done.append("told 2"))
        client.begin_push(message(b"3\n"), lambda stored: ended.set())
        await ended.wait()

    served(tmp_path, play)
    assert done == ["send 1", "send 2", "told 1", "told 2"]


def test_whoever_waits_when_the_writer_ends_is_told(tmp_path: Path) -> None:
    ours, theirs = make_links(BLOCK_BYTES, local=True)

    async def run() -> None:
        client = await WriterClient.open(ours, threads=2)
        pushes = [asyncio.ensure_future(client.push(message(text(number)))) for number in range(3)]
        await asyncio.sleep(0)
        theirs.socket.close()
        assert [each[0].fault for each in await asyncio.gather(*pushes)] == [Refusal.STORAGE_FAILED] * 3
        assert client.closed.is_set()
        assert (await client.push(message(b"x")))[0].fault == Refusal.STORAGE_FAILED
        await client.close()

    asyncio.run(run())


def test_a_shortage_is_asked_for_once_a_second_and_known_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(client_module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    async def play(client: WriterClient) -> None:
        assert client.known_shortage() is None
        assert (client.last_shortage, await client.shortage()) == ("", told := await client.shortage())
        assert "free" in told
        assert (client.known_shortage(), client.last_shortage) == (told, told)
        asked = client._number
        assert await client.shortage() == told
        assert client._number == asked
        now[0] += 1.0
        assert client.known_shortage() is None
        assert await client.shortage() == told
        assert client._number == asked + 1

    served(tmp_path / "queue", play, "--min-free-bytes", str(1 << 60))


@pytest.mark.parametrize("gone", [False, True])
def test_a_writer_that_does_not_answer_is_a_shortage(monkeypatch: pytest.MonkeyPatch, gone: bool) -> None:
    monkeypatch.setattr(client_module, "_ANSWER_SECONDS", 0.01)
    ours, theirs = make_links(BLOCK_BYTES, local=True)

    async def play() -> None:
        client = await WriterClient.open(ours, threads=1)
        if gone:
            theirs.socket.close()
            await client.closed.wait()
        assert await client.shortage() == client_module._SILENT
        asked = client._number
        assert await client.shortage() == client_module._SILENT, (
            "and nobody waits for it again within a second"
        )
        assert client._number == asked
        await client.close()

    try:
        asyncio.run(play())
    finally:
        theirs.socket.close()


@pytest.mark.parametrize(("threads", "batches"), [(4, 3), (2, 1), (1, 1)])
def test_one_of_the_writers_threads_is_left_to_parts_of_large_messages(threads: int, batches: int) -> None:
    """On a mount, where all batches may be under way at a time: a part waits for no sync."""
    ours, theirs = make_links(BLOCK_BYTES, local=False)

    async def play() -> None:
        client = await WriterClient.open(ours, threads=threads)
        waiting = [asyncio.create_task(client.push(message(b"x"))) for _ in range(20)]
        await asyncio.sleep(0)
        assert len(client._batches) == batches
        waiting.append(asyncio.create_task(client.push(message(b"y", draft=1, whole=False))))
        await asyncio.sleep(0)
        assert len(client._batches) == batches + 1
        theirs.socket.close()
        await asyncio.wait(waiting)
        await client.close()

    asyncio.run(play())


def test_each_batch_that_is_answered_makes_room_for_another_the_first_too(tmp_path: Path) -> None:
    async def play(client: WriterClient) -> None:
        assert await client.shortage() == ""  # which is in no batch
        for number in range(1, 4):
            await client.push(message(b"x"))
            assert (client._batch, client._batches, client._messages.batcher._batches_out) == (number, {}, 0)

    served(tmp_path / "queue", play)


def frame(value: Any) -> bytes:
    data = marshal.dumps(value)
    return len(data).to_bytes(4) + data


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\0\0\0\1\xff",
        b"\0\0\0\0",
        frame(7),
        frame((99, [])),
        frame((0, [(1, "x", [])])),
        3 * frame((0, [])),  # that the thread is there, and two answers
    ],
)
def test_a_writer_that_says_what_is_no_answer_is_one_that_is_gone(
    nonsense: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """Else its clients would wait for ever, and no other would ever take its place."""
    ours, theirs = make_links(BLOCK_BYTES, local=True)

    async def run() -> list[Stored]:
        client = await WriterClient.open(ours, threads=2)
        with taken_line(theirs) as line:
            pushed = asyncio.ensure_future(client.push(message(b"x")))
            await asyncio.sleep(0)
            line.sendall(nonsense)
            await client.closed.wait()
        try:
            return await pushed
        finally:
            await client.close()
            await asyncio.sleep(0)

    with theirs.socket:
        [stored] = asyncio.run(asyncio.wait_for(run(), 30))
    assert (stored.key, stored.fault) == ("", Refusal.STORAGE_FAILED)
    assert "child.misbehaved" in capfd.readouterr().err


def test_the_writer_cannot_write_to_what_it_reads_nor_can_anybody_cut_it_off() -> None:
    """Who reads a mapping behind its end is ended by SIGBUS."""
    front, back = make_links(BLOCK_BYTES, local=True)
    span = front.blocks.put([b"x" * LARGE])
    assert span is not None
    assert bytes(back.blocks.get(span)) == b"x" * LARGE
    with pytest.raises(TypeError, match="read-only"):
        back.blocks._memory[0] = 1
    # The descriptor is closed; what opens it anew, where it may, finds it sealed.
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "memfd:blocks" not in line:
            continue
        try:
            descriptor = os.open(f"/proc/self/map_files/{line.split()[0]}", os.O_RDWR)
        except PermissionError:  # without CAP_CHECKPOINT_RESTORE
            continue
        for act in (partial(os.ftruncate, descriptor, 0), partial(os.pwrite, descriptor, b"y", 0)):
            with pytest.raises(PermissionError):
                act()
        os.close(descriptor)
    keep_end(front, back)
    assert bytes(front.blocks.get(span)) == b"x" * LARGE
    front.socket.close()
    front.blocks.close()
