"""Names of entries and leases: the one place that parses and builds them.

    new/    KEY[,u=UNIQUE|,o=OUTPUTS][,f=FAILURES][,h=HANDOFFS][,a=ATTEMPTS][,c=CRASHES][,n=RETURNS][,d=DUE]
    cur/    KEY,u=…,f=…,h=…,a=…,c=…,n=…:1,LEASE.PID.SEQ
    later/  KEY,u=…,f=…,h=…,a=…,c=…,n=…,d=DUE_UNIX_SECONDS
    KEY  =  <unix secs>.M<usecs>P<pid>Q<count>R<random hex>.<host>[,t=<unix secs>][,p=PRIORITY][,q=<marker>],S=<bytes>
    LEASE = <host>-<pid>-<random hex>

The first field of a key is when the entry was pushed, from which its age counts. An entry that was pushed for later has
its first due time there, and when it was pushed in `t`. In `new/` a `d` means that the entry is not claimed before.

Names of other writers have none of our fields, which then count as zero; unknown fields stay where they are, as part of
the key. `u`, `o`, `f` and `h`, which came later, stand first, so that an older version carries them along.

A front end of another user chooses the names of the entries that it puts in, and may choose names that entries of
others have or will get. So in such a queue every entry that leaves `cur/` gets a UNIQUE made of its claim (decision
50): no two entries get the same next name, whatever names they had before. OUTPUTS is one as well: under it a claim has
committed what its handlers have sent (decision 73); an `h` at its end says that the entry was handed on with it.
Source of the form: the Maildir description (cr.yp.to/proto/maildir.html), Maildir++ for `S=`.
"""

from __future__ import annotations

import itertools
import math
import re
from binascii import crc32
from dataclasses import dataclass, replace

from maildefer.digest import blake2b
from maildefer.maildir.system import System

MAX_KEY_BYTES = 144  # so that key, fields, lease and sequence stay under the 255 bytes of NAME_MAX
MAX_HANDOFFS = 1000  # with one more the handoffs are taken for a loop
MAX_DUE = 10**12 - 1  # a field has at most 12 digits
_RANK = {"f=": 0, "h=": 1, "a=": 2, "c=": 3, "n=": 4, "d=": 5}  # our fields, in the order in which they stand
_COUNTERS = "failures", "handoffs", "attempts", "crashes", "returns", "due"
_OWNER = re.compile(r"([a-z0-9-]{1,40}-[0-9]{1,10}-[0-9a-f]{4,16})\.([0-9]{1,10})\.([0-9]{1,19})\Z")
_NUMBERS = r"([0-9]{1,11})\.M([0-9]{6})P[0-9]+Q[0-9]+R[0-9a-f]{16}"  # the beginning of a key of ours
_OWN = re.compile(rf"{_NUMBERS}\.[^,/]+(?:,t=([0-9]{{1,11}}))?(?:,[pq]=\w+)*,S=[0-9]+\Z")
FOR_LATER = ",t="  # before the time of a push for later
_POP = "pop-"
_UNIQUE_BYTES = 5
_UNIQUE = re.compile(r",(?:u=([0-9a-f]{10})|o=([0-9a-f]{10}h?))\Z")
HANDED_ON = "h"  # at the end of OUTPUTS
MAX_SHARED_KEY_BYTES = MAX_KEY_BYTES - 13  # of a key that has a UNIQUE or OUTPUTS, or will get one
_count = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryName:
    """An entry's name in parts. Claims charge `attempts`, reclaims `crashes`; `returns` tells its names apart.

    `failures` are attempts that ended in an exception, `handoffs` the queues that it has left. `unique`, in a queue
    that a front end of another user shares, and `outputs`, where some are committed, tell entries of one key apart.
    """

    key: str
    unique: str = ""
    outputs: str = ""
    failures: int = 0
    handoffs: int = 0
    attempts: int = 0
    crashes: int = 0
    returns: int = 0
    due: int | None = None

    @classmethod
    def parse(cls, name: str) -> EntryName:
        """Take any name apart. An info part (`:2,S`) is dropped: Maildir's rule is one name for each unique part.

        Only what `waiting` and `deferred` write counts as our fields; anything else is part of the key, so that two
        names never become one.
        """
        key, colon, info = name.partition(":")
        if colon and (":" in info or not info.startswith(("1,", "2,"))):  # no info: a colon of another writer
            return cls(key=name)
        counts, last = dict[str, int](), len(_RANK)
        while True:
            rest, _, text = key.rpartition(",")
            rank = _RANK.get(text[:2], last)
            if rank >= last or not rest or (value := _count_of(text)) < 1:
                break
            key, last, counts[_COUNTERS[rank]] = rest, rank, value
        found = _UNIQUE.search(key, 1) if ",u=" in key or ",o=" in key else None
        unique, outputs = found.groups("") if found else ("", "")
        key = key[: found.start()] if found else key
        return cls(key=key, unique=unique, outputs=outputs, **counts)

    @property
    def failed(self) -> int:
        """How many attempts ended in an exception, or with the death of their worker."""
        return self.failures + self.crashes

    @property
    def unique_key(self) -> str:
        """The part of the name before the counters, which no other entry's name begins with."""
        return self.key + (f",u={self.unique}" if self.unique else self.outputs and f",o={self.outputs}")

    @property
    def is_handled(self) -> bool:
        """Whether its handlers are done, and what they have sent is committed."""
        return self.outputs != "" and not self.outputs.endswith(HANDED_ON)

    def waiting(self) -> str:
        """The name in `new/`, and in `.dead/`; with the due time, if there is one."""
        fields = self.unique_key
        for field, counter in zip(_RANK, _COUNTERS, strict=True):
            if count := getattr(self, counter):
                fields += f",{field}{count}"
        return fields

    def claimed(self, owner: str) -> str:
        """The name in `cur/`; `owner` is LEASE.PID.SEQ. The attempt is charged here (I5)."""
        return f"{replace(self, attempts=self.attempts + 1, due=None).waiting()}:1,{owner}"

    def deferred(self, due: int, *, attempts: int = 0, failures: int = 0) -> str:
        """The name in `.later/new/`, of the next generation (I4)."""
        return replace(self.returned(attempts=attempts, failures=failures), due=due).waiting()

    def promoted(self) -> EntryName:
        """The next generation (I4), which may be claimed at once."""
        return replace(self.returned(), due=None)

    def handed_on(self) -> EntryName:
        """The next generation (I4), for another queue: crashes are kept, attempts begin at zero."""
        anew = self.returned(attempts=-self.attempts, failures=-self.failures)
        return replace(anew, handoffs=self.handoffs + 1)

    def returned(self, *, attempts: int = 0, crashes: int = 0, failures: int = 0) -> EntryName:
        """The next generation (I4), with the same due time; the arguments are added to the counters."""
        return replace(
            self,
            failures=self.failures + failures,
            attempts=max(0, self.attempts + attempts),
            crashes=self.crashes + crashes,
            returns=self.returns + 1,
        )


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a claim: a lease, a process under it, and that process's number for the claim."""

    lease: str
    pid: int
    seq: int


def owner_of(name: str) -> Owner | None:
    """Return the owner in a name of `cur/`; None for names that mail readers or `pop` have made."""
    info = name.partition(":1,")[2]
    if match := _OWNER.match(info):
        return Owner(match[1], int(match[2]), int(match[3]))
    return None


def pop_name(entry: EntryName, system: System) -> str:
    """Return a destination in `cur/` for an entry that is taken at most once, without a lease."""
    return f"{entry.waiting()}:1,{_POP}{system.pid()}-{system.token(8)}"


def fresh_stem(host: str, system: System, due: int | None = None, part: str = "") -> str:
    """Return a new key without its size, unique over all hosts and times. `part`: a further part of it.

    `due`: when the entry is due, if it is pushed for later.
    """
    seconds, micros = divmod(int(system.time() * 1_000_000), 1_000_000)
    padded = f"{1_000_000 + micros}"[1:]  # takes half the time of a format of six digits
    begin = seconds if due is None else due
    stem = f"{begin}.M{padded}P{system.pid()}Q{next(_count)}R{system.token(8)}.{host}"
    return stem + part if due is None else f"{stem}{FOR_LATER}{seconds}{part}"


def sized(stem: str, size_bytes: int) -> str:
    """Return the key of a push of ours."""
    return f"{stem},S={size_bytes}"


def hashed(host: str) -> str:
    """Return the hash that replaces the host's name in keys that must not have it."""
    return f"{crc32(host.encode('utf-8', 'surrogateescape')):08x}"


def with_usable_key(entry: EntryName, host: str, system: System, *, shared: bool = False) -> EntryName:
    """Return the entry, with a new key if another writer's key can't have our fields and every suffix.

    `shared`: the queue is one in which the entry will get a UNIQUE.
    """
    key, is_longer = entry.key, shared or entry.unique_key != entry.key
    longest = MAX_SHARED_KEY_BYTES if is_longer else MAX_KEY_BYTES
    is_ours = not entry.outputs or entry.returns  # whoever commits outputs returns the entry, too
    if (
        is_ours
        and 0 < len(key) <= longest
        and ":" not in key
        and not is_field(key.rpartition(",")[2])
        and (key.isascii() or len(key.encode("utf-8", "replace")) <= longest)
    ):
        return entry
    return replace(entry, key=fresh_stem(host, system), unique="", outputs=entry.outputs if is_ours else "")


def with_outputs(entry: EntryName, outputs: str, host: str, system: System) -> EntryName:
    """Return the entry with these OUTPUTS, if there are any; they tell it from others as a UNIQUE does."""
    alone = with_usable_key(replace(entry, unique="", outputs=""), host, system, shared=True)
    return replace(alone, outputs=outputs) if outputs else entry


def unique_of(claimed: str) -> str:
    """Return the UNIQUE of an entry claimed, or popped, under this name: no other claim has that lease and SEQ.

    It is the same at every settle of the claim, so that a settle that is tried again leads to the same name. It does
    not depend on anything that the entry's writer has chosen, and can't be known without listing `cur/`.
    """
    info = claimed.partition(":1,")[2]
    return blake2b(info.encode("utf-8", "surrogateescape"), digest_size=_UNIQUE_BYTES).hexdigest()


def with_unique(entry: EntryName, unique: str, host: str, system: System) -> EntryName:
    """Return the entry with this UNIQUE, or if it is empty a random one; OUTPUTS stay, and `returns` grows by it."""
    unique = unique or system.token(_UNIQUE_BYTES)
    if entry.outputs:  # which others may have seen in `new/`
        return replace(entry, returns=entry.returns + int(unique[:5], 16))
    return with_usable_key(replace(entry, unique=unique), host, system)


def is_field(text: str) -> bool:
    """Whether it looks like one of our fields; a key with such an end could not be told from its own next name."""
    return (text[:2] in _RANK and _count_of(text) >= 0) or _UNIQUE.match(f",{text}") is not None


def _count_of(text: str) -> int:
    """Return the number in `x=NUMBER`, if written as we write it; -1 for anything else."""
    digits = text[2:]
    if digits.isdecimal() and digits.isascii() and len(digits) <= 12 and (digits[0] != "0" or digits == "0"):
        return int(digits)
    return -1


def due_at(when: float) -> int:
    """Round a due time up to whole seconds, as names have it, whatever number a handler gives."""
    if not when >= 1:
        return 1
    return math.ceil(when) if when < MAX_DUE else MAX_DUE


def due_of(name: str) -> int | None:
    """Return only the due time, as `EntryName.parse` finds it; for long listings."""
    rest, _, digits = name.rpartition(",d=")
    if not rest or ":" in name:
        return EntryName.parse(name).due
    due = _count_of(f"d={digits}")
    return due if due > 0 else None


def first_name(key: str) -> str:
    """Return the name under which an entry of ours is pushed: its key, and the due time of a push for later."""
    own = _OWN.match(key) if FOR_LATER in key else None
    return f"{key},d={own[1]}" if own and own[3] else key


def pushed_at(key: str) -> float | None:
    """Return when the entry was pushed, or first due, by the first field of its key; None if that has no time."""
    seconds = key.partition(".")[0]
    return float(seconds) if seconds.isascii() and seconds.isdecimal() and len(seconds) <= 11 else None


def pushed_by_us_at(key: str) -> float | None:
    """Return when a push of ours made this key, to the microsecond; None for any other key."""
    match = _OWN.match(key)
    return int(match[3] or match[1]) + int(match[2]) / 1e6 if match else None


def size_of(key: str) -> int | None:
    """Return the size in bytes that the key states, as in Maildir++; None if it states none."""
    text = key.rpartition(",S=")[2].partition(",")[0]
    return int(text) if ",S=" in key and text.isascii() and text.isdecimal() and len(text) <= 15 else None


def is_entry(name: str) -> bool:
    """Whether a name may be an entry's: names of folders, and the `.nfs…` files of an NFS client, begin with a dot."""
    return not name.startswith(".")


def lease_name(host: str, system: System) -> str:
    return f"{host}-{system.pid()}-{system.token(6)}"


def split_beat(name: str) -> tuple[str, int] | None:
    """Split a file's name in `leases/` into (lease, beat); None if it is no lease's name."""
    lease, dot, beat = name.rpartition(".")
    if not dot or not lease or not (beat.isascii() and beat.isdecimal()) or lease.startswith("."):
        return None
    return lease, int(beat)


def is_popped(name: str) -> bool:
    """Whether `pop_name` has made this name of `cur/`: a process holds the entry, or a crash has left it."""
    return name.partition(":1,")[2].startswith(_POP)
