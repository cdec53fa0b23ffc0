"""What keeps a queue whole while hosts come and go; run by the keeper of each host.

    leases          a host's sign of life in a queue
    observer        watches the leases of others on one's own clock: which claims have no owner
    reclaim         returns claims of dead owners, and own ones that nobody holds
    promote         moves deferred entries to `new/` when they are due
    sweep           removes what crashes left behind
    failed_moves    names that could not be moved, each tried again by itself
    tokens          conversation tokens; token_reclaim frees those of dead owners

Imports point down: token_reclaim > reclaim > observer > leases, tokens.
"""
