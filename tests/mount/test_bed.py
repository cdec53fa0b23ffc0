"""The bed itself: what it says where it can't boot, and that the wire does to frames what it was told."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest

from tests.mount import bed
from tests.mount.harness import eventually
from tests.mount.wire import Link, Wire, checksum, forged_reset

pytestmark = pytest.mark.chosen

SERVER, CLIENT = 1, 10


@pytest.fixture
def ends() -> Iterator[tuple[Wire, socket.socket, socket.socket]]:
    """A running wire, and the server's and a client's end of it."""
    wire = Wire()
    mine: list[socket.socket] = []
    for name, port in (("server", SERVER), ("c0", CLIENT)):
        end, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        end.settimeout(10)
        mine.append(end)
        wire.plug(name, port, other)
    wire.start()
    yield wire, mine[0], mine[1]
    wire.closing = True
    wire.join()
    for end, name in zip(mine, ("server", "c0"), strict=True):
        wire.unplug(name)
        end.close()


def frame(dst: int, src: int, text: bytes) -> bytes:
    """An Ethernet frame with a TCP segment from one guest to the other."""
    ip = b"\x45\x00" + bytes(7) + b"\x06" + bytes(2) + bytes((10, 77, 0, src, 10, 77, 0, dst))
    tcp = b"\x03\xe8\x08\x01" + b"\x00\x00\x00\x07" + b"\x00\x00\x00\x09" + b"\x50\x10" + bytes(6)
    return bytes((2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src)) + b"\x08\x00" + ip + tcp + text


def test_what_is_missing_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bed, "NEEDED", ("/nowhere/linux.uml",))
    assert bed.missing().startswith("missing /nowhere/linux.uml")
    assert bed.missing().endswith(f"apt-get install --no-install-recommends {bed.PACKAGES}")


def test_the_script_that_sets_up_installs_what_the_bed_names() -> None:
    assert f'nfs="{bed.PACKAGES}"\n' in (bed.HERE.parent.parent / ".ci" / "setup").read_text()


def test_a_lost_reply_is_that_of_the_call_that_was_asked_for(
    ends: tuple[Wire, socket.socket, socket.socket],
) -> None:
    wire, server, client = ends
    passed = wire.lose_reply("c0", re.compile(rb"RENAME.*to", re.DOTALL), b"from")
    for call in (b"LOOKUP from to", b"RENAME from to"):
        client.send(frame(SERVER, CLIENT, call))
        assert server.recv(2048).endswith(call)
        wanted = call.startswith(b"RENAME")
        assert passed.wait(10.0 if wanted else 0.0) == wanted
        server.send(frame(CLIENT, SERVER, b"done " + call))
        if not wanted:
            assert client.recv(2048).endswith(b"done LOOKUP from to")
    eventually(lambda: wire.frames == 4, "the wire has had them all", 10)
    wire.reset("c0")
    assert len(client.recv(2048)) == len(frame(CLIENT, SERVER, b""))
    wire.heal()
    server.send(frame(CLIENT, SERVER, b"again"))
    assert client.recv(2048).endswith(b"again")


def test_a_link_that_doubles_and_delays_loses_nothing(
    ends: tuple[Wire, socket.socket, socket.socket],
) -> None:
    wire, server, client = ends
    wire.shape("c0", "server", Link(duplicate=1.0, reorder=0.5, delay_seconds=0.001, jitter_seconds=0.01))
    texts = [b"frame %d" % number for number in range(20)]
    for text in texts:
        client.send(frame(SERVER, CLIENT, text))
    got = sorted(server.recv(2048)[54:] for _ in range(2 * len(texts)))
    assert got == sorted(texts * 2)


def test_a_forged_reset_has_the_sequence_number_that_is_awaited_and_sound_checksums() -> None:
    reset = forged_reset(frame(SERVER, CLIENT, b"a call"))
    assert reset[:12] == frame(CLIENT, SERVER, b"")[:12]
    assert reset[38:42] == b"\x00\x00\x00\x09"
    assert checksum(reset[14:34]) == bytes(2)
