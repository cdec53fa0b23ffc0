"""The network between the guests: an Ethernet switch in a thread, which can lose, delay, duplicate or cut frames."""

from __future__ import annotations

import contextlib
import heapq
import random
import re
import selectors
import socket
import struct
import threading
import time
from dataclasses import dataclass

Needle = bytes | re.Pattern[bytes]


@dataclass(slots=True)
class Link:
    """How frames fare from one guest to another."""

    loss: float = 0.0  # this and the next two are probabilities
    duplicate: float = 0.0  # of a second copy up to 50 ms later
    reorder: float = 0.0  # of being held back 20 ms
    delay_seconds: float = 0.0
    jitter_seconds: float = 0.0


class Wire(threading.Thread):
    """An Ethernet switch with one seqpacket socket for each guest; the last byte of a MAC address names the port."""

    def __init__(self) -> None:
        super().__init__(name="nfsbed-wire", daemon=True)
        self.frames = 0
        self._random = random.Random(0)
        self._selector = selectors.DefaultSelector()
        self._ports: dict[str, socket.socket] = {}
        self._names: dict[int, str] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._trigger: tuple[str, tuple[Needle, ...], threading.Event] | None = None
        self._held: list[tuple[float, int, str, bytes]] = []  # a heap of delayed frames
        self._last: dict[tuple[str, str, bytes], bytes] = {}  # the newest frame of each TCP connection
        self._lock = threading.RLock()
        self.closing = False

    def shape(self, src: str, dst: str, link: Link) -> None:
        """Treat frames from src to dst, but not those back, as `link` says."""
        with self._lock:
            self._links[src, dst] = link

    def partition(self, a: str, b: str = "server") -> None:
        self.cut(a, b)
        self.cut(b, a)

    def cut(self, src: str, dst: str) -> None:
        """Drop every frame from src to dst, and none from dst to src."""
        self.shape(src, dst, Link(loss=1.0))

    def lose_reply(self, client: str, *needles: Needle) -> threading.Event:
        """Pass the client's next frame that holds all `needles`, then drop what the server sends; tells of the pass."""
        passed = threading.Event()
        with self._lock:
            self._trigger = client, needles, passed
        return passed

    def heal(self) -> None:
        """Forget every shape, partition, cut and reply to lose."""
        with self._lock:
            self._links.clear()
            self._trigger = None

    def reset(self, client: str) -> None:
        """Break the client's TCP connections to the server by a forged RST, so that it connects and asks again."""
        with self._lock:
            for key in [key for key in self._last if key[:2] == (client, "server")]:
                self._send(client, forged_reset(self._last.pop(key)))

    def plug(self, name: str, port: int, end: socket.socket) -> None:
        end.setblocking(False)
        with self._lock:
            self._ports[name], self._names[port] = end, name
            self._selector.register(end, selectors.EVENT_READ, name)

    def unplug(self, name: str) -> None:
        with self._lock:
            if end := self._ports.pop(name, None):
                self._selector.unregister(end)
                end.close()

    def run(self) -> None:
        while not self.closing:
            wait = self._held[0][0] - time.monotonic() if self._held else 0.05
            for key, _ in self._selector.select(max(0.0, min(wait, 0.05))):
                with self._lock, contextlib.suppress(OSError):  # EAGAIN: drained; EBADF: unplugged just now
                    for _ in range(32):
                        if not (
                            frame := self._ports[key.data].recv(65536) if key.data in self._ports else b""
                        ):
                            self.unplug(key.data)
                            break
                        self._forward(key.data, frame)
            with self._lock:
                while self._held and self._held[0][0] <= time.monotonic():
                    self._send(*heapq.heappop(self._held)[2:])

    def _forward(self, src: str, frame: bytes) -> None:
        everyone = frame[0] & 1  # a broadcast, which here is ARP only
        for dst in (
            [n for n in self._ports if n != src] if everyone else filter(None, [self._names.get(frame[5])])
        ):
            self.frames += 1
            link = self._links.get((src, dst))
            if link and self._random.random() < link.loss:
                continue
            if frame[12:14] == b"\x08\x00" and frame[23] == socket.IPPROTO_TCP:
                self._last[src, dst, frame[34:36]] = frame
            if link:
                due = time.monotonic() + link.delay_seconds + link.jitter_seconds * self._random.random()
                due += 0.02 * (self._random.random() < link.reorder)
                heapq.heappush(self._held, (due, self.frames, dst, frame))
                if self._random.random() < link.duplicate:
                    heapq.heappush(self._held, (due + 0.05 * self._random.random(), self.frames, dst, frame))
            else:
                self._send(dst, frame)
            if (
                self._trigger
                and self._trigger[0] == src
                and all(found(needle, frame) for needle in self._trigger[1])
            ):
                self.cut("server", src)
                self._trigger[2].set()
                self._trigger = None

    def _send(self, dst: str, frame: bytes) -> None:
        with contextlib.suppress(OSError):  # lost, as on a real wire, where a guest is frozen or dead
            if dst in self._ports:
                self._ports[dst].send(frame)


def found(needle: Needle, frame: bytes) -> bool:
    return needle in frame if isinstance(needle, bytes) else needle.search(frame) is not None


def forged_reset(frame: bytes) -> bytes:
    """The RST that would answer this TCP frame; its sequence number is what the frame's sender expects next."""
    tcp = frame[14 + (frame[14] & 15) * 4 :]
    addresses = frame[30:34] + frame[26:30]
    segment = tcp[2:4] + tcp[:2] + tcp[8:12] + bytes(4) + b"\x50\x04" + bytes(6)
    segment = (
        segment[:16] + checksum(addresses + struct.pack(">HH", socket.IPPROTO_TCP, 20) + segment) + bytes(2)
    )
    header = struct.pack(">HHHHBBH", 0x4500, 40, 0, 0x4000, 64, socket.IPPROTO_TCP, 0) + addresses
    return frame[6:12] + frame[:6] + b"\x08\x00" + header[:10] + checksum(header) + addresses + segment


def checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    return struct.pack(">H", 0xFFFF - (total - 1) % 0xFFFF - 1)
