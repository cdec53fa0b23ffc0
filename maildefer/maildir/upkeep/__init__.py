"""The upkeep of a queue while hosts come and go; run by the keeper of each host.

    leases          the files by which a host shows that it lives
    observer        watches the leases of other hosts by its own clock, and fences silent ones
    reclaim         reclaims claims of dead owners, and own ones that no worker holds
    promote         moves deferred entries to `new/` when they are due
    ticks           has the call of a periodic task pushed once for each instant
    sweep           removes what crashes left behind
    grown           replaces an emptied folder that has grown, since ext4's never shrink
    failed_moves    names that could not be moved, each tried again by itself
    tokens          tokens of conversations and limits; token_reclaim reclaims those of dead owners
    closures        destinations that are down: closed until a time
    rates           slots of rates: so many starts in a period

Imports point down: token_reclaim > reclaim, rates > tokens > observer, promote > failed_moves, leases. ticks,
grown and closures stand alone.
"""
