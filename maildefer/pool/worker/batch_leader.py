"""One worker of a host, the leader, gathers for a `@batch` function; the others pass on to it what they find.

So one call handles what came on a host within the function's linger, whichever workers have claimed it. What is passed
on is a name, a hint like any offer (I10): of an entry in `new/`, or of a claim in `cur/`, which the leader takes over,
by a rename to a destination of its own (I3). The worker that has passed a claim on does nothing more with it, but
shows it on the scoreboard until it is taken over, or released after a second or two.

Locks of the kernel say which worker leads, and which is in a function, so that a death leaves nothing behind.
"""

from __future__ import annotations

import os
import socket
from binascii import crc32
from typing import Final

from maildefer.handling.calls.step import CALL, EXCLUSIVE_CALL
from maildefer.handling.limits.admission import ConversationTokens
from maildefer.host.linux.process_locks import ProcessLocks
from maildefer.host.linux.readiness import await_writable
from maildefer.maildir.system import boottime
from maildefer.pool.scoreboard import BATCH_CHANNELS, Scoreboard
from maildefer.pool.worker.claim_slots import GatheredClaim, release_untaken
from maildefer.pool.worker.conversation_locks import ConversationLocks
from maildefer.pool.worker.offers import Offers

_FULL_SOCKET_SECONDS: Final = 0.05  # the kernel may hold ten names only (net.unix.max_dgram_qlen)
_PASSED_SECONDS: Final = 1.0  # a leader takes over in milliseconds, unless it dies or its mount hangs
_SEATS: Final = BATCH_CHANNELS  # the numbers of locks: channels, seats, and calls
_CALLS: Final = 1 << 32


class BatchLeader:
    """The leader of one channel, as one worker sees it: another worker, or itself until its function is called."""

    def __init__(
        self, number: int, ends: tuple[socket.socket, socket.socket], locks: ProcessLocks, offers: Offers
    ) -> None:
        self._number = number
        self._locks = locks
        self._sending, self._receiving = ends
        for end in ends:
            end.setblocking(False)
        self._offers = offers
        self.is_leading = False
        self._passed: list[GatheredClaim] = []  # lately
        self._passed_before: list[GatheredClaim] = []
        self._look_at = 0.0

    def begin_leading(self) -> bool:
        """Lead until `end_leading`; False while another worker does."""
        if not self.is_leading and self._locks.try_lock(self._number):
            self._offers.wake_for(self._receiving)
            self.is_leading = True
        return self.is_leading

    def end_leading(self) -> None:
        """Lead no longer; nothing to do where this worker does not. Names that were passed on wait for the next one."""
        if self.is_leading:
            self._offers.stop_waking_for(self._receiving)
            self._locks.unlock(self._number)
            self.is_leading = False

    @property
    def passes(self) -> bool:
        """Whether a claim of this worker may not have been taken over yet."""
        return bool(self._passed or self._passed_before)

    def pass_name(self, queue: int, name: str) -> bool:
        """Pass on the name of an entry that waits; False where the leader has more than it can take."""
        if self._send(f"{queue} 0 {name}"):
            return True
        await_writable(self._sending, _FULL_SOCKET_SECONDS)
        return self._send(f"{queue} 0 {name}")

    def pass_claim(self, queue: int, claim: GatheredClaim, since: float) -> bool:
        """Pass on a claim that has waited since then; False where the leader has more than it can take."""
        if not self._send(f"{queue} {since:.6f} cur/{claim.name}"):
            return False
        if not self.passes:
            self._look_at = boottime() + _PASSED_SECONDS
        self._passed.append(claim)
        return True

    def receive(self) -> tuple[int, float, str] | None:
        """Receive a queue, since when it has waited, and a name as `Claimer.claim` takes it; None when there is none.

        The time is zero for what has not been claimed yet.
        """
        try:
            queue, since, name = os.fsdecode(self._receiving.recv(4096)).split(" ", 2)
        except BlockingIOError:
            return None
        return int(queue), float(since), name

    def settle_passed(self, *, now: bool = False) -> int:
        """Forget the claims that were taken over, and release those that were not within a second; returns how many.

        With `now`, release all that were not.
        """
        if not self.passes or not (now or self._look_at <= boottime()):
            return 0
        old = self._passed_before + self._passed if now else self._passed_before
        self._passed, self._passed_before = [], [] if now else self._passed
        self._look_at = boottime() + _PASSED_SECONDS
        return release_untaken(old)

    def _send(self, text: str) -> bool:
        try:
            self._sending.send(os.fsencode(text))
        except BlockingIOError:
            return False
        return True


class LeadersSeat:
    """The right of a leader to do nothing else meanwhile; at most half of a host's workers have it."""

    def __init__(self, locks: ProcessLocks, offers: Offers) -> None:
        self._locks = locks
        self._offers = offers
        self._number: int | None = None
        self._was_refused = False

    @property
    def is_taken(self) -> bool:
        return self._number is not None

    def take(self, board: Scoreboard) -> None:
        """Leave the offers to the other workers, if there are enough of them; once until the next `leave`."""
        if self._number is not None or self._was_refused:
            return
        seats = range(_SEATS, _SEATS + len(board.workers()) // 2)
        free = (number for number in seats if self._locks.try_lock(number))
        self._number = next(free, None)
        if self._number is None:
            self._was_refused = True
        else:
            self._offers.rest()

    def leave(self) -> None:
        self._was_refused = False
        if self._number is not None:
            self._locks.unlock(self._number)
            self._offers.resume()
            self._number = None


class BatchCalls:
    """The tokens of a worker with `@batch` functions, for calls and for conversations: `ConversationTokens`.

    A call's is a lock of this host, and for an exclusive function one of the conversation tokens as well.
    """

    def __init__(self, locks: ProcessLocks, conversations: ConversationTokens | None) -> None:
        self._locks = locks
        self._conversations = conversations

    def take_token(self, conversation: str) -> bool:
        if not conversation.startswith((CALL, EXCLUSIVE_CALL)):
            return self._conversations is None or self._conversations.take_token(conversation) is True
        if not self._locks.try_lock(_number_of(conversation)):
            return False
        if not conversation.startswith(EXCLUSIVE_CALL):
            return True
        assert isinstance(self._conversations, ConversationLocks)
        is_taken = False
        try:
            is_taken = self._conversations.try_token(conversation)
        finally:
            if not is_taken:
                self._locks.unlock(_number_of(conversation))
        return is_taken

    def release_token(self, conversation: str) -> None:
        if self._conversations is not None and not conversation.startswith(CALL):
            self._conversations.release_token(conversation)
        if conversation.startswith((CALL, EXCLUSIVE_CALL)):
            self._locks.unlock(_number_of(conversation))


def _number_of(call: str) -> int:
    return _CALLS + crc32(call.encode("utf-8", "replace"))
