"""The transport of a connection in the clear, over a real pair of sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from unittest.mock import Mock

import pytest

from maildefer.intake.socket_transport import SocketTransport, suits

MUCH = bytes(range(256)) * 8192


class Noting(asyncio.BufferedProtocol):
    """Notes what it is told, and answers what `answers` says for what has come."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.data = b""
        self.stays = False
        self.on_data: Callable[[], None] | None = None
        self.buffer = bytearray(1 << 16)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.told.append("made")

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]
        if self.on_data is not None:
            self.on_data()

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self.stays

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.told.append("lost" if error is None else f"lost: {type(error).__name__}")


Play = Callable[[SocketTransport, Noting, socket.socket], Awaitable[None]]


def played(play: Play, *, write_bytes: int = 0) -> Noting:
    protocol = Noting()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: protocol.told.append("raised"))
        ours, theirs = socket.socketpair()
        if write_bytes:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, write_bytes)
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            transport = SocketTransport(loop, ours, protocol)
            transport.open()
            async with asyncio.timeout(30):
                await play(transport, protocol, theirs)
            transport.abort()

    asyncio.run(run())
    return protocol


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def read_until_end(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := await asyncio.get_running_loop().sock_recv(peer, 1 << 16)):
        data += more
    return data


def test_another_event_loop_than_asyncios_has_its_own_transports() -> None:
    """uvloop calls no reader for a connection that was reset, and it would stay for ever."""
    with asyncio.Runner() as runner:
        assert suits(runner.get_loop())
    assert not suits(Mock(spec=asyncio.AbstractEventLoop))


def test_a_reset_ends_the_connection() -> None:
    async def play(transport: SocketTransport, protocol: Noting, peer: socket.socket) -> None:
        transport.write(b"unread by its peer")
        peer.close()
        await until(transport.is_closing)

    assert played(play).told == ["made", "lost: ConnectionResetError"]


def test_what_the_peer_sends_comes_in_order_and_its_end_ends_the_connection() -> None:
    async def play(transport: SocketTransport, protocol: Noting, peer: socket.socket) -> None:
        await asyncio.get_running_loop().sock_sendall(peer, MUCH)
        peer.close()
        await until(transport.is_closing)
        transport.write(b"too late")

    protocol = played(play)
    assert protocol.data == MUCH
    assert protocol.told == ["made", "eof", "lost"]


def test_a_protocol_may_answer_after_its_peer_has_sent_all() -> None:
    async def play(transport: SocketTransport, protocol: Noting, peer: socket.socket) -> None:
        protocol.stays = True
        peer.shutdown(socket.SHUT_WR)
        await until(lambda: "eof" in protocol.told)
        transport.write(b"250 ok\r\n")
        transport.close()
        assert await read_until_end(peer, 100) == b"250 ok\r\n"

    assert played(play).told == ["made", "eof", "lost"]


def test_what_the_socket_does_not_take_is_sent_when_it_can_also_after_close() -> None:
    async def play(transport: SocketTransport, protocol: Noting, peer: socket.socket) -> None:
        transport.write(MUCH)
        transport.write(b"more")
        assert protocol.told == ["made", "pause"]
        with pytest.raises(ConnectionError):
            transport.release_socket()
        assert await read_until_end(peer, len(MUCH) + 4) == MUCH + b"more"
        await until(lambda: "resume" in protocol.told)
        transport.write(MUCH)
        transport.close()
        assert protocol.told[-1] == "pause"
        assert await read_until_end(peer, 2 * len(MUCH)) == MUCH

    assert played(play, write_bytes=8192).told == ["made", "pause", "resume", "pause", "resume", "lost"]


def test_nothing_is_read_while_reading_is_paused() -> None:
    async def play(transport: SocketTransport, protocol: Noting, peer: socket.socket) -> None:
        protocol.on_data = transport.pause_reading
        peer.send(b"one")
        await until(lambda: protocol.data == b"one")
        peer.send(b"two")
        for _ in range(5):
            await asyncio.sleep(0)
        assert protocol.data == b"one"
        transport.resume_reading()
        await until(lambda: protocol.data == b"onetwo")

    played(play)


def test_a_peer_that_is_gone_ends_the_connection_but_not_within_a_write() -> None:
    async def play(transport: SocketTransport, protocol: Noting, peer: socket.socket) -> None:
        peer.close()
        transport.write(b"250 ok\r\n")
        assert protocol.told == ["made"]
        await until(lambda: len(protocol.told) > 1)

    assert played(play).told == ["made", "lost: BrokenPipeError"]


def test_a_fault_of_the_protocol_ends_its_connection_and_is_told() -> None:
    async def play(transport: SocketTransport, protocol: Noting, peer: socket.socket) -> None:
        def fail() -> None:
            raise ValueError

        protocol.on_data = fail
        peer.send(b"x")
        assert await read_until_end(peer, 1) == b""

    assert played(play).told == ["made", "lost: ValueError", "raised"]


@pytest.mark.parametrize("way", ["close", "abort"])
def test_a_connection_that_is_closed_is_lost_at_once_and_once(way: str) -> None:
    async def play(transport: SocketTransport, protocol: Noting, peer: socket.socket) -> None:
        getattr(transport, way)()
        assert protocol.told == ["made", "lost"]
        transport.close()
        transport.abort()
        transport.resume_reading()

    assert played(play).told == ["made", "lost"]


def test_a_socket_that_is_released_stays_open_and_the_protocol_hears_nothing() -> None:
    async def play(transport: SocketTransport, protocol: Noting, peer: socket.socket) -> None:
        sock = transport.release_socket()
        transport.write(b"dropped")
        sock.send(b"kept")
        assert await read_until_end(peer, 4) == b"kept"
        transport.close()
        assert await read_until_end(peer, 1) == b""

    assert played(play).told == ["made"]
