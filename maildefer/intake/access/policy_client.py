"""Asks the processes of a policy, with a time limit, and starts new ones for those that fail.

A question that is not answered in time, or whose process dies of it, is answered with 451; so is every one while no
process comes up. No code of the project is loaded here (I11): `handling.policy.process` is the other side.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from dataclasses import asdict
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from maildefer import events
from maildefer.host.fork_throttle import ForkThrottle
from maildefer.intake import replies
from maildefer.intake.replies import Reply
from maildefer.untrusted import UntrustedRecord, record_in

if TYPE_CHECKING:
    from maildefer.intake.client import Client

_START_SECONDS: Final = 30.0  # to load the project's module
_LINE_BYTES: Final = 1 << 16
_SOUND_SECONDS: Final = 60.0
_KILLED: Final = "it was killed"
_numbers: Final = count(1)


class PolicyProcessFailed(Exception):
    """A policy process did not come up, or did not do what it is there for."""


class PolicyQuestion:
    """A question about a recipient, or about a password; `about` is for the log."""

    def __init__(self, asked: dict[str, Any], **about: str) -> None:
        self.about = about
        self.number = next(_numbers)  # so that no other answer passes for its own
        self.text = json.dumps({"number": self.number, **asked})
        self.answer: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()

    def set_answer(self, reply: Reply | None) -> None:
        if not self.answer.done():  # the asker may have given up
            self.answer.set_result(reply)


class PolicyClient:
    """Asks the function `MODULE.FUNCTION`, in so many processes. Event loop only."""

    def __init__(self, name: str, *, seconds: float, processes: int) -> None:
        self._name = name
        self._seconds = seconds
        self._questions: asyncio.Queue[PolicyQuestion] = asyncio.Queue()
        self._reload = asyncio.Event()
        self._throttle = ForkThrottle()
        self._loop = asyncio.get_running_loop()
        self._up = 0
        self._tasks = [self._loop.create_task(self._keep_process()) for _ in range(max(1, processes))]

    async def ask(self, client: Client, sender: str, recipient: str) -> Reply | None:
        """Ask about a recipient: None where it is accepted, else the reply; 451 where no answer comes in time."""
        asked = {"session": asdict(client), "sender": sender, "recipient": recipient}
        return await self._answer_to(PolicyQuestion(asked, recipient=recipient))

    async def check_password(self, user: str, password: str) -> Reply | None:
        """Ask about a password: None where it is the user's, else the reply."""
        return await self._answer_to(PolicyQuestion({"user": user, "password": password}, user=user))

    async def _answer_to(self, question: PolicyQuestion) -> Reply | None:
        if self._is_down():
            return replies.NO_POLICY
        self._questions.put_nowait(question)
        try:
            async with asyncio.timeout(self._seconds):
                return await question.answer
        except TimeoutError:
            events.emit("policy.failed", policy=self._name, reason="no answer in time", **question.about)
            return replies.NO_POLICY

    def reload(self) -> None:
        """Replace each process after the question in hand: the project has changed."""
        self._reload.set()
        self._reload = asyncio.Event()
        self._throttle.note_success()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep_process(self) -> None:
        """Keep one process, and a new one in its place when it fails."""
        while True:
            await asyncio.sleep(self._throttle.wait(self._loop.time()))
            began = self._loop.time()
            try:
                await self._run_process(self._reload)
            except PolicyProcessFailed as fault:
                events.emit("policy.failed", policy=self._name, reason=str(fault))
                self._throttle.note_death(int(self._loop.time() - began > _SOUND_SECONDS), self._loop.time())
                self._answer_all_waiting()

    def _answer_all_waiting(self) -> None:
        """Answer what waits, where no process is there and none will be for some time."""
        while self._is_down() and not self._questions.empty():
            self._questions.get_nowait().set_answer(replies.NO_POLICY)

    def _is_down(self) -> bool:
        return not self._up and self._throttle.wait(self._loop.time()) > 0

    async def _run_process(self, reload: asyncio.Event) -> None:
        """Run one process, until a reload. Raises PolicyProcessFailed."""
        ours, theirs = socket.socketpair()
        with theirs:
            program = (sys.executable, "-m", "maildefer.handling.policy.process")
            argv = (*program, self._name, str(theirs.fileno()))
            process = await asyncio.create_subprocess_exec(
                *argv, pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL, stdout=2
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LINE_BYTES)
        try:
            match answer := await self._read_answer(reader, _START_SECONDS):
                case {"ready": True}:
                    self._up += 1
                case {"error": str(why)}:
                    raise PolicyProcessFailed(why)
                case _:
                    raise _invalid_answer(answer)
            try:
                await self._ask_process(process, reader, writer, reload)
            finally:
                self._up -= 1
        finally:
            writer.close()
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _ask_process(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        reload: asyncio.Event,
    ) -> None:
        over = [self._loop.create_task(event) for event in (process.wait(), reload.wait())]
        try:
            while (question := await self._next_question(reader, over)) is not None:
                reply: Reply | None = replies.NO_POLICY
                try:
                    writer.write(question.text.encode() + b"\n")
                    reply = self._reply(await self._read_answer(reader, self._seconds), question)
                    self._throttle.note_success()
                finally:
                    question.set_answer(reply)
            if reader.at_eof():
                raise PolicyProcessFailed(f"it ended with {await process.wait()} while nothing was asked")
        finally:
            for task in over:
                task.cancel()

    async def _next_question(
        self, reader: asyncio.StreamReader, over: list[asyncio.Task[Any]]
    ) -> PolicyQuestion | None:
        """Wait for a question; None when the process has ended, or is to be replaced."""
        while True:
            coming = self._loop.create_task(self._questions.get())
            try:
                await asyncio.wait([coming, *over], return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not coming.done():
                    coming.cancel()
            if not coming.done() or coming.cancelled():
                return None
            question = coming.result()
            if reader.at_eof() or any(task.done() for task in over):
                self._questions.put_nowait(question)  # for another process
                return None
            if not question.answer.done():
                return question

    def _reply(self, answer: dict[str, object], question: PolicyQuestion) -> Reply | None:
        """Read the reply from an answer. Raises PolicyProcessFailed for an answer that is invalid or another's."""
        match answer:
            case {"number": question.number, "reply": None}:
                return None
            case {"number": question.number, "reply": str(text)} if (
                reply := replies.written(text)
            ) is not None:
                return reply
            case {"number": question.number, "fault": str(reason)}:
                events.emit("policy.failed", policy=self._name, reason=reason, **question.about)
                return replies.NO_POLICY
        raise _invalid_answer(answer)

    async def _read_answer(self, reader: asyncio.StreamReader, seconds: float) -> dict[str, object]:
        """Read one line from the process. Raises PolicyProcessFailed."""
        try:
            async with asyncio.timeout(seconds):  # wait_for() of Python 3.11 loses a cancellation
                line = await reader.readline()
        except TimeoutError:
            raise PolicyProcessFailed(f"no answer within {seconds:g} s: {_KILLED}") from None
        except ConnectionError:
            line = b""
        except ValueError:
            raise PolicyProcessFailed(
                f"it said {_LINE_BYTES} bytes without an end of line: {_KILLED}"
            ) from None
        if not line.endswith(b"\n"):  # half a line, or a process that is gone
            raise PolicyProcessFailed("it ended without an answer")
        try:
            return record_in(line)
        except UntrustedRecord as fault:
            raise _invalid_answer(line, f" ({fault})") from None


def _invalid_answer(answer: object, why: str = "") -> PolicyProcessFailed:
    return PolicyProcessFailed(f"it said what is no answer{why}: {answer!r:.100}: {_KILLED}")
