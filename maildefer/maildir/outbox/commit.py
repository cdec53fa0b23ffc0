"""The commit of an attempt's outputs: one rename of its claimed entry, to a name that says so."""

from __future__ import annotations

from maildefer.errors import ClaimLost, raise_named
from maildefer.maildir import doubt, durable, names
from maildefer.maildir.claims import Claim


def commit(claim: Claim, token: str) -> None:
    """Have the claim's name say, durably, that its handlers are done and what they have sent. The claim is still held.

    Raises ClaimLost, and StorageFault's kinds: then it may be executed, now or later, and may be called again. A late
    copy of it finds nothing under the name that the claim had.
    """
    claimer = claim._claimer
    layout, system = claimer.layout, claimer.system
    claim._must_be_held()
    if claim.committed != token:
        entry = names.with_outputs(claim.entry, token, claimer.host, system)
        committed = f"{entry.waiting()}:1,{claim.name.partition(':1,')[2]}"
        try:
            system.rename(f"{layout.cur}/{claim.name}", f"{layout.cur}/{committed}")
        except OSError as fault:
            if claim._still_there(fault):
                raise_named(f"{layout.cur}/{committed}", fault)
            _must_be_there(claim, committed)
        claim.name, claim.committed = committed, token
    try:
        durable.sync_directory(layout.cur, system=system)
    except OSError as fault:
        raise_named(layout.cur, fault)


def _must_be_there(claim: Claim, committed: str) -> None:
    """Raise ClaimLost where the entry has left its claimed name, and not for that of the commit."""
    claimer = claim._claimer
    try:
        if doubt.is_listed(claimer.layout.cur, committed, claimer.system):
            return
    except OSError as fault:
        raise_named(claimer.layout.cur, fault)
    claim._free_place()
    raise ClaimLost(claim.name)
