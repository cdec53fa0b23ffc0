"""From a received message to durable entries, one for each recipient, and the replies for them (I1)."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from dataclasses import dataclass

from maildefer import events
from maildefer.intake import replies
from maildefer.intake.committer import Committer, Result
from maildefer.intake.room import Room
from maildefer.maildir.push import Compose
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

    def __init__(self, committer: Committer, room: Room, threads: Executor, *, hostname: str) -> None:
        self._committer = committer
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
            keys = [each.key for each in pushed.values() if each.key is not None]
            await asyncio.get_running_loop().run_in_executor(self._threads, self._committer.withdraw, keys)
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
        if self._room.shortage:
            return dict.fromkeys(message.recipients, Pushed(replies.FULL, error=self._room.shortage))
        pushes = [self._committer.push(self._entry(message, recipient)) for recipient in message.recipients]
        results = [await pushes[0]] if len(pushes) == 1 else await asyncio.gather(*pushes)
        return dict(zip(message.recipients, map(_pushed, results), strict=True))

    def _entry(self, message: Received, recipient: str) -> Compose:
        def compose(stem: str) -> tuple[bytes, bytes]:
            top = block(
                stem,
                message.sender,
                recipient,
                host=self._hostname,
                when=time.time(),
                via=message.via,
                client=message.client,
            )
            return top, message.data

        return compose


def _pushed(result: Result) -> Pushed:
    if isinstance(result, str):
        return Pushed(replies.queued([result]), result)
    return Pushed(replies.refusal(result), error=str(result))
