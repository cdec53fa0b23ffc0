"""From a received message to durable entries, one for each recipient, and the replies for them (I1)."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from dataclasses import dataclass

from maildefer import events
from maildefer.errors import MaildeferError
from maildefer.intake import replies
from maildefer.intake.room import Room
from maildefer.maildir import durable
from maildefer.maildir.push import Pusher
from maildefer.maildir.system import SYSTEM
from maildefer.message.envelope import block, hops

MAX_HOPS = 100  # RFC 5321, section 6.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One message as it came: its envelope, who sent it, how, and its bytes with LF as line ends."""

    sender: str
    recipients: tuple[str, ...]
    data: bytes
    client: str
    via: str


@dataclass(frozen=True, slots=True)
class Pushed:
    """How the push for one recipient ended: with a key, or with the reply for the refusal."""

    reply: str
    key: str | None = None
    error: str | None = None


class Acceptor:
    """Pushes messages from the event loop's side; the pushes themselves run in threads and share directory syncs."""

    def __init__(self, pusher: Pusher, room: Room, threads: Executor, *, hostname: str) -> None:
        self._pusher = pusher
        self._room = room
        self._threads = threads
        self._hostname = hostname

    async def shortage(self) -> bool:
        """Whether the queue can't take more now."""
        if self._room.look_is_due:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._room.look)
        return self._room.shortage is not None

    async def accept(self, message: Received, *, together: bool) -> dict[str, str]:
        """Each recipient's reply; returns when all pushes are durable or have failed.

        `together`: all or none, as SMTP's one reply wants it. What was pushed already is withdrawn when another push
        fails, lest every new try of the client doubles it; what a worker took meanwhile may still be doubled.
        """
        if hops(message.data) >= MAX_HOPS:
            events.emit("intake.refused", client=message.client, sender=message.sender, reason="mail loop")
            return dict.fromkeys(message.recipients, replies.LOOP)
        began = time.monotonic()
        pushed = await self._push_all(message)
        failed = any(each.key is None for each in pushed.values())
        if failed and together:
            await self._withdraw([each.key for each in pushed.values() if each.key is not None])
        else:
            self._report(message, pushed, time.monotonic() - began)
        if failed:
            self._report_failures(message, pushed)
        return {recipient: each.reply for recipient, each in pushed.items()}

    def _report(self, message: Received, pushed: dict[str, Pushed], seconds: float) -> None:
        done = {recipient: each.key for recipient, each in pushed.items() if each.key is not None}
        if done:
            events.emit(
                "intake.accepted",
                keys=" ".join(done.values()),
                sender=message.sender,
                recipients=" ".join(done),
                bytes=len(message.data),
                client=message.client,
                duration=seconds,
            )

    def _report_failures(self, message: Received, pushed: dict[str, Pushed]) -> None:
        for recipient, each in pushed.items():
            if each.key is None:
                events.emit(
                    "intake.refused",
                    client=message.client,
                    sender=message.sender,
                    recipient=recipient,
                    reason=each.error,
                )

    async def _push_all(self, message: Received) -> dict[str, Pushed]:
        run = asyncio.get_running_loop().run_in_executor
        jobs = [run(self._threads, self._push, message, recipient) for recipient in message.recipients]
        pushed = [await jobs[0]] if len(jobs) == 1 else await asyncio.gather(*jobs)
        return dict(zip(message.recipients, pushed, strict=True))

    async def _withdraw(self, keys: list[str]) -> None:
        run = asyncio.get_running_loop().run_in_executor
        new = self._pusher.layout.new
        for key in keys:
            await run(self._threads, durable.discard, f"{new}/{key}", SYSTEM)

    def _push(self, message: Received, recipient: str) -> Pushed:
        if shortage := self._room.look():
            return Pushed(replies.FULL, error=shortage)
        try:
            key = self._pusher.push(
                lambda stem: (
                    block(
                        stem,
                        message.sender,
                        recipient,
                        host=self._hostname,
                        when=time.time(),
                        via=message.via,
                        client=message.client,
                    ),
                    message.data,
                )
            )
        except MaildeferError as fault:
            return Pushed(replies.refusal(fault), error=str(fault))
        return Pushed(replies.queued([key]), key)
