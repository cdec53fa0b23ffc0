"""Whether a place is safe for a queue: facts, verdicts and remedies.

    examine     all checks of one queue, for `maildefer doctor` and for a pool that starts
    judge       a verdict on a mount by its kind and options alone
    trials      what is tried out on the mount, in a folder made for it
    modes       who may do what in a queue: owners, groups, modes
    front_end   what a front end of another user may do, each right tried as that user
    findings    the values that all of them return

Imports point down: examine > judge, modes, front_end, trials > findings.
"""
