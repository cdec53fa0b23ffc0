"""A connected socket on the event loop, in the clear: what asyncio's own transport does, in less time (decision 93).

asyncio makes one in three turns of the loop, with a task and five system calls. Here a connection speaks as soon as it
is accepted, and ends at once when it is closed.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ssl import SSLContext

_RESUME_WRITING_BYTES: Final = 16 << 10
_PAUSE_WRITING_BYTES: Final = 64 << 10


def suits(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop calls the reader of a socket that was reset. uvloop does not: there its own transports serve."""
    return isinstance(loop, asyncio.SelectorEventLoop)


async def encrypted(
    loop: asyncio.AbstractEventLoop,
    transport: asyncio.Transport,
    protocol: asyncio.BufferedProtocol,
    context: SSLContext,
    seconds: float,
) -> asyncio.Transport:
    """Encrypt a connection; returns its new transport, one of the event loop, with which its protocol may begin again.

    OSError (as is ssl.SSLError), TimeoutError: the connection is closed.
    """
    made: asyncio.Transport | None
    try:
        if isinstance(transport, SocketTransport):
            sock = transport.release_socket()
            made, _ = await loop.connect_accepted_socket(
                lambda: protocol, sock, ssl=context, ssl_handshake_timeout=seconds
            )
        else:
            made = await loop.start_tls(
                transport, protocol, context, server_side=True, ssl_handshake_timeout=seconds
            )
    except BaseException:
        transport.abort()
        raise
    assert made is not None
    return made


class SocketTransport(asyncio.Transport):
    """The transport of one socket and a `BufferedProtocol`, from `open` to `connection_lost`. Event loop only.

    Its callbacks come directly: a protocol may have lost its connection when `close` or `abort` returns, but not while
    it writes.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: asyncio.BufferedProtocol
    ) -> None:
        """`sock`: does not block; it is closed in the end."""
        super().__init__()
        self._loop = loop
        self._socket = sock
        self._descriptor = sock.fileno()
        self._protocol = protocol
        self._unsent = bytearray()
        self._is_reading = self._is_closing = self._is_ended = False
        self._is_released = self._writing_is_paused = False

    def open(self) -> None:
        """Begin the protocol, and read."""
        self._protocol.connection_made(self)
        self.resume_reading()

    def resume_reading(self) -> None:
        if not (self._is_reading or self._is_closing):
            self._is_reading = True
            self._loop.add_reader(self._descriptor, self._read)

    def pause_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._descriptor)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send it now as far as the socket takes it, and the rest when it can."""
        if self._is_ended:
            return
        sent = 0
        if not self._unsent:
            try:
                sent = self._socket.send(data)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as fault:
                self._is_closing = True
                self.pause_reading()
                self._loop.call_soon(self._end, fault)
                return
            if sent == len(data):
                return
            self._loop.add_writer(self._descriptor, self._send_rest)
        self._unsent += memoryview(data)[sent:]
        if len(self._unsent) > _PAUSE_WRITING_BYTES and not self._writing_is_paused:
            self._writing_is_paused = True
            self._protocol.pause_writing()

    def close(self) -> None:
        """Read no more, and end once all is sent."""
        if self._is_released:
            with suppress(OSError):  # the client was faster
                self._socket.shutdown(socket.SHUT_RDWR)
        elif not self._is_closing:
            self._is_closing = True
            self.pause_reading()
            if not self._unsent:
                self._end(None)

    def abort(self) -> None:
        self._end(None)

    def is_closing(self) -> bool:
        return self._is_closing

    def release_socket(self) -> socket.socket:
        """Give the socket up, for another transport; `close` still shuts it down. ConnectionError while it can't be."""
        if self._unsent or self._is_closing:
            raise ConnectionError("the client does not read, or has left")
        self.pause_reading()
        self._is_released = self._is_ended = True
        return self._socket

    def _read(self) -> None:
        try:
            size = self._socket.recv_into(self._protocol.get_buffer(-1))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as fault:
            self._end(fault)
            return
        try:
            if size:
                self._protocol.buffer_updated(size)
            elif self._protocol.eof_received():
                self.pause_reading()
            else:
                self.close()
        except Exception as fault:
            self._end(fault)
            raise

    def _send_rest(self) -> None:
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except (BlockingIOError, InterruptedError):
            return
        except OSError as fault:
            self._end(fault)
            return
        if not self._unsent:
            self._loop.remove_writer(self._descriptor)
            if self._is_closing:
                self._end(None)
                return
        if self._writing_is_paused and len(self._unsent) <= _RESUME_WRITING_BYTES:
            self._writing_is_paused = False
            self._protocol.resume_writing()

    def _end(self, fault: Exception | None) -> None:
        if self._is_ended:
            return
        self.pause_reading()
        if self._unsent:
            self._loop.remove_writer(self._descriptor)
            self._unsent.clear()
        self._is_closing = self._is_ended = True
        try:
            self._protocol.connection_lost(fault)
        finally:
            self._socket.close()
