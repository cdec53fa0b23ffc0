"""`python -m tests.security.fuzz [--seconds 600] [--seed N] [--cases N]`: wild clients against sessions in here.

Each case is one connection: commands and messages that are right, wrong, cut, mixed and doubled, in pieces of any size.
What must hold, whatever is sent: no exception, no reply that means one, memory within its bounds, and what was queued
are exactly the messages for which a 250 came, whole, once for each recipient, and nothing else (`framing`).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maildefer.intake import replies
from maildefer.intake.access.recipients import RecipientTable
from maildefer.intake.access.security import AccessSecurity
from maildefer.intake.context import ServerContext
from maildefer.intake.options import IntakeOptions, parse
from maildefer.intake.smtp.lmtp import LmtpSession
from maildefer.intake.smtp.session import SmtpSession
from maildefer.intake.writer.client import WriterClient
from maildefer.intake.writer.process import Writer
from maildefer.intake.writer.shared_memory import WriterLink, make_links
from maildefer.maildir.layout import Layout, create_queue
from maildefer.message.envelope import split
from tests.security.framing import Reader, Sent
from tests.security.framing import replies as read_replies
from tests.support import client_fuzzer

AHEAD_BYTES = 64 << 10
LIMITS = {
    "max-bytes": 24_000,
    "buffer-bytes": 3_000,
    "max-held-bytes": 30_000,
    "max-recipients": 5,
    "min-free-bytes": 0,
    "tarpit-seconds": 0,
    "threads": 2,
}
PATIENCE_SECONDS = 30.0


class Transport(asyncio.Transport):
    """The client's end is a variable."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: SmtpSession) -> None:
        super().__init__()
        self.said = b""
        self.lost = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()
        self.closing = False
        self._loop = loop
        self._protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 25) if name == "peername" else default

    def write(self, data: Any) -> None:
        if not self.closing:
            self.said += bytes(data)

    def pause_reading(self) -> None:
        self.reading.clear()

    def resume_reading(self) -> None:
        self.reading.set()

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self._loop.call_soon(self._end)

    abort = close

    def reset(self) -> None:
        """By the client: nothing more is obeyed, though what is being stored will be."""
        self.closing = True
        self._end()

    def _end(self) -> None:
        self._protocol.connection_lost(None)
        self.reading.set()
        self.lost.set()


class Fuzzer:
    """All cases of a run share the writer and the context, as connections do."""

    def __init__(self, context: ServerContext, layout: Layout) -> None:
        self._context = context
        self.layout = layout
        self.place = Path(layout.path)
        self._faults: list[dict[str, Any]] = []
        context.loop.set_exception_handler(lambda loop, fault: self._faults.append(fault))

    def connect(self, *, lmtp: bool = False) -> tuple[SmtpSession, Transport]:
        session = (LmtpSession if lmtp else SmtpSession)(self._context)
        transport = Transport(self._context.loop, session)
        session.connection_made(transport)
        return session, transport

    async def case(self, seed: int) -> int:
        """Run one; how many messages were queued in it. AssertionError tells what did not hold."""
        chance = random.Random(seed)
        lmtp = chance.random() < 0.25
        stream, cut_off = client_fuzzer.stream(chance, lmtp), chance.random() < 0.1
        session, transport = self.connect(lmtp=lmtp)
        sent = await self._send(chance, session, transport, stream)
        if cut_off and not transport.closing:
            transport.reset()
        elif not transport.closing and not session.eof_received():
            transport.close()
        await asyncio.wait_for(transport.lost.wait(), PATIENCE_SECONDS)
        await self.quiet()
        answers = list(read_replies(transport.said))
        messages = Reader(stream[:sent], answers, lmtp).read()
        assert not self._faults, f"an exception: {self._faults}"
        assert str(replies.INTERNAL).encode() not in transport.said, "an exception, by its reply"
        return self._compare(messages, transport.said)

    async def _send(
        self, chance: random.Random, session: SmtpSession, transport: Transport, stream: bytes
    ) -> int:
        at, most = 0, max(chance.choice((1, 7, 100, 5_000, 100_000)), len(stream) // 200)
        while at < len(stream) and not transport.closing:
            piece = stream[at : at + chance.randint(1, most)]
            session.data_received(piece)
            at += len(piece)
            assert len(session._unread) <= AHEAD_BYTES + len(piece), "it keeps what it should not have read"
            assert self._held() <= LIMITS["max-held-bytes"], "it keeps more of messages than it may"
            if chance.random() < 0.3:
                await asyncio.sleep(0)
            if not transport.reading.is_set():
                await asyncio.wait_for(transport.reading.wait(), PATIENCE_SECONDS)
        return at

    def _held(self) -> int:
        held = self._context.facts()["held_bytes"]
        assert isinstance(held, int)
        return held

    async def quiet(self) -> None:
        """Until what a client left half done is cleared away."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while os.listdir(self.layout.tmp) or self._held() or self._context.writer._pending:
            assert time.monotonic() < deadline, (
                f"left over: {os.listdir(self.layout.tmp)}, {self._held()} bytes"
            )
            await asyncio.sleep(0.001)
        assert not self._context.facts()["connections"], "it is still there"

    def _compare(self, messages: list[Sent], said: bytes) -> int:
        """What is in `new/`, and away with it."""
        there = {}
        for name in os.listdir(self.layout.new):
            path = f"{self.layout.new}/{name}"
            with open(path, "rb") as file:
                there[name.encode()] = file.read()
            os.unlink(path)
        queued = [message for message in messages if message.keys]
        assert len(queued) <= said.count(b"queued as"), "more were queued than was said"
        maybe = [message for message in messages if not message.answered]
        for key, data in there.items():
            envelope, offset = split(data, key.decode())
            assert key.endswith(b",S=%d" % len(data)), f"{key!r} is not whole"
            assert envelope is not None
            fits = [
                message
                for message in queued + maybe
                if message.data == data[offset:] and envelope.recipient.encode() in message.recipients
            ]
            assert fits, f"nobody sent {data!r}"
        for message in queued:
            named = [key for key in message.keys if key != b"..."]
            assert there.keys() >= set(named), f"{message.keys!r} was acknowledged and is not there"
            assert all(there[key].endswith(message.data) for key in named), (
                "another message is under that key"
            )
        expected = sum(len(message.recipients) for message in queued)
        assert expected <= len(there) <= expected + sum(len(each.recipients) for each in maybe), (
            "too many, or few"
        )
        return len(queued)


Play = Callable[[Fuzzer, int], Awaitable[int]]


@contextmanager
def writing(options: IntakeOptions, layout: Layout) -> Iterator[WriterLink]:
    """A writer in threads of this process; the other end of its link."""
    ours, theirs = make_links(options.buffer_bytes, local=True)
    thread = threading.Thread(target=Writer(layout, options, theirs).run)
    thread.start()
    try:
        yield ours
    finally:
        thread.join(PATIENCE_SECONDS)
        theirs.socket.close()


async def run(
    options: IntakeOptions, layout: Layout, end: WriterLink, play: Play, seed: int, seconds: float, cases: int
) -> str:
    writer = await WriterClient.open(end, threads=options.threads)
    recipients = RecipientTable(options.queue, None)
    context = ServerContext(options, writer, recipients, asyncio.get_running_loop(), AccessSecurity(options))
    fuzzer, queued, done = Fuzzer(context, layout), 0, 0
    deadline = time.monotonic() + seconds
    try:
        while done < cases and time.monotonic() < deadline:
            try:
                queued += await play(fuzzer, seed + done)
            except BaseException as fault:
                fault.add_note(f"again: python -m tests.security.fuzz --seed {seed} --cases {done + 1}")
                raise
            done += 1
    finally:
        await writer.close()
    return f"{done} connections from seed {seed}, {queued} messages taken, each whole"


def fuzz(seed: int, *, seconds: float = 1e9, cases: int = 1 << 60, play: Play = Fuzzer.case) -> str:
    """What was done, in a line. Raises AssertionError, with the seed and the number that show it again."""
    place = tempfile.mkdtemp(prefix="maildefer-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    errors = os.dup(2)
    quiet = os.open(os.devnull, os.O_WRONLY)
    try:
        layout = create_queue(f"{place}/queue")
        limits = [f"--{name}={value}" for name, value in LIMITS.items()]
        options = parse(["--socket-fd", "0", "--queue", layout.path, "--exempt-networks=", *limits])
        os.dup2(quiet, 2)  # the events
        with writing(options, layout) as end:
            return asyncio.run(run(options, layout, end, play, seed, seconds, cases))
    finally:
        os.dup2(errors, 2)
        os.close(errors)
        os.close(quiet)
        shutil.rmtree(place)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.security.fuzz", description=(__doc__ or "").split("\n")[2]
    )
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=time.time_ns() // 1_000_000)
    parser.add_argument("--cases", type=int, default=1 << 60)
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    print(fuzz(given.seed, seconds=given.seconds, cases=given.cases))
    return 0


if __name__ == "__main__":
    sys.exit(main())
