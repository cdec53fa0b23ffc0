"""What a bed's clients ask of the server: requests by kind, as the client's kernel and the server's count them."""

from __future__ import annotations

from collections import Counter

from tests.mount.bed import MOUNT, NfsBed
from tests.mount.guest import Guest


def sent(guest: Guest) -> Counter[str]:
    """Return how many requests of each kind a client has sent for the mount, repetitions included."""
    text = guest.check(["cat", "/proc/self/mountstats"])
    _, _, ours = text.partition(f" mounted on {MOUNT} ")
    _, _, lines = ours.partition("per-op statistics\n")
    counts = Counter[str]()
    for line in lines.splitlines():
        kind, _, numbers = line.strip().partition(": ")
        if not numbers[:1].isdigit():
            break
        counts[kind] = int(numbers.split()[1])  # transmissions: the field before counts each request once
    return counts


def received(bed: NfsBed) -> int:
    """Return how many requests of all clients the server has got."""
    lines = dict(line.split(" ", 1) for line in bed.server.check(["cat", "/proc/net/rpc/nfsd"]).splitlines())
    return int(lines["rpc"].split()[0])
