"""Wild clients, for a minute; and what they have found."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.security.fuzz import PATIENCE_SECONDS, Fuzzer, Transport, fuzz

SECONDS = float(os.environ.get("MAILDEFER_FUZZ_SECONDS", "60"))
ENVELOPE = b"RCPT TO:<post@osb.example>\r\n"
LARGE = b"x" * 5_000  # more than is kept in memory


@pytest.mark.slow
@pytest.mark.lifecycle
@pytest.mark.invariant(1)
def test_whatever_clients_send_each_250_is_one_whole_message_and_nothing_else_is_stored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with capsys.disabled():
        print(f"\n{fuzz(20_261_124, seconds=SECONDS)}")


async def said(transport: Transport, text: bytes) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while text not in transport.said:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("begin", "part_is_taken", "end"),
    [
        (b"BDAT 5000\r\n" + LARGE, b"5000 octets", b"BDAT 3 LAST\r\nend"),
        (b"DATA\r\n" + LARGE, b"354 ", b"\r\nend\r\n.\r\n"),
    ],
)
def test_who_leaves_at_the_very_end_of_a_large_message_leaves_nothing_partial(
    begin: bytes, part_is_taken: bytes, end: bytes
) -> None:
    """Found by the fuzzer: gone when the message is complete, and its storing has not begun."""

    async def play(fuzzer: Fuzzer, seed: int) -> int:
        session, transport = fuzzer.connect()
        session.data_received(b"EHLO c\r\nMAIL FROM:<ann@example.org>\r\n")
        await said(transport, b"sender ok")
        session.data_received(ENVELOPE + begin)
        await said(transport, part_is_taken)
        while session._waiting:
            await asyncio.sleep(0.001)
        session.data_received(end)
        transport.reset()
        await fuzzer.quiet()
        for path in (fuzzer.place / "new").iterdir():
            assert LARGE in path.read_bytes(), "a part of a message is in new/"
        return 0

    fuzz(1, cases=1, play=play)


def test_a_client_that_sends_many_commands_at_once_lets_others_have_their_turn() -> None:
    """A whole buffer of them took the front end a tenth of a second, in which nobody else had a reply."""
    turns = []

    async def play(fuzzer: Fuzzer, seed: int) -> int:
        many, one = fuzzer.connect(), fuzzer.connect()
        many[0].data_received(b"HELO a\r\n" + b"NOOP\r\n" * 90)
        one[0].data_received(b"HELO b\r\nNOOP\r\n")
        assert one[1].said.count(b"\r\n") == 3, "the greeting, and two replies"
        turns.append(many[1].said.count(b"\r\n"))
        while many[1].said.count(b"\r\n") < 92:
            await asyncio.sleep(0)
            turns.append(many[1].said.count(b"\r\n"))
        for session, transport in (many, one):
            transport.reset()
            assert not session._replies
        return 0

    fuzz(0, cases=1, play=play)
    assert turns == [65, 92]
